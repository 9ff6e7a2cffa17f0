"""Every command of the README runs as it is written there."""
import json
import re
import shlex
import subprocess
import unittest

from harness import BINARY, SOURCE, TIMEOUT_S
from serve_harness import ServersTest

BLOCK = re.compile(r"^[ \t]*```sh[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
SERVE = "build/kvasir serve"
PORT = re.compile(r"--port[ =](\d+)")
PORT_OF_SERVE = "8080"  # when none is given


def blocks(text):
    """The command lines of each ```sh block, continued lines joined."""
    for block in BLOCK.findall(text):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        yield [line.strip().removeprefix("$ ") for line in lines]


def commands(text):
    return [line for block in blocks(text) for line in block]


def conversations(text):
    """(a line that starts a server, the curl lines that follow it in its block)"""
    for block in blocks(text):
        starts = [at for at, line in enumerate(block) if line.startswith(SERVE)]
        for at, end in zip(starts, [*starts[1:], len(block)]):
            yield block[at], [line for line in block[at:end] if line.startswith("curl ")]


class ReadmeTest(ServersTest):
    TEXT = (SOURCE / "README.md").read_text()

    def test_commands_are_found_in_blocks(self):
        text = "```sh\nmake\n$ a \\\n   b\n```\n```\nno\n```\n  ```sh\n  c\n  ```\n"
        self.assertEqual(commands(text), ["make", "a b", "c"])

    def test_conversations_are_found_in_blocks(self):
        text = ("```sh\nbuild/kvasir serve &\ncurl 1\nx\ncurl 2 \\\n  -d\n```\n```sh\ncurl 3\n```\n"
                "```sh\nbuild/kvasir serve --port 1 &\n```\n")
        self.assertEqual(list(conversations(text)),
                         [("build/kvasir serve &", ["curl 1", "curl 2 -d"]),
                          ("build/kvasir serve --port 1 &", [])])

    def test_every_kvasir_command_succeeds(self):
        found = [line for line in commands(self.TEXT)
                 if line.startswith("build/kvasir") and not line.startswith(SERVE)]
        self.assertTrue(found)
        # A stand-in for the source folder, so that what a command writes does not stay there.
        for path in SOURCE.iterdir():
            if path.name != "build":
                (self.folder / path.name).symlink_to(path)
        (self.folder / "build").mkdir()
        (self.folder / "build/kvasir").symlink_to(BINARY)
        for line in found:
            with self.subTest(line):
                result = subprocess.run(["bash", "-c", line], cwd=self.folder, check=False,
                                        stdin=subprocess.DEVNULL, capture_output=True,
                                        timeout=TIMEOUT_S)
                self.assertEqual(result.returncode, 0, result.stderr.decode())

    def curl(self, line):
        """What the server says to it; an error status fails."""
        line = "curl --fail-with-body --silent --show-error" + line.removeprefix("curl")
        result = subprocess.run(["bash", "-c", line], check=False, stdin=subprocess.DEVNULL,
                                capture_output=True, timeout=TIMEOUT_S)
        self.assertEqual(result.returncode, 0, (result.stdout + result.stderr).decode())
        return result.stdout.decode()

    def test_the_server_answers_every_curl_line(self):
        found = list(conversations(self.TEXT))
        self.assertTrue(found)
        for start, lines in found:
            flags = shlex.split(start.removeprefix(SERVE).rstrip("& "))
            port = PORT.search(start)
            server = self.serve(*(flags if not port else
                                  shlex.split(PORT.sub("", " ".join(flags)))))
            # The port may be taken where the tests run, so the server has another one.
            written = f":{port.group(1) if port else PORT_OF_SERVE}/"
            for line in lines:
                with self.subTest(line):
                    self.assertIn(written, line)
                    answer = self.curl(line.replace(written, f":{server.port}/"))
                    if answer.startswith("{"):
                        json.loads(answer)
                    self.assertTrue(answer)
            server.close()


if __name__ == "__main__":
    unittest.main()
