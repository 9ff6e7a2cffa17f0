"""The official `openai` client against `kvasir serve`: every answer is that of `kvasir run`."""
import asyncio
import json
import struct
import unittest

import openai

from serve_harness import TIMEOUT_S, ServeTest

TEXT = "The lighthouse keeper at Varren Point kept two notebooks."
PROMPTS = ("The capital of France is", TEXT, "Once upon a time", "1, 2, 3, 4,")
GREEDY = {"temperature": 0}
SEEDED = {"temperature": 0.8, "top_p": 0.95, "seed": 7}
STORY = ("Write down what the keeper saw: ships with red sails, ships with white sails, a whale, "
         "the ice of the north, a balloon, two drowned boxes of tea and a cat. ") * 4


def flags_of(settings):
    return [part for name, value in settings.items()
            for part in ("--" + name.replace("_", "-"), str(value))]


def f32(values):
    """As the engine has them, however many digits were written."""
    return [None if value is None else struct.unpack("<f", struct.pack("<f", value))[0]
            for value in values]


class ClientTest(ServeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = {"base_url": cls.server.url + "/v1", "api_key": "none", "max_retries": 0,
                   "timeout": TIMEOUT_S}
        cls.client = openai.OpenAI(**options)
        cls.addClassCleanup(cls.client.close)
        cls.options = options
        cls.model = cls.client.models.list().data[0].id

    def complete(self, prompt, **settings):
        """Settings that the client does not know go into the body."""
        extra = {name: settings.pop(name) for name in ("ignore_eos", "include_stop_str_in_output",
                                                       "top_k", "min_p", "cache_salt")
                 if name in settings}
        return self.client.completions.create(model=self.model, prompt=prompt, extra_body=extra,
                                              **settings)

    def chat(self, content, **settings):
        return self.client.chat.completions.create(
            model=self.model, messages=[{"role": "user", "content": content}], **settings)

    def text(self, prompt, **settings):
        return self.complete(prompt, **settings).choices[0].text

    def run_json(self, *arguments):
        return self.json("run", *arguments, "--threads", "2")

    def ids(self, text):
        return self.json("tokenize", "-p", text)["ids"]


class ModelsTest(ClientTest):
    def test_the_model_is_listed_and_answers_to_its_name(self):
        model, = self.client.models.list().data
        self.assertEqual((model.object, model.owned_by), ("model", "kvasir"))
        self.assertEqual(model.max_model_len, 8192)
        answer = self.complete("Hello", max_tokens=1)
        self.assertEqual(answer.model, model.id)
        self.assertTrue(answer.system_fingerprint)


class ExactnessTest(ClientTest):
    def test_completions_are_those_of_the_command_line(self):
        for prompt in PROMPTS:
            for settings in (GREEDY, SEEDED):
                run = self.run_json("-p", prompt, "-n", "24", *flags_of(settings))
                answer = self.complete(prompt, max_tokens=24, **settings)
                choice = answer.choices[0]
                self.assertEqual(choice.text, run["text"])
                self.assertEqual(choice.finish_reason, run["finish_reason"])
                self.assertEqual(answer.usage.prompt_tokens, run["prompt_tokens"])
                self.assertEqual(answer.usage.completion_tokens, len(run["tokens"]))
                self.assertEqual(answer.usage.total_tokens,
                                 run["prompt_tokens"] + len(run["tokens"]))

    def test_chat_is_that_of_the_command_line(self):
        for settings in (GREEDY, SEEDED):
            run = self.run_json("--chat", "-p", "Name three rivers.", "-n", "24",
                                *flags_of(settings))
            answer = self.chat("Name three rivers.", max_completion_tokens=24, **settings)
            message = answer.choices[0].message
            self.assertEqual((message.role, message.content), ("assistant", run["text"]))
            self.assertEqual(answer.choices[0].finish_reason, run["finish_reason"])
            self.assertEqual(answer.usage.prompt_tokens, run["prompt_tokens"])

    def test_whole_conversations_go_through_the_models_template(self):
        messages = [{"role": "system", "content": "You are a pirate."},
                    {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]},
                    {"role": "assistant", "content": "Arr."},
                    {"role": "user", "content": "<|im_end|> And now?"}]
        flat = [message | {"content": message["content"]
                           if isinstance(message["content"], str) else "Who are you?"}
                for message in messages]
        ids = self.json("template", "-f", self.write("m.json", json.dumps(flat)))["ids"]
        run = self.run_json("--tokens", ",".join(map(str, ids)), "-n", "16")
        answer = self.client.chat.completions.create(model=self.model, messages=messages,
                                                     max_tokens=16, **GREEDY)
        self.assertEqual(answer.choices[0].message.content, run["text"])
        self.assertEqual(answer.usage.prompt_tokens, len(ids))

    def test_a_second_request_computes_less_and_answers_the_same(self):
        settings = {"max_tokens": 8, **SEEDED}
        first = self.complete(STORY, **settings)
        self.assertEqual(first.usage.prompt_tokens_details.cached_tokens, 0)
        second = self.complete(STORY, **settings)
        self.assertEqual(second.usage.prompt_tokens_details.cached_tokens,
                         second.usage.prompt_tokens - 1)  # the last is computed for its logits
        self.assertEqual(second.choices[0].text, first.choices[0].text)

    def test_a_conversation_goes_on_from_the_answer_before(self):
        first = self.chat(STORY + "And?", max_tokens=16, **GREEDY)
        messages = [{"role": "user", "content": STORY + "And?"},
                    {"role": "assistant", "content": first.choices[0].message.content},
                    {"role": "user", "content": "Go on."}]
        second = self.client.chat.completions.create(model=self.model, messages=messages,
                                                     max_tokens=4, **GREEDY)
        self.assertGreaterEqual(second.usage.prompt_tokens_details.cached_tokens,
                                first.usage.prompt_tokens)

    def test_concurrent_requests_answer_as_alone(self):
        requests = [{"prompt": f"{number}. {prompt}", "max_tokens": 24, **settings}
                    for number in range(3) for prompt in PROMPTS for settings in (GREEDY, SEEDED)]

        async def together():
            async with openai.AsyncOpenAI(**self.options) as client:
                return await asyncio.gather(*(client.completions.create(model=self.model, **request)
                                              for request in requests))

        texts = [answer.choices[0].text for answer in asyncio.run(together())]
        self.assertEqual(texts, [self.text(**request) for request in requests])


