"""lm-eval's `local-completions` against `kvasir serve`, on a task that lies beside this file."""
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

from serve_harness import TIMEOUT_S, ServeTest

DATA = Path(__file__).resolve().parent / "data"
ITEMS = [json.loads(line) for line in (DATA / "facts.jsonl").read_text().splitlines()]


class LmEvalTest(ServeTest):
    def lm_eval(self):
        """(its results, its samples in the order of the items)"""
        model = {"model": self.good(self.server.get("/v1/models"))["data"][0]["id"],
                 "base_url": self.server.url + "/v1/completions", "tokenizer_backend": "remote",
                 "num_concurrent": 2, "max_retries": 1, "timeout": TIMEOUT_S}
        line = [sys.executable, "-B", "-m", "lm_eval", "run", "--model", "local-completions",
                "--model_args", ",".join(f"{name}={value}" for name, value in model.items()),
                "--batch_size", "4", "--tasks", "facts", "--include_path", DATA,
                "--output_path", self.folder / "out", "--log_samples"]
        offline = {"HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1",
                   "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}
        result = subprocess.run(list(map(str, line)), cwd=DATA, env=os.environ | offline,
                                capture_output=True, timeout=TIMEOUT_S, check=False)
        self.assertEqual(result.returncode, 0, result.stderr.decode()[-3000:])
        found, = (self.folder / "out").rglob("results_*.json")
        samples, = (self.folder / "out").rglob("samples_facts_*.jsonl")
        return (json.loads(found.read_text())["results"]["facts"],
                sorted(map(json.loads, samples.read_text().splitlines()),
                       key=lambda sample: sample["doc_id"]))

    def rate(self, question, choice):
        """(log-probability of the choice's tokens, whether each is the likeliest) by eval"""
        begin = len(self.json("tokenize", "-p", question)["ids"])
        rated = self.json("eval", "-p", f"{question} {choice}", "--threads", "2")
        return (sum(rated["logprobs"][begin:]),
                rated["tokens"][begin:] == rated["argmax"][begin - 1:-1])

    def test_the_score_is_the_one_that_eval_implies(self):
        results, samples = self.lm_eval()
        expected = [[self.rate(item["question"], choice) for choice in item["choices"]]
                    for item in ITEMS]
        self.assertEqual(len(samples), len(ITEMS))
        for sample, ratings in zip(samples, expected):
            for ((logprob, greedy),), rating in zip(sample["resps"], ratings, strict=True):
                self.assertAlmostEqual(float(logprob), rating[0], places=4)
                self.assertEqual(greedy, str(rating[1]))
        right = sum(item["answer"] == ratings.index(max(ratings))
                    for item, ratings in zip(ITEMS, expected))
        self.assertEqual(results["acc,none"], right / len(ITEMS))
        self.assertGreater(right, len(ITEMS) / 2)  # it knows something


if __name__ == "__main__":
    unittest.main()
