"""What every command answers when it is used well."""
import json
import math
import re
import signal
import struct
import unittest
from pathlib import Path

from harness import GOLDEN, MODEL, SANITIZED, TINY, KvasirTest

TEXT = "The lighthouse keeper at Varren Point kept two notebooks."


class HelpTest(KvasirTest):
    def test_the_version_is_one_line(self):
        self.assertRegex(self.output("--version"), r"^kvasir \d+\.\d+\.\d+\n$")

    def test_every_command_explains_itself(self):
        listing = self.output("--help").partition("Subcommands:")[2]
        commands = re.findall(r"(?m)^  (\w+)", listing)
        self.assertGreaterEqual(set(commands), {"run", "chat", "eval", "tokenize", "detokenize",
                                                "template", "calc", "inspect", "bench"})
        for command in commands:
            result = self.kvasir(command, "--help")
            self.assertEqual((result.returncode, result.stderr), (0, b""), command)
            self.assertIn(b"--help", result.stdout, command)


class TextTest(KvasirTest):
    def test_tokenize_gives_the_golden_ids(self):
        cases = json.loads((GOLDEN / "smollm2/tokenizer_cases.json").read_text())["cases"]
        self.assertGreater(len(cases), 20)
        # A NUL can not be an argument, so the text goes through a file.
        for case in cases[:12] + cases[-12:]:
            path = self.write("text", case["text"])
            ids = self.json("tokenize", "-f", path)["ids"]
            self.assertEqual(ids, case["ids_no_parse_special"], case["text"])
            ids = self.json("tokenize", "-f", path, "--special")["ids"]
            self.assertEqual(ids, case["ids"], case["text"])

    def test_detokenize_gives_the_text_back(self):
        for text in (TEXT, "  two  spaces\n\ttab", "naïve — 日本語 🎉", "<|im_end|>"):
            ids = self.json("tokenize", "-p", text)["ids"]
            again = self.json("detokenize", "--tokens", ",".join(map(str, ids)))
            self.assertEqual(again, {"text": text})

    def test_for_people_ids_are_separated_by_spaces_and_text_is_plain(self):
        self.assertEqual(self.output("tokenize", "-p", "Hello, world!"), "19556 28 905 17\n")
        self.assertEqual(self.output("tokenize", "-f", "-", stdin="Hello, world!"),
                         "19556 28 905 17\n")
        self.assertEqual(self.output("detokenize", "--tokens", "19556, 28 905,17"),
                         "Hello, world!\n")

    def test_template_gives_the_golden_renderings(self):
        cases = json.loads((GOLDEN / "smollm2/chat_cases.json").read_text())["renderings"]
        self.assertGreater(len(cases), 4)
        for number, case in enumerate(cases):
            messages = case["messages"]
            content = messages if number % 2 else {"messages": messages}
            arguments = ["template", "-f", self.write("messages.json", json.dumps(content))]
            if not case["add_generation_prompt"]:
                arguments.append("--no-generation-prompt")
            rendered = self.json(*arguments)
            self.assertEqual(rendered["text"], case["rendered"], case["name"])
            # Other engines take control tokens from a user's text; here it can not forge them.
            forged = any("<|" in message["content"] for message in messages)
            self.assertEqual(rendered["ids"] == case["ids"], not forged, case["name"])