class StreamTest(ClientTest):
    def test_the_pieces_of_a_completion_are_the_whole(self):
        for settings in ({"max_tokens": 24, **GREEDY}, {"max_tokens": 24, **SEEDED},
                         {"max_tokens": 12, "n": 3, "logprobs": 2, **SEEDED},
                         {"max_tokens": 24, "stop": ["e ", "the"], **GREEDY}):
            whole = self.complete(TEXT, **settings)
            chunks = list(self.complete(TEXT, stream=True, **settings))
            self.assertEqual(len({chunk.id for chunk in chunks}), 1)
            self.assertTrue(all(chunk.usage is None for chunk in chunks))
            for expected in whole.choices:
                parts = [choice for chunk in chunks for choice in chunk.choices
                         if choice.index == expected.index]
                self.assertEqual("".join(part.text for part in parts), expected.text)
                self.assertEqual([part.finish_reason for part in parts if part.finish_reason],
                                 [expected.finish_reason])
                if expected.logprobs:
                    self.assertEqual([token for part in parts if part.logprobs
                                      for token in part.logprobs.tokens],
                                     expected.logprobs.tokens)

    def test_the_pieces_of_a_chat_are_the_whole(self):
        settings = {"max_tokens": 16, "n": 2, "logprobs": True, "top_logprobs": 2, **SEEDED}
        whole = self.chat("Name three rivers.", **settings)
        chunks = list(self.chat("Name three rivers.", stream=True, **settings))
        self.assertEqual({chunk.object for chunk in chunks}, {"chat.completion.chunk"})
        for expected in whole.choices:
            parts = [choice for chunk in chunks for choice in chunk.choices
                     if choice.index == expected.index]
            self.assertEqual([part.delta.role for part in parts if part.delta.role], ["assistant"])
            self.assertEqual(parts[0].delta.role, "assistant")
            self.assertEqual("".join(part.delta.content or "" for part in parts),
                             expected.message.content)
            self.assertEqual([part.finish_reason for part in parts if part.finish_reason],
                             [expected.finish_reason])
            self.assertEqual([token for part in parts if part.logprobs
                              for token in part.logprobs.content], expected.logprobs.content)

    def test_usage_comes_last_when_it_is_asked_for(self):
        settings = {"max_tokens": 5, **GREEDY}
        for ask in (self.complete, self.chat):
            whole = ask(TEXT, **settings).usage
            chunks = list(ask(TEXT, stream=True, stream_options={"include_usage": True},
                              **settings))
            self.assertEqual(chunks[-1].choices, [])
            self.assertEqual((chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens),
                             (whole.prompt_tokens, whole.completion_tokens))
            self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_a_stream_that_is_closed_ends_its_request(self):
        before = self.server.generated()
        stream = self.complete(TEXT, stream=True, max_tokens=4000, ignore_eos=True)
        self.assertTrue(next(iter(stream)).choices)
        stream.close()
        self.server.wait_until_idle()
        self.assertLess(self.server.generated() - before, 4000)

    def test_a_client_that_runs_out_of_patience_ends_its_request(self):
        before = self.server.generated()
        patient = self.client
        self.client = patient.with_options(timeout=0.5)
        with self.assertRaises(openai.APITimeoutError):
            self.complete(TEXT, max_tokens=4000, ignore_eos=True)
        self.client = patient
        self.server.wait_until_idle()
        self.assertLess(self.server.generated() - before, 4000)


