"""Conversations through a pipe."""
import json
import re
import signal
import unittest

from harness import KvasirTest

FIRST = "What is the capital of France?"
SECOND = "And of Italy?"


class ChatTest(KvasirTest):
    def converse(self, *lines, flags=()):
        """The answers and the figures of each turn."""
        result = self.kvasir("chat", *flags, stdin="".join(line + "\n" for line in lines))
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        turns = re.findall(r"\[(\w+): (\d+) prompt tokens, (\d+) of them from the cache",
                           result.stderr.decode())
        return (result.stdout.decode(), result.stderr.decode(),
                [(end, int(prompt), int(cached)) for end, prompt, cached in turns])

    def test_the_next_turn_computes_only_what_is_new(self):
        _, _, turns = self.converse(FIRST, SECOND, flags=("-n", "20"))
        (_, first_prompt, first_cached), (_, second_prompt, second_cached) = turns
        self.assertEqual(first_cached, 0)
        self.assertGreater(second_cached, first_prompt)
        self.assertLess(second_prompt - second_cached, 20)

    def test_an_answer_is_that_of_the_whole_conversation_without_its_cache(self):
        first, _, _ = self.converse(FIRST, flags=("-n", "20"))
        both, _, _ = self.converse(FIRST, SECOND, flags=("-n", "20"))
        self.assertTrue(both.startswith(first))
        messages = [{"role": "user", "content": FIRST},
                    {"role": "assistant", "content": first[:-1]},
                    {"role": "user", "content": SECOND}]
        path = self.write("messages.json", json.dumps(messages))
        prompt = self.json("template", "-f", path)["ids"]
        fresh = self.json("run", "--tokens", ",".join(map(str, prompt)), "-n", "20")
        self.assertEqual(both[len(first):], fresh["text"] + "\n")

    def test_every_cache_mode_gives_the_same_conversation(self):
        answers = {self.converse(FIRST, SECOND, flags=("-n", "8", "--kv", mode))[0]
                   for mode in ("none", "contiguous", "paged")}
        self.assertEqual(len(answers), 1)

    def test_reset_forgets_and_exit_leaves(self):
        output, errors, turns = self.converse(FIRST, "/reset", FIRST, "/exit", SECOND,
                                              flags=("-n", "8"))
        self.assertEqual(turns[0][:2], turns[1][:2])  # the prompt did not grow
        self.assertEqual(len(turns), 2)
        lines = output.splitlines()
        self.assertEqual(lines[:len(lines) // 2], lines[len(lines) // 2:])
        self.assertIn("[forgotten]", errors)

    def test_the_system_message_comes_first(self):
        _, _, (bare,) = self.converse("Hi", flags=("-n", "1"))
        _, _, (told,) = self.converse("Hi", flags=("-n", "1", "--system", "word " * 50))
        self.assertGreater(told[1], bare[1] + 20)

    def test_a_full_context_is_said(self):
        flags = ("-n", "100", "--context", "64")
        _, errors, turns = self.converse("Tell me a story about the sea.", flags=flags)
        self.assertEqual(turns[0][0], "length")
        self.assertIn("[the context of 64 tokens is full; forget it with /reset]", errors)
        _, errors, turns = self.converse("Count. " * 40, "Hi", flags=flags)
        self.assertEqual(len(turns), 1)  # too long is refused, and the conversation goes on
        self.assertIn("its context is 64", errors)

    def test_an_interrupt_stops_the_answer_and_keeps_the_conversation(self):
        process = self.start("chat", "-n", "200")
        process.stdin.write(b"Write a very long story about the sea.\n")
        self.assertTrue(process.stdout.read(1))  # the answer has begun
        process.send_signal(signal.SIGINT)
        self.assertRegex(process.stderr.readline(), rb"^\[cancelled: ")
        process.stdin.write(b"Thank you.\n/exit\n")
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertRegex(errors.decode(), r"\d+ prompt tokens, [1-9]\d* of them from the cache")

    def test_an_interrupt_at_the_prompt_leaves(self):
        process = self.start("chat", "-n", "1")
        process.stdin.write(b"Hi\n")
        self.assertIn(b"generated", process.stderr.readline())  # it waits for the next line
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