class RunTest(KvasirTest):
    def test_json_has_every_field(self):
        report = self.json("run", "-p", "Hello", "-n", "5", "--top-logprobs", "2")
        self.assertEqual(set(report), {"prompt_tokens", "tokens", "text", "finish_reason", "seed",
                                       "isa", "attention_order", "threads", "logits_sha256", "kv",
                                       "memory", "timing", "logprobs"})
        self.assertEqual(set(report["kv"]), {"mode", "dtype", "pairs_computed", "bytes_per_token",
                                             "block_tokens", "blocks_used_peak", "blocks_capacity",
                                             "tokens_cached", "tokens_missed", "diverged_at",
                                             "preemptions", "promise_wait_ms", "cache"})
        self.assertEqual(report["kv"]["tokens_missed"], {"never_seen": 1})
        blocks = report["kv"]["cache"]["groups"][0]
        self.assertEqual(sum(blocks["blocks_" + state]
                             for state in ("free", "filling", "sealed", "cached")),
                         blocks["blocks_capacity"])
        self.assertEqual(set(report["timing"]),
                         {"load_ms", "ttft_ms", "prefill_tok_s", "decode_tok_s"})
        self.assertEqual(report["prompt_tokens"], 1)
        self.assertEqual(len(report["tokens"]), 5)
        self.assertEqual([len(entry["top"]) for entry in report["logprobs"]], [2] * 5)
        self.assertRegex(report["logits_sha256"], "^[0-9a-f]{64}$")
        self.assertEqual(report["kv"]["bytes_per_token"], 2 * 30 * 3 * 64 * 2)

    def test_the_cache_saves_all_but_one_pair_per_token_and_changes_nothing(self):
        reports = {mode: self.json("run", "--tokens", "1", "-n", "100", "--ignore-eos",
                                   "--kv", mode) for mode in ("none", "contiguous", "paged")}
        pairs = {mode: report["kv"]["pairs_computed"] for mode, report in reports.items()}
        self.assertEqual(pairs, {"none": 5050, "contiguous": 100, "paged": 100})
        self.assertEqual(len(reports["paged"]["tokens"]), 100)
        for mode in ("none", "contiguous"):
            self.assertEqual(reports[mode]["tokens"], reports["paged"]["tokens"])
            self.assertEqual(reports[mode]["logits_sha256"], reports["paged"]["logits_sha256"])

    def test_choices_share_the_prompt_and_the_first_is_the_single_answer(self):
        arguments = ["run", "-p", "Once upon a time", "-n", "8", "--temperature", "1",
                     "--seed", "3"]
        alone = self.json(*arguments)
        lines = self.output(*arguments, "--choices", "3", "--json").splitlines()
        choices = [json.loads(line) for line in lines]
        self.assertEqual([choice["choice"] for choice in choices], [0, 1, 2])
        self.assertEqual(choices[0]["tokens"], alone["tokens"])
        self.assertEqual(choices[0]["logits_sha256"], alone["logits_sha256"])
        self.assertEqual(len({tuple(choice["tokens"]) for choice in choices}), 3)
        pairs = sum(choice["kv"]["pairs_computed"] for choice in choices)
        self.assertEqual(pairs, alone["prompt_tokens"] + 3 * 7)  # the prompt once

    def test_beams_are_ranked_and_a_single_one_is_greedy(self):
        arguments = ["run", "-p", "The capital of France is", "-n", "10", "--ignore-eos"]
        greedy = self.json(*arguments)
        self.assertEqual(self.json(*arguments, "--beams", "1")["tokens"], greedy["tokens"])
        lines = self.output(*arguments, "--beams", "3", "--json").splitlines()
        scores = [json.loads(line)["score"] for line in lines]
        self.assertEqual(len(scores), 3)
        self.assertEqual(scores, sorted(scores, reverse=True))

    def test_equal_requests_of_a_batch_cost_one_prefill(self):
        line = json.dumps({"tokens": list(range(100, 165))}) + "\n"
        lines = self.output("run", "--batch", self.write("batch.jsonl", line * 4), "-n", "3",
                            "--json").splitlines()
        reports = [json.loads(line) for line in lines]
        self.assertEqual(sum(report["kv"]["tokens_cached"] for report in reports), 3 * 64)
        self.assertEqual(len({report["logits_sha256"] for report in reports}), 1)

    def test_streamed_text_is_that_of_the_report(self):
        arguments = ("run", "--chat", "-n", "12", "-p", "What is the capital of France?")
        self.assertEqual(self.output(*arguments), self.json(*arguments)["text"] + "\n")

    def test_a_batch_gives_what_its_requests_give_alone(self):
        batch = self.write("batch.jsonl", '{"prompt": "Hello"}\n\n{"tokens": [1, 2, 3]}\n')
        lines = self.output("run", "--batch", batch, "-n", "6", "--json").splitlines()
        together = [json.loads(line)["logits_sha256"] for line in lines]
        alone = [self.json("run", *prompt, "-n", "6")["logits_sha256"]
                 for prompt in (("-p", "Hello"), ("--tokens", "1,2,3"))]
        self.assertEqual(together, alone)

    def test_interrupted_generation_ends_with_the_timing_line(self):
        process = self.start("run", "-p", "Once", "-n", "4000", "--ignore-eos")
        self.assertTrue(process.stdout.read(1))  # it is generating
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertRegex(errors.decode(), r"^\[cancelled: 1 prompt tokens .*\]\n$")


