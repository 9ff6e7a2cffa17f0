"""The engines as the run sees them: start, measure, stop. A peer is a process of its own that waits
between its turns (child.py); ours is one `kvasir bench` per turn."""

import contextlib
import dataclasses
import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


class EngineError(Exception):
    pass


class Kvasir:
    name = "kvasir"

    def __init__(self, options):
        self.options = options
        version = self._run([options.kvasir, "--version"]).strip()
        self.hello = {"engine": self.name, "version": version, "settings": {}}

    def variants(self, _):
        return ["default"]

    def measure(self, workload, _, seed):
        """`seed` is not used: every repetition of the bench draws tokens of its own."""
        command = [self.options.kvasir, "bench", workload.kind, "-m", self.options.model, "--json"]
        command += ["--threads", str(self.options.threads), "--repeat", str(workload.repeat)]
        if workload.kind != "decode":
            command += ["--tokens", str(workload.tokens)]
        if workload.kind != "prefill":
            command += ["--generate", str(workload.generate)]
        if workload.kind == "decode":
            command += ["--depth", str(workload.depth)]
        if workload.kind == "batch":
            command += ["--sequences", str(workload.sequences)]
        command += ["--kv-dtype", "int8" if workload.kv == "8" else "bf16"]
        if self.options.isa != "native":
            command += ["--isa", self.options.isa]
        try:
            line = json.loads(self._run(command))
        except EngineError as error:
            return {"error": str(error)}
        settings = {key: line[key] for key in ("isa", "kv_dtype", "block_tokens")}
        # Minimum, median and maximum are all that three measurements are, and fewer have less.
        keys = {1: ["tok_s"], 2: ["tok_s_min", "tok_s_max"], 3: ["tok_s_min", "tok_s", "tok_s_max"]}
        return {"tok_s": [line[key] for key in keys[workload.repeat]], "settings": settings}

    def stop(self):
        pass

    @staticmethod
    def _run(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EngineError(done.stderr.strip() or f"exit code {done.returncode}")
        return done.stdout


class Peer:
    """An engine in a child process."""

    def __init__(self, options, python, vocabulary):
        command = [str(python), str(HERE / self.script), "--model", options.model]
        command += ["--threads", str(options.threads), "--vocabulary", str(vocabulary)]
        (HERE / ".cache").mkdir(exist_ok=True)
        self.log = (HERE / ".cache" / f"{self.name}.log").open("w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.hello = self._answer()

    def measure(self, workload, variant, seed):
        request = {"workload": dataclasses.asdict(workload), "variant": variant, "seed": seed}
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            return self._answer()
        except (BrokenPipeError, EngineError) as error:
            return {"error": str(error)}

    def stop(self):
        with contextlib.suppress(BrokenPipeError):  # it may have ended
            self.process.stdin.close()
        self.process.wait()
        self.log.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise EngineError(f"{self.name} has ended; see {self.log.name}")
        return json.loads(line)


class LlamaCpp(Peer):
    name = "llama.cpp"
    script = "engine_llama.py"

    def variants(self, workload):
        prompts = workload.tokens * workload.sequences
        large = ["ubatch-2048"] if prompts > 512 else []
        return ["ubatch-512", *large] + (["noflash-512"] if workload.kv != "8" else [])


class OpenVino(Peer):
    name = "openvino"
    script = "engine_openvino.py"

    def variants(self, workload):
        return ["paged"] + (["stateful"] if workload.sequences == 1 else [])


PEERS = {engine.name: engine for engine in (LlamaCpp, OpenVino)}
NAMES = [Kvasir.name, *PEERS]
OF_ANY_ISA = [Kvasir.name, LlamaCpp.name]  # OpenVINO takes what the processor has
