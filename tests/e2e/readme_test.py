"""Every command of the README runs as it is written there."""
import re
import subprocess
import unittest

from harness import BINARY, SOURCE, TIMEOUT_S, KvasirTest

BLOCK = re.compile(r"^[ \t]*```sh[ \t]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)


def commands(text):
    """The command lines of all ```sh blocks, continued lines joined."""
    for block in BLOCK.findall(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield line.strip().removeprefix("$ ")


class ReadmeTest(KvasirTest):
    def test_commands_are_found_in_blocks(self):
        text = "```sh\nmake\n$ a \\\n   b\n```\n```\nno\n```\n  ```sh\n  c\n  ```\n"
        self.assertEqual(list(commands(text)), ["make", "a b", "c"])

    def test_every_kvasir_command_succeeds(self):
        found = [line for line in commands((SOURCE / "README.md").read_text())
                 if line.startswith("build/kvasir")]
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


if __name__ == "__main__":
    unittest.main()
