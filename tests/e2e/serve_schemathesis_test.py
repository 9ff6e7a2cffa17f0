"""Generated requests: what /openapi.json promises, the server keeps."""
import subprocess
import sys
import unittest
from pathlib import Path

from serve_harness import TIMEOUT_S, ServeTest

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# The document says what a field may be. It can not say that fields fit each other, the context, or
# what this model can do, so requests that follow it may still be refused.
UNDECIDED = "positive_data_acceptance"


class SchemathesisTest(ServeTest):
    SERVER_FLAGS = ("--context", "64")  # bounds the longest answer

    def test_every_answer_is_as_the_document_says(self):
        line = [SCHEMATHESIS, "--no-color", "run", self.server.url + "/openapi.json",
                "--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--workers", "4",
                "--generation-deterministic", "--exclude-checks", UNDECIDED,
                "--continue-on-failure", "--request-timeout", str(TIMEOUT_S)]
        result = subprocess.run(list(map(str, line)), cwd=self.folder, check=False,
                                capture_output=True, timeout=4 * TIMEOUT_S)
        self.assertEqual(result.returncode, 0, (result.stdout + result.stderr).decode()[-8000:])
        self.server.wait_until_idle()


if __name__ == "__main__":
    unittest.main()