class EvalTest(KvasirTest):
    def test_the_figures_follow_from_the_log_probabilities(self):
        report = self.json("eval", "-p", TEXT)
        count = len(report["tokens"])
        self.assertEqual(report["tokens"], self.json("tokenize", "-p", TEXT)["ids"])
        self.assertEqual((len(report["logprobs"]), len(report["argmax"])), (count, count))
        self.assertIsNone(report["logprobs"][0])
        nll = -sum(report["logprobs"][1:]) / (count - 1)
        self.assertAlmostEqual(report["nll"], nll, places=6)
        self.assertAlmostEqual(report["perplexity"], math.exp(nll), delta=1e-4 * math.exp(nll))
        self.assertIn(f"perplexity {report['perplexity']:.4f}", self.output("eval", "-p", TEXT))

    def test_logits_out_is_a_numpy_matrix_that_agrees_with_the_report(self):
        report = self.json("eval", "-p", TEXT, "--logits-out", "logits.npy")
        self.assertEqual(self.files(), ["logits.npy"])
        content = (self.folder / "logits.npy").read_bytes()
        self.assertEqual(content[:8], b"\x93NUMPY\x01\x00")
        begin = 10 + struct.unpack("<H", content[8:10])[0]
        count = len(report["tokens"])
        self.assertEqual(content[10:begin].decode().strip(),
                         "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 49152), }" % count)
        self.assertEqual(len(content), begin + count * 49152 * 4)
        for position, next_token in enumerate(report["tokens"][1:]):
            row = struct.unpack_from("<49152f", content, begin + position * 49152 * 4)
            best = max(row)
            self.assertEqual(row.index(best), report["argmax"][position])
            total = math.fsum(math.exp(logit - best) for logit in row)
            logprob = row[next_token] - best - math.log(total)
            self.assertAlmostEqual(report["logprobs"][position + 1], logprob, places=3)

    def test_interrupting_it_leaves_no_file(self):
        self.write("long", TEXT * 300)
        process = self.start("eval", "-f", "long", "--logits-out", "logits.npy")
        while self.files() == ["long"]:  # until it has begun to write
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, output, errors), (1, b"", b"kvasir: interrupted\n"))
        self.assertEqual(self.files(), ["long"])