class LogprobsTest(ClientTest):
    def test_completions_have_those_of_the_command_line(self):
        run = self.run_json("-p", TEXT, "-n", "12", "--top-logprobs", "3", *flags_of(SEEDED))
        choice = self.complete(TEXT, max_tokens=12, logprobs=3, **SEEDED).choices[0]
        logprobs = choice.logprobs
        self.assertEqual("".join(logprobs.tokens), choice.text)
        self.assertEqual(f32(logprobs.token_logprobs),
                         f32(entry["logprob"] for entry in run["logprobs"]))
        for top, expected in zip(logprobs.top_logprobs, run["logprobs"], strict=True):
            wanted = {entry["logprob"] for entry in expected["top"]} | {expected["logprob"]}
            self.assertEqual(set(f32(top.values())), set(f32(wanted)))
        for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
            at = offset - logprobs.text_offset[0]
            self.assertEqual(choice.text[at:at + len(token)], token)

    def test_chat_has_tokens_with_their_bytes(self):
        run = self.run_json("--chat", "-p", "Say naïve.", "-n", "12", "--top-logprobs", "2")
        choice = self.chat("Say naïve.", max_tokens=12, logprobs=True, top_logprobs=2,
                           **GREEDY).choices[0]
        content = choice.logprobs.content
        # An end-of-text token is rated, and has no text.
        self.assertTrue(b"".join(bytes(token.bytes) for token in content)
                        .startswith(choice.message.content.encode()))
        self.assertEqual(f32(token.logprob for token in content),
                         f32(entry["logprob"] for entry in run["logprobs"]))
        for token in content:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(token.logprob, token.top_logprobs[0].logprob)  # greedy

    def test_an_echoed_prompt_is_rated_as_eval_rates_it(self):
        rated = self.json("eval", "-p", TEXT)
        count = len(rated["tokens"])
        choice = self.complete(TEXT, echo=True, logprobs=1, max_tokens=0).choices[0]
        self.assertEqual(choice.text, TEXT)
        logprobs = choice.logprobs
        self.assertEqual("".join(logprobs.tokens), TEXT)
        self.assertEqual(f32(logprobs.token_logprobs), f32(rated["logprobs"]))
        self.assertIsNone(logprobs.top_logprobs[0])
        for at in range(1, count):
            best = max(logprobs.top_logprobs[at].values())
            self.assertEqual(logprobs.token_logprobs[at] == best,
                             rated["argmax"][at - 1] == rated["tokens"][at])
        self.assertEqual(logprobs.text_offset,
                         [len("".join(logprobs.tokens[:at])) for at in range(count)])

    def test_an_echo_goes_on_with_the_answer(self):
        rated = self.json("eval", "-p", TEXT)
        run = self.run_json("-p", TEXT, "-n", "4", "--logprobs")
        for _ in range(2):  # a prompt that is rated reads no cache, but may fill it
            choice = self.complete(TEXT, echo=True, logprobs=0, max_tokens=4, **GREEDY).choices[0]
            self.assertEqual(choice.text, TEXT + run["text"])
            self.assertEqual(f32(choice.logprobs.token_logprobs),
                             f32(rated["logprobs"] +
                                 [entry["logprob"] for entry in run["logprobs"]]))


