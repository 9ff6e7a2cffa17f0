"""What vLLM's and llama.cpp's clients send, answered as the command line answers."""
import json
import math
import unittest

from serve_bad_input_cases import CHAT, COMPLETIONS, DETOKENIZE, LLAMA, RENDER, TOKENIZE
from serve_harness import ServeTest

TEXT = "The lighthouse keeper at Varren Point kept two notebooks."
GREEDY = {"temperature": 0}
LONG = "It is told that once, long ago, " + TEXT * 8
# Of a chat: what a user writes can not forge control tokens.
MESSAGES = [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": "naïve <|im_end|> 日本語"}]


class DialectTest(ServeTest):
    def run_json(self, prompt, count, *flags):
        return self.json("run", "-p", prompt, "-n", str(count), "--threads", "2", *flags)

    def complete(self, **body):
        return self.server.completion(prompt=TEXT, **body)["choices"][0]

    def ask(self, path, **body):
        return self.good(self.server.post(path, body))


class SamplingTest(DialectTest):
    """vLLM's fields beside OpenAI's."""

    def test_every_filter_and_penalty_is_that_of_the_command_line(self):
        for fields in ({"top_k": 5}, {"min_p": 0.2}, {"top_p": 0.5}, {"repetition_penalty": 1.3},
                       {"presence_penalty": 1.5}, {"frequency_penalty": 1.5},
                       {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}):
            flags = [part for name, value in fields.items()
                     for part in ("--" + name.replace("_", "-"), str(value))]
            run = self.run_json(TEXT, 24, "--temperature", "1", "--seed", "3", *flags)
            choice = self.complete(max_tokens=24, temperature=1, seed=3, **fields)
            self.assertEqual(choice["text"], run["text"], fields)

    def test_a_bias_forces_and_forbids_tokens(self):
        run = self.run_json(TEXT, 8)
        first = run["tokens"][0]
        flags = ("--logit-bias", f"{first}=-100")
        choice = self.complete(max_tokens=8, logit_bias={str(first): -100}, **GREEDY)
        self.assertEqual(choice["text"], self.run_json(TEXT, 8, *flags)["text"])
        forced = self.complete(max_tokens=4, logit_bias={str(first): 100}, **GREEDY)
        word = self.json("detokenize", "--tokens", str(first))["text"]
        self.assertEqual(forced["text"], word * 4)

    def test_stop_tokens_end_the_answer_and_are_named(self):
        tokens = self.run_json(TEXT, 16)["tokens"]
        choice = self.complete(max_tokens=16, stop_token_ids=[tokens[7]], **GREEDY)
        self.assertEqual((choice["finish_reason"], choice["stop_reason"]), ("stop", tokens[7]))
        self.assertTrue(self.run_json(TEXT, 16)["text"].startswith(choice["text"]))

    def test_an_end_waits_for_min_tokens_or_is_ignored(self):
        body = {"messages": [{"role": "user", "content": "Say only: yes"}], **GREEDY}
        short = self.ask(CHAT, max_tokens=200, **body)
        count = short["usage"]["completion_tokens"]
        self.assertEqual(short["choices"][0]["finish_reason"], "stop")
        longer = self.ask(CHAT, max_tokens=200, min_tokens=count + 5, **body)
        self.assertGreaterEqual(longer["usage"]["completion_tokens"], count + 5)
        full = self.ask(CHAT, max_tokens=count + 9, ignore_eos=True, **body)
        self.assertEqual(full["usage"]["completion_tokens"], count + 9)
        self.assertEqual(full["choices"][0]["finish_reason"], "length")

    def test_the_best_of_several_is_the_one_with_the_highest_mean(self):
        body = {"prompt": TEXT, "max_tokens": 8, "temperature": 1, "seed": 9, "logprobs": 0}
        every = self.ask(COMPLETIONS, n=4, **body)["choices"]

        def mean(choice):
            logprobs = choice["logprobs"]["token_logprobs"]
            return math.fsum(logprobs) / len(logprobs)

        best = sorted(every, key=mean, reverse=True)
        answer = self.ask(COMPLETIONS, n=2, best_of=4, **body)
        self.assertEqual([choice["text"] for choice in answer["choices"]],
                         [choice["text"] for choice in best[:2]])
        self.assertEqual(answer["usage"]["completion_tokens"], 4 * 8)  # all were computed

    def test_fields_that_nobody_knows_are_ignored(self):
        plain = self.complete(max_tokens=8, **GREEDY)
        more = self.complete(max_tokens=8, no_stop_trim=True, session_id="x", user="me",
                             prompt_cache_key="k", store=False, metadata={"a": 1}, priority=3,
                             top_k=None, seed=None, **GREEDY)
        self.assertEqual(more["text"], plain["text"])


class LlamaTest(DialectTest):
    def test_a_completion_is_that_of_the_command_line(self):
        for fields, flags in (
                ({"temperature": 0}, ()),
                # Its defaults are not OpenAI's.
                ({"seed": 4}, ("--temperature", "0.8", "--top-k", "40", "--top-p", "0.95",
                               "--min-p", "0.05", "--seed", "4"))):
            run = self.run_json(TEXT, 16, *flags)
            for path in (LLAMA, "/completions"):
                answer = self.ask(path, prompt=TEXT, n_predict=16, return_tokens=True, **fields)
                self.assertEqual((answer["content"], answer["tokens"]),
                                 (run["text"], run["tokens"]))
                self.assertEqual((answer["stop"], answer["stop_type"]), (True, "limit"))
                self.assertEqual(answer["tokens_evaluated"], run["prompt_tokens"])
                self.assertEqual(answer["tokens_predicted"], 16)

    def test_a_stream_says_the_same_and_ends_with_the_figures(self):
        whole = self.ask(LLAMA, prompt=TEXT, n_predict=16, stop=["e "], **GREEDY)
        stream = self.server.stream(LLAMA, prompt=TEXT, n_predict=16, stop=["e "], **GREEDY)
        events = stream.to_the_end()
        self.assertEqual("".join(event["content"] for event in events), whole["content"])
        self.assertEqual([event["stop"] for event in events],
                         [False] * (len(events) - 1) + [True])
        self.assertEqual((events[-1]["stop_type"], events[-1]["stopping_word"]), ("word", "e "))
        self.assertEqual(events[-1]["timings"]["predicted_n"], whole["timings"]["predicted_n"])

    def test_the_cache_helps_unless_it_is_told_not_to(self):
        first = self.ask(LLAMA, prompt=LONG, n_predict=4, **GREEDY)
        again = self.ask(LLAMA, prompt=LONG, n_predict=4, **GREEDY)
        fresh = self.ask(LLAMA, prompt=LONG, n_predict=4, cache_prompt=False, **GREEDY)
        count = first["tokens_evaluated"]
        self.assertEqual([answer["timings"]["cache_n"] for answer in (first, again, fresh)],
                         [0, count - 1, 0])
        self.assertEqual([answer["timings"]["prompt_n"] for answer in (first, again, fresh)],
                         [count, 1, count])
        self.assertEqual(len({answer["content"] for answer in (first, again, fresh)}), 1)

    def test_only_the_fields_asked_for_come_back(self):
        answer = self.ask(LLAMA, prompt=TEXT, n_predict=2,
                          response_fields=["content", "timings/prompt_n", "none"])
        self.assertEqual(set(answer), {"content", "timings/prompt_n"})


class TextTest(DialectTest):
    def test_tokens_are_those_of_the_command_line_in_both_shapes(self):
        ids = self.json("tokenize", "-p", TEXT)["ids"]
        self.assertEqual(self.ask(TOKENIZE, content=TEXT)["tokens"], ids)
        answer = self.ask(TOKENIZE, prompt=TEXT)
        self.assertEqual((answer["tokens"], answer["count"]), (ids, len(ids)))
        self.assertEqual(answer["max_model_len"], 8192)
        pieces = self.ask(TOKENIZE, content=TEXT, with_pieces=True)["tokens"]
        self.assertEqual("".join(piece["piece"] for piece in pieces), TEXT)
        self.assertEqual([piece["id"] for piece in pieces], ids)
        self.assertEqual(self.ask(DETOKENIZE, tokens=ids),
                         {"content": TEXT, "prompt": TEXT})

    def test_a_rendered_chat_is_that_of_the_command_line_and_of_its_answer(self):
        path = self.write("messages.json", json.dumps(MESSAGES))
        expected = self.json("template", "-f", path)
        rendered = self.ask(RENDER, messages=MESSAGES)
        self.assertEqual(rendered["token_ids"], expected["ids"])
        self.assertEqual(self.ask(TOKENIZE, messages=MESSAGES)["tokens"], expected["ids"])
        usage = self.ask(CHAT, messages=MESSAGES, max_tokens=1)["usage"]
        self.assertEqual(usage["prompt_tokens"], len(expected["ids"]))


if __name__ == "__main__":
    unittest.main()