class CalcTest(KvasirTest):
    def test_a_7b_model(self):
        arguments = ("calc", "--preset", "llama-7b", "--dtype", "f16", "--tokens", "4096")
        report = self.json(*arguments)
        self.assertEqual(report["key_bytes_per_token_layer"], 8192)
        self.assertEqual(report["value_bytes_per_token_layer"], 8192)
        self.assertEqual(report["bytes_per_token_layer"], 16384)
        self.assertEqual(report["bytes_per_token"], 524288)
        self.assertEqual(report["kv_bytes"], 2147483648)
        self.assertEqual(round(report["weights_bytes"] / 1e9), 13)
        self.assertEqual(round(report["activations_bytes"] / 1e9), 1)
        self.assertEqual(report["activations_bytes"], sum(report["activation_terms"].values()))
        table = self.output(*arguments)
        for number in ("16,384", "8,192", "524,288", "2,147,483,648", "13.48 GB"):
            self.assertIn(number, table)

    def test_a_70b_model_with_grouped_queries(self):
        report = self.json("calc", "--preset", "llama-2-70b", "--tokens", "131072")
        self.assertEqual((report["layers"], report["kv_heads"], report["head_dim"]), (80, 8, 128))
        self.assertEqual(report["kv_payload_bytes"], 42949672960)

    def test_a_bare_shape_has_only_a_cache(self):
        report = self.json("calc", "--layers", "2", "--kv-heads", "3", "--head-dim", "64",
                           "--dtype", "int8", "--tokens", "40", "--sequences", "5")
        self.assertEqual(report["kv_payload_bytes"], 2 * 2 * 3 * 64 * 40 * 5)
        self.assertEqual(report["kv_scale_bytes"], 2 * 2 * 3 * 4 * 40 * 5)
        self.assertEqual(report["kv_padding_bytes"], 2 * 2 * 3 * (64 + 4) * 24 * 5)
        self.assertEqual(report["kv_bytes"], report["kv_payload_bytes"] +
                         report["kv_scale_bytes"] + report["kv_padding_bytes"])
        self.assertIsNone(report["weights_bytes"])
        self.assertIsNone(report["activations_bytes"])

    def test_a_file_takes_what_run_takes_to_the_byte(self):
        for model, run_flags, calc_flags in (
                (MODEL, (), ()),
                (MODEL, ("--context", "1000"), ("--tokens", "1000")),
                (MODEL, ("--context", "100"), ("--tokens", "100")),
                (TINY, (), ()),
                (TINY, ("--kv-dtype", "f32"), ("--dtype", "f32")),
                (TINY, ("--kv-dtype", "int8"), ("--dtype", "int8")),
                (TINY, ("--block-tokens", "16", "--weights", "f32"),
                 ("--block-tokens", "16", "--weights", "f32")),
                (TINY, ("--prefill-chunk", "all"), ("--prefill-chunk", "all")),
                (TINY, ("--max-sequences", "4"), ("--max-sequences", "4")),
                (TINY, ("--prefill-chunk", "7"), ("--prefill-chunk", "7"))):
            run = self.json("run", "-m", model, "--tokens", "1", "-n", "1", *run_flags)
            calc = self.json("calc", "-m", model, *calc_flags)
            self.assertEqual({name: calc[name] for name in run["memory"]}, run["memory"],
                             (model, run_flags))
            self.assertEqual(calc["bytes_per_token"], run["kv"]["bytes_per_token"])

    @unittest.skipIf(SANITIZED, "sanitizers keep memory of their own")
    def test_a_run_takes_less_than_20_mb_beyond_its_plan(self):
        planned = self.json("calc", "-m", MODEL)["total_bytes"]
        process = self.start("run", "-p", "Once upon a time", "-n", "48", "--ignore-eos")
        peak = 0
        while process.stdout.read(64):  # not more than it has
            status = Path(f"/proc/{process.pid}/status").read_text()
            if anonymous := re.search(r"RssAnon:\s+(\d+)", status):  # none once it has ended
                peak = max(peak, 1024 * int(anonymous[1]))
        self.assertGreater(peak, planned)
        self.assertLess(peak - planned, 20e6)  # 14 MB here: tokenizer, books, the program