class ShapesTest(ClientTest):
    def test_choices_are_numbered_and_the_first_is_the_single_answer(self):
        output = self.output("run", "-p", TEXT, "-n", "8", "--choices", "3", "--json",
                             *flags_of(SEEDED))
        expected = [json.loads(line)["text"] for line in output.splitlines()]
        answer = self.complete(TEXT, max_tokens=8, n=3, **SEEDED)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2])
        self.assertEqual([choice.text for choice in answer.choices], expected)
        self.assertEqual(self.text(TEXT, max_tokens=8, **SEEDED), expected[0])

    def test_a_stop_string_ends_the_text_before_it(self):
        text = self.text(TEXT, max_tokens=32, **GREEDY)
        stop = text[len(text) // 2:][:5]
        for stops in (stop, ["\0never", stop]):
            choice = self.complete(TEXT, max_tokens=32, stop=stops, **GREEDY).choices[0]
            self.assertEqual(choice.text, text[:text.index(stop)])
            self.assertEqual((choice.finish_reason, choice.stop_reason), ("stop", stop))
        kept = self.text(TEXT, max_tokens=32, stop=stop, include_stop_str_in_output=True, **GREEDY)
        self.assertEqual(kept, text[:text.index(stop) + len(stop)])

    def test_token_ids_answer_like_their_text(self):
        ids = self.ids(TEXT)
        expected = self.text(TEXT, max_tokens=8, **GREEDY)
        for prompt in (ids, [ids]):
            self.assertEqual(self.text(prompt, max_tokens=8, **GREEDY), expected)

    def test_a_list_of_prompts_is_answered_in_order(self):
        for settings in (GREEDY, SEEDED):
            alone = [self.text(prompt, max_tokens=8, **settings) for prompt in PROMPTS]
            for prompts in (list(PROMPTS), [self.ids(prompt) for prompt in PROMPTS]):
                answer = self.complete(prompts, max_tokens=8, n=2, **settings)
                self.assertEqual([choice.index for choice in answer.choices],
                                 list(range(2 * len(PROMPTS))))
                self.assertEqual([choice.text for choice in answer.choices[::2]], alone)
        self.assertEqual(answer.usage.prompt_tokens,
                         sum(len(self.ids(prompt)) for prompt in PROMPTS))

    def test_completions_end_after_16_tokens_when_nothing_is_said(self):
        answer = self.complete(TEXT, ignore_eos=True, **GREEDY)
        self.assertEqual(answer.usage.completion_tokens, 16)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_without_a_seed_answers_differ(self):
        texts = {self.text("Once upon a time", max_tokens=16, temperature=1.5) for _ in range(4)}
        self.assertGreater(len(texts), 1)


class ErrorsTest(ClientTest):
    def fails(self, error, code, param, **settings):
        with self.assertRaises(error) as raised:
            self.complete("Hello", **settings)
        self.assertEqual((raised.exception.code, raised.exception.param), (code, param))
        return str(raised.exception)

    def test_errors_have_types_and_name_the_field(self):
        wrong = openai.BadRequestError
        self.fails(wrong, "invalid_value", "temperature", temperature=3)
        self.fails(wrong, "invalid_value", "n", n=17)
        self.fails(wrong, "invalid_value", "stop", stop="")
        with self.assertRaises(wrong) as raised:
            self.chat("Hi", tools=[{"type": "function", "function": {"name": "f"}}])
        self.assertEqual((raised.exception.code, raised.exception.param),
                         ("unsupported_parameter", "tools"))
        with self.assertRaises(openai.NotFoundError) as raised:
            self.client.completions.create(model="gpt-9", prompt="Hello")
        self.assertEqual(raised.exception.code, "model_not_found")
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model=self.model, input="Hello")

    def test_a_request_that_is_too_long_says_how_long_it_may_be(self):
        with self.assertRaises(openai.BadRequestError) as raised:
            self.complete([1] * 8000, max_tokens=1000)
        for number in ("8000", "1000", "8192"):
            self.assertIn(number, str(raised.exception))


if __name__ == "__main__":
    unittest.main()
