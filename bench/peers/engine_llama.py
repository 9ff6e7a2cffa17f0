"""llama.cpp as a measured engine, through the low-level bindings of llama-cpp-python; see child.py.

Weights are repacked for the processor at load, which is its default. Variants: "ubatch-512" is the
default size of a compute step, "ubatch-2048" a larger one, both with flash attention;
"noflash-512" is without, which an 8-bit cache does not allow.
"""

import time

import llama_cpp
import numpy

import child

KV_TYPES = {
    "default": ("f16", llama_cpp.GGML_TYPE_F16),
    "16": ("f16", llama_cpp.GGML_TYPE_F16),
    "8": ("q8_0", llama_cpp.GGML_TYPE_Q8_0),
}
CONTEXT_STEP = 256  # sequences are given multiples of this many tokens


class LlamaCpp:
    def __init__(self, options):
        self.options = options
        # The library calls it for every message: it must live as long as this.
        self.silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silent, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            options.model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"llama.cpp can not load {options.model}")
        self.context = None
        self.batch = None

    def hello(self):
        return {
            "engine": "llama.cpp",
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "settings": {
                "threads": self.options.threads,
                "system": llama_cpp.llama_print_system_info().decode().strip(),
            },
        }

    def open(self, workload, variant):
        """A fresh context for the workload."""
        length = workload.tokens + workload.depth + workload.generate + 1
        length = -(-length // CONTEXT_STEP) * CONTEXT_STEP
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = length * workload.sequences
        params.n_seq_max = workload.sequences
        params.n_ubatch = int(variant.rpartition("-")[2])
        params.n_batch = max(2048, params.n_ubatch)
        params.n_threads = params.n_threads_batch = self.options.threads
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
            if variant.startswith("noflash")
            else llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        )
        params.type_k = params.type_v = KV_TYPES[workload.kv][1]
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError("llama.cpp refuses the context")
        self.batch_tokens = params.n_batch
        self.batch = llama_cpp.llama_batch_init(self.batch_tokens, 0, 1)
        self.memory = llama_cpp.llama_get_memory(self.context)

    def close(self):
        if self.batch:
            llama_cpp.llama_batch_free(self.batch)
        if self.context:
            llama_cpp.llama_free(self.context)
        self.context = self.batch = None

    def decode(self, rows):
        """Computes rows of (token, position, sequence, wants logits), at most a batch of them."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wants_logits) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wants_logits
        status = llama_cpp.llama_decode(self.context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gives {status}")

    def best_token(self, row):
        """The most likely token after batch row `row`; waits for the computation."""
        logits = llama_cpp.llama_get_logits_ith(self.context, row)
        return int(numpy.ctypeslib.as_array(logits, (self.options.vocabulary,)).argmax())

    def prefill(self, prompts):
        """Computes the prompts; the next token of each."""
        rows = [
            (token, position, sequence, position + 1 == len(prompt))
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        tokens = []
        for begin in range(0, len(rows), self.batch_tokens):
            part = rows[begin : begin + self.batch_tokens]
            self.decode(part)
            tokens += [self.best_token(i) for i, row in enumerate(part) if row[3]]
        return tokens

    def generate(self, tokens, position, count):
        """`count` more tokens of each sequence, greedily."""
        for step in range(count):
            self.decode([(t, position + step, s, True) for s, t in enumerate(tokens)])
            tokens = [self.best_token(i) for i in range(len(tokens))]

    def measure(self, workload, variant, seed):
        self.open(workload, variant)
        try:
            rates = [self.rate(workload, seed * 1000 + i) for i in range(workload.repeat + 1)]
        finally:
            self.close()
        return {  # the first one only warms up
            "tok_s": rates[1:],
            "settings": {"variant": variant, "kv_type": KV_TYPES[workload.kv][0]},
        }

    def rate(self, workload, seed):
        prompts = workload.prompts(self.options.vocabulary, seed)
        llama_cpp.llama_memory_clear(self.memory, False)
        start = time.perf_counter()
        tokens = self.prefill(prompts)
        if workload.kind == "prefill":
            return workload.tokens / (time.perf_counter() - start)
        if workload.kind == "decode":
            start = time.perf_counter()
            self.generate(tokens, workload.depth, workload.generate)
            return workload.generate / (time.perf_counter() - start)
        # The prompt already gave the first token.
        self.generate(tokens, workload.tokens, workload.generate - 1)
        seconds = time.perf_counter() - start
        return workload.sequences * (workload.tokens + workload.generate) / seconds


if __name__ == "__main__":
    child.serve(LlamaCpp)