class BenchTest(KvasirTest):
    def lines(self, *arguments):
        output = self.output("bench", *arguments, "-m", TINY, "--json")
        return [json.loads(line) for line in output.splitlines()]

    def test_modes_cost_what_they_must_and_agree(self):
        lines = self.lines("modes", "--generate", "32", "--repeat", "1")
        self.assertEqual(len(lines), 12)
        digests = {}
        for line in lines:
            count = line["generate"]
            pairs = count * (count + 1) // 2 if line["kv"] == "none" else count
            self.assertEqual(line["pairs_computed"], pairs)
            digests.setdefault(count, set()).add(line["logits_sha256"])
            kv_bytes = self.json("calc", "-m", TINY, "--tokens", str(count))["kv_bytes"]
            context_bytes = self.json("calc", "-m", TINY)["kv_bytes"]
            expected = {"none": 0, "paged": kv_bytes, "contiguous": context_bytes}
            self.assertEqual(line["kv_bytes_peak"], expected[line["kv"]])
        self.assertTrue(all(len(of_length) == 1 for of_length in digests.values()))

    def test_throughput_in_every_mode_reports_the_memory_of_calc(self):
        for mode in ("none", "contiguous", "paged"):
            for name, tokens, sequences in (("prefill", 31, 1), ("decode", 8, 1), ("batch", 30, 3)):
                line, = self.lines(name, "--tokens", "24" if name == "batch" else "30",
                                   "--generate", "6", "--sequences", str(sequences), "--repeat",
                                   "1", "--kv", mode)
                self.assertGreater(line["tok_s"], 0)
                self.assertLessEqual(line["tok_s_min"], line["tok_s"])
                calc = self.json("calc", "-m", TINY, "--tokens", str(tokens), "--sequences",
                                 str(sequences), "--max-sequences", str(sequences))
                self.assertEqual({key: calc[key] for key in line["memory"]}, line["memory"],
                                 (name, mode))

    def test_kernels_reports_limits_and_shares_of_the_instruction_set_asked_for(self):
        lines = self.lines("kernels", "--isa", "avx2", "--threads", "2", "--repeat", "1")
        self.assertEqual({line["isa"] for line in lines}, {"avx2"})
        shares = [line["pct_of_peak"] for line in lines if "pct_of_peak" in line]
        self.assertTrue(shares)
        self.assertTrue(all(share > 0 for share in shares))
        names = [line["case"] for line in lines]
        self.assertEqual(len(names), len(set(names)))
        for limit in ("read@1", "read@2", "int8@2", "f32@2", "fork_join@2"):
            self.assertIn(limit, names)

    def test_slope_fits_a_line_through_every_depth(self):
        for dtype in ("bf16", "int8"):
            lines = self.lines("slope", "--depth", "64", "--tokens", "16", "--generate", "8",
                               "--repeat", "1", "--kv-dtype", dtype)
            self.assertEqual([line["case"] for line in lines], ["decode", "prefill"])
            for line in lines:
                self.assertEqual(len(line["points"]), 5)
                depths = [point["depth"] for point in line["points"]]
                self.assertEqual(depths, sorted(set(depths)))
            calc = self.json("calc", "-m", TINY, "--dtype", dtype)
            self.assertAlmostEqual(lines[0]["predicted_ns"],
                                   calc["bytes_per_token"] / lines[0]["read_gb_s"], places=3)


class InspectTest(KvasirTest):
    def test_the_default_model(self):
        report = self.json("inspect", MODEL)
        self.assertEqual(report["architecture"], "llama")
        self.assertEqual(report["parameters"], 134515008)
        self.assertEqual(report["context_length"], 8192)
        self.assertEqual(report["kv_groups"], [{"layers": 30, "kv_heads": 3, "head_dim": 64}])
        self.assertEqual(report["bytes_per_token"], {"f32": 46080, "f16": 23040, "bf16": 23040,
                                                     "int8": 12240, "fp8": 11520})
        self.assertEqual(len(report["tensors"]), 272)
        self.assertEqual(report["tensors"][0], {"name": "token_embd.weight", "type": "Q8_0",
                                                "shape": [576, 49152], "bytes": 30081024})
        self.assertEqual(report["tokenizer"]["tokens"], 49152)
        self.assertTrue(report["tokenizer"]["chat_template"])

    def test_a_file_of_another_architecture_is_shown_all_the_same(self):
        content = TINY.read_bytes()
        at = content.index(b"llama", content.index(b"general.architecture"))
        path = self.write("mamba.gguf", content[:at] + b"mamba" + content[at + 5:])
        report = self.json("inspect", path)
        self.assertEqual(report["architecture"], "mamba")
        self.assertIsNone(report["kv_groups"])
        self.assertTrue(report["tensors"])
        self.assertIn("mamba", report["problem"])
        self.assertIn("mamba", self.output("inspect", path))


if __name__ == "__main__":
    unittest.main()
