"""Hundreds of clients at once: good ones, impatient ones, and some that mean harm."""
import asyncio
import json
import random
import resource
import time
import unittest

from serve_bad_input_cases import COMPLETIONS, head
from serve_harness import SANITIZED, TIMEOUT_S, ServeTest

STREAMS = 1000
SAMPLES = 50
CANCELS = 1000
CLIENTS = 32
IDLE = 500
SLOW = 100
PROBES = 200
PROBE_S_MAX = 10.0 if SANITIZED else 1.0  # with a loaded machine in mind


def request_bytes(body):
    """In HTTP/1.0, where an answer is not cut into chunks."""
    data = json.dumps(body).encode()
    return head(f"Content-Length: {len(data)}", line=f"POST {COMPLETIONS} HTTP/1.0") + data


class Answer:
    """What a client has read of a stream; checked as it comes."""

    def __init__(self):
        self.status = None
        self.texts = []
        self.ids = set()
        self.finish_reasons = []
        self.done = False

    async def read(self, reader, events_max=None):
        """To the end, or until so many events have come."""
        self.status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        events = 0
        while events != events_max and (line := await reader.readline()):
            if not line.startswith(b"data: "):
                continue  # empty lines, comments
            events += 1
            if self.done:
                raise AssertionError("an event behind [DONE]")
            self.take(line[len(b"data: "):].strip())
        return self

    def take(self, data):
        if data == b"[DONE]":
            self.done = True
            return
        chunk = json.loads(data)
        self.ids.add(chunk["id"])
        for choice in chunk["choices"]:
            self.texts.append(choice["text"])
            if choice["finish_reason"]:
                self.finish_reasons.append(choice["finish_reason"])

    def text(self):
        return "".join(self.texts)


class LoadTest(ServeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def setUp(self):
        super().setUp()
        self.seed = time.time_ns() % 1000000
        self.random = random.Random(self.seed)
        print(f"{self.id()}: seed {self.seed}", flush=True)

    def bodies(self, count, prompt_tokens, max_tokens):
        """Requests that differ, greedy and seeded by turns; every third shares a prefix."""
        shared = [self.random.randrange(100, 40000) for _ in range(prompt_tokens // 2)]
        for number in range(count):
            prompt = [self.random.randrange(100, 40000) for _ in range(prompt_tokens)]
            if number % 3 == 0:
                prompt[:len(shared)] = shared
            yield {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True,
                   "temperature": 0.8 * (number % 2), "seed": number}

    async def open(self, data):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def ask(self, body, events_max=None):
        reader, writer = await self.open(request_bytes(body))
        try:
            return await Answer().read(reader, events_max)
        finally:
            writer.close()

    async def all_of(self, calls):
        return await asyncio.wait_for(asyncio.gather(*calls), 4 * TIMEOUT_S)

    async def probe(self, count):
        """The longest time that /livez took."""
        worst_s = 0.0
        for _ in range(count):
            begin = time.monotonic()
            reader, writer = await self.open(head("Connection: close", line="GET /livez HTTP/1.1"))
            self.assertIn(b" 200 ", await reader.readline())
            writer.close()
            worst_s = max(worst_s, time.monotonic() - begin)
        return worst_s

    def test_many_streams_at_once_say_what_each_says_alone(self):
        bodies = list(self.bodies(STREAMS, 64, 64))
        answers = asyncio.run(self.all_of(map(self.ask, bodies)))
        for answer in answers:
            self.assertEqual((answer.status, answer.done, answer.finish_reasons),
                             (200, True, ["length"]))
            self.assertEqual(len(answer.ids), 1)
        self.assertEqual(len(set.union(*(answer.ids for answer in answers))), STREAMS)
        self.server.wait_until_idle()
        self.assertEqual(self.server.call("POST", "/reset_prefix_cache").status, 200)
        for number in self.random.sample(range(STREAMS), SAMPLES):
            alone = asyncio.run(self.ask(bodies[number]))
            self.assertEqual(answers[number].text(), alone.text(), bodies[number])

    async def leave_early(self, body):
        """Leaves in one of the states that a request can be in."""
        state = self.random.randrange(6)
        data = request_bytes(body)
        if state == 0:  # in the middle of the request
            data = data[:self.random.randrange(len(data))]
        if state == 1:  # a whole answer, which never comes
            data = request_bytes(body | {"stream": False})
        reader, writer = await self.open(data)
        if state >= 4:  # in the middle of the answer
            await Answer().read(reader, self.random.randrange(1, 6))
        elif state > 0:  # queued, in its prompt, or just begun
            await asyncio.sleep(self.random.uniform(0, 0.2))
        if self.random.random() < 0.5:
            writer.transport.abort()  # a reset instead of an orderly end
        else:
            writer.close()

    async def leave_in_turns(self, bodies):
        waiting = iter(bodies)

        async def client():
            for body in waiting:
                await self.leave_early(body)

        await self.all_of(client() for _ in range(CLIENTS))

    def test_random_cancels_leave_nothing_behind(self):
        body = next(self.bodies(1, 32, 16))
        expected = asyncio.run(self.ask(body)).text()
        bodies = [one | {"n": self.random.choice((1, 1, 1, 4))}
                  for length in (8, 64, 700) for one in self.bodies(CANCELS // 3 + 1, length, 500)]
        self.random.shuffle(bodies)
        asyncio.run(self.leave_in_turns(bodies[:CANCELS]))
        self.server.wait_until_idle()
        self.assertEqual(self.server.kv_stats()["audits_wrong"], 0)
        self.assertEqual(asyncio.run(self.ask(body)).text(), expected)

    async def drip(self):
        """Sends a head byte by byte, until the server has had enough."""
        reader, writer = await self.open(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait([ended], timeout=0.5)
        writer.close()
        if not isinstance(ended.exception(), (ConnectionError, type(None))):
            raise ended.exception()

    async def stand_in_the_way(self, body):
        idle = [await self.open(b"") for _ in range(IDLE)]
        slow = [asyncio.ensure_future(self.drip()) for _ in range(SLOW)]
        worst_s = await self.probe(PROBES)
        answer = await self.ask(body)
        self.assertFalse(any(task.done() and task.exception() for task in slow))
        await asyncio.wait_for(asyncio.gather(*slow), TIMEOUT_S)  # each is shown the door
        for _, writer in idle:
            writer.close()
        return worst_s, answer.text()

    def test_silent_and_slow_clients_are_in_nobodys_way(self):
        body = next(self.bodies(1, 32, 32))
        expected = asyncio.run(self.ask(body)).text()
        worst_s, text = asyncio.run(self.stand_in_the_way(body))
        self.assertEqual(text, expected)
        self.assertLess(worst_s, PROBE_S_MAX)


if __name__ == "__main__":
    unittest.main()
