"""The servers as bench/peers/serve sees them: each is started for one turn of one workload."""

import contextlib
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

from engines import HERE, EngineError

START_S_MAX = 120
STOP_S_MAX = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def cpu_seconds(pid):
    """What the process has used of the processors: proc(5), utime and stime in hundredths."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Server:
    """A kind of server: its flags, and how one is started and asked."""

    def __init__(self, options, binary):
        self.options = options
        self.binary = str(binary)
        self.log_path = HERE / ".cache" / f"{self.name}-server.log"
        self.log_path.parent.mkdir(exist_ok=True)
        self.hello = {"engine": self.name, "version": self.version(), "settings": {}}

    def measure(self, workload, variant, seed):
        flags = self.flags(workload, variant)
        try:
            with self.running(flags) as (url, pid):
                self.load(url, ["--requests", "2", "--tokens", "32", "--generate", "4"])
                before_s = cpu_seconds(pid)
                line = self.load(url, [*workload.load_flags(), "--seed", str(seed)])
                used_s = cpu_seconds(pid) - before_s
        except EngineError as error:
            return {"error": str(error)}
        keys = [f"{name}_{part}" for name in ("ttft_ms", "itl_ms") for part in ("p50", "p95")]
        return {
            "tok_s": [line["tok_s"]],
            **{key: line[key] for key in (*keys, "wall_s", "client_cpu_pct")},
            "server_cpu_pct": 100 * used_s / line["wall_s"],
            "settings": {"flags": " ".join(flags)},
        }

    @contextlib.contextmanager
    def running(self, flags):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [self.binary, *self.first_arguments, "--model", self.options.model]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--threads", str(self.options.threads), *flags]
        with self.log_path.open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            try:
                self.wait_until_healthy(process, url)
                yield url, process.pid
            finally:
                stop(process)

    def wait_until_healthy(self, process, url):
        deadline = time.monotonic() + START_S_MAX
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EngineError(f"{self.name} does not start; see {self.log_path}")
            time.sleep(0.1)

    def load(self, url, flags):
        command = [self.options.kvasir, "bench", "load", "--url", url, "--json", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise EngineError(done.stderr.strip() or f"exit code {done.returncode}")
        return json.loads(done.stdout)


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Kvasir(Server):
    name = "kvasir"
    first_arguments = ("serve",)

    def version(self):
        return run_for_output([self.binary, "--version"]).split()[-1]

    def variants(self, _):
        return ["default"]

    def flags(self, _, __):
        return []


class LlamaCpp(Server):
    """A slot for every stream, with room for its workload, and flash attention. Variants: slots
    with a cache of their own, and with one in common, where a prefix can be shared.
    """

    name = "llama.cpp"
    first_arguments = ()

    def version(self):
        # "version: NUMBER (COMMIT)", on the error stream
        lines = run_for_output([self.binary, "--version"]).splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("version"))

    def variants(self, _):
        return ["own", "unified"]

    def flags(self, workload, variant):
        room = -(-(workload.tokens + workload.generate + 1) // 256) * 256
        flags = ["--parallel", str(workload.sequences), "--flash-attn", "on", "--no-ui"]
        flags += ["--ctx-size", str(room * workload.sequences)]
        return flags + (["--kv-unified"] if variant == "unified" else [])


def run_for_output(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode != 0:
        raise EngineError(f"{command[0]} fails: {done.stdout.strip()}")
    return done.stdout
