"""Runs the real binary in an empty folder. The binary and the sources are found through
KVASIR_BINARY and KVASIR_SOURCE_DIR, which ctest sets; KVASIR_SANITIZE names the sanitizers."""
import json
import os
import resource
import subprocess
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("KVASIR_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BINARY = Path(os.environ.get("KVASIR_BINARY", SOURCE / "build/kvasir"))
MODEL = SOURCE / "models/smollm2-135m-instruct-q4_1.gguf"
GOLDEN = SOURCE / "tests/golden"
TINY = GOLDEN / "tiny/llama-q4_0.gguf"
SANITIZED = bool(os.environ.get("KVASIR_SANITIZE"))
TIMEOUT_S = 1200 if SANITIZED else 300

MODEL_COMMANDS = ("run", "chat", "eval", "tokenize", "detokenize", "template")


def command_line(arguments):
    """`-m MODEL` is added where it belongs and is not given."""
    line = [str(BINARY), *map(str, arguments)]
    if arguments and arguments[0] in MODEL_COMMANDS and "-m" not in arguments:
        line += ["-m", str(MODEL)]
    return line


def no_core_files():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class KvasirTest(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def kvasir(self, *arguments, stdin="", **options):
        options = {"stdout": subprocess.PIPE, "preexec_fn": no_core_files} | options
        return subprocess.run(command_line(arguments), input=stdin.encode(), cwd=self.folder,
                              stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False, **options)

    def start(self, *arguments):
        process = subprocess.Popen(command_line(arguments), cwd=self.folder, bufsize=0,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def output(self, *arguments, stdin=""):
        result = self.kvasir(*arguments, stdin=stdin)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout.decode()

    def json(self, *arguments, stdin=""):
        return json.loads(self.output(*arguments, "--json", stdin=stdin))

    def write(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())
