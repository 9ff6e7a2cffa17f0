"""OpenVINO GenAI as a measured engine; see child.py.

Variants: "paged" is continuous batching, "stateful" the pipeline for one sequence at a time.
"""

import gc
import time

import numpy
import openvino
import openvino_genai

import child

CACHE_GB = 4
SCHEDULER = {
    "enable_prefix_caching": False,
    "max_num_batched_tokens": 4096,
    "max_num_seqs": 64,
}
KV_PRECISIONS = {"8": "u8", "16": "f16", "default": None}


class OpenVino:
    def __init__(self, options):
        self.options = options
        self.config = None  # of the pipeline: (variant, KV precision)
        self.pipeline = None

    def hello(self):
        return {
            "engine": "openvino",
            "version": f"{openvino_genai.__version__} on {openvino.__version__}",
            "settings": {"threads": self.options.threads, **SCHEDULER},
        }

    def use(self, variant, kv_precision):
        """One pipeline at a time: a second one would keep its own copy of the weights."""
        if self.config == (variant, kv_precision):
            return
        self.pipeline = None
        gc.collect()
        properties = {"INFERENCE_NUM_THREADS": self.options.threads}
        if kv_precision:
            properties["KV_CACHE_PRECISION"] = kv_precision
        if variant == "stateful":
            self.pipeline = openvino_genai.LLMPipeline(
                self.options.model, "CPU", ATTENTION_BACKEND="SDPA", **properties
            )
        else:
            scheduler = openvino_genai.SchedulerConfig()
            scheduler.cache_size = CACHE_GB
            for name, value in SCHEDULER.items():
                setattr(scheduler, name, value)
            self.pipeline = openvino_genai.ContinuousBatchingPipeline(
                self.options.model, scheduler, "CPU", properties
            )
        self.config = (variant, kv_precision)

    def generate(self, prompts, count):
        """Seconds of all of it, and its performance metrics."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = count
        config.ignore_eos = True
        config.do_sample = False
        inputs = [openvino.Tensor(numpy.array([prompt], dtype=numpy.int64)) for prompt in prompts]
        start = time.perf_counter()
        if self.config[0] == "stateful":
            result = self.pipeline.generate(inputs[0], config)
            seconds = time.perf_counter() - start
            return seconds, result.perf_metrics, len(result.tokens[0])
        results = self.pipeline.generate(inputs, [config] * len(inputs))
        seconds = time.perf_counter() - start
        return seconds, results[0].perf_metrics, sum(len(r.m_generation_ids[0]) for r in results)

    def measure(self, workload, variant, seed):
        self.use(variant, KV_PRECISIONS[workload.kv])
        rates = [self.rate(workload, seed * 1000 + i) for i in range(workload.repeat + 1)]
        return {  # the first one only warms up
            "tok_s": rates[1:],
            "settings": {
                "variant": variant,
                "kv_precision": KV_PRECISIONS[workload.kv] or "its default",
            },
        }

    def rate(self, workload, seed):
        prompts = workload.prompts(self.options.vocabulary, seed)
        if workload.kind == "prefill":
            seconds, _, _ = self.generate(prompts, 1)
            return workload.tokens / seconds
        if workload.kind == "decode":
            _, metrics, tokens = self.generate(prompts, workload.generate + 1)
            if tokens != workload.generate + 1:
                raise RuntimeError(f"{tokens} tokens instead of {workload.generate + 1}")
            return 1000.0 / metrics.get_tpot().mean
        seconds, _, tokens = self.generate(prompts, workload.generate)
        if tokens != workload.sequences * workload.generate:
            raise RuntimeError(f"only {tokens} tokens")
        return workload.sequences * (workload.tokens + workload.generate) / seconds


if __name__ == "__main__":
    child.serve(OpenVino)
