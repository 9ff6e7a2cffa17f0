"""What operators rely on: probes, figures, draining, limits, and that nothing is left behind."""
import itertools
import json
import re
import signal
import socket
import unittest

from harness import MODEL, KvasirTest
from serve_bad_input_cases import COMPLETIONS, LENGTH, BODY, head
from serve_harness import SOON_S, ServersTest, ServeTest, eventually, text_of, total

LONG = {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "temperature": 0}
SHORT = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
# Milliseconds of prefill, so that there is time to leave during it.
MANY_TOKENS = {"prompt": [1000 + number % 7919 for number in range(7000)], "max_tokens": 1000,
               "ignore_eos": True}

LABEL = re.compile(r'\w+="[^"]*"')
VLLM_NAMES = (
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info",
    "prefix_cache_queries_total", "prefix_cache_hits_total", "prompt_tokens_total",
    "generation_tokens_total", "num_preemptions_total", "request_success_total",
    "time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket",
    "e2e_request_latency_seconds_bucket", "request_queue_time_seconds_bucket",
    "request_prompt_tokens_bucket", "request_generation_tokens_bucket")


class ProbesTest(ServeTest):
    def test_probes_answer(self):
        for path in ("/livez", "/readyz", "/health"):
            self.assertEqual(self.server.get(path).status, 200)
            self.assertEqual(self.server.call("HEAD", path).body, b"")
        version = self.good(self.server.get("/version"))["version"]
        self.assertEqual(f"kvasir {version}\n", self.output("--version"))

    def test_the_start_tells_the_memory_plan_and_the_connections(self):
        self.assertRegex(self.server.begin, r"kvasir: memory: .* MiB KV cache")
        self.assertRegex(self.server.begin, r"kvasir: at most \d+ connections")

    def test_the_api_describes_itself(self):
        document = self.good(self.server.get("/openapi.json"))
        self.assertRegex(document["openapi"], r"^3\.1\.")
        for path in ("/v1/chat/completions", COMPLETIONS, "/v1/models", "/metrics", "/kv/stats"):
            self.assertIn(path, document["paths"])

    def test_metrics_follow_what_was_asked(self):
        self.server.post("/reset_prefix_cache", b"")
        before = self.server.metrics()
        for _ in range(2):
            answer = self.server.completion(**SHORT)
        usage = answer["usage"]
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        after = self.server.metrics()
        for name, grown in (("prompt_tokens_total", 2 * usage["prompt_tokens"]),
                            ("generation_tokens_total", 2 * usage["completion_tokens"]),
                            ("prefix_cache_queries_total", 2 * usage["prompt_tokens"]),
                            ("prefix_cache_hits_total", cached),
                            ("request_success_total", 2),
                            ("e2e_request_latency_seconds_count", 2),
                            ("time_to_first_token_seconds_count", 2)):
            name = "vllm:" + name
            self.assertEqual(total(after, name) - total(before, name), grown, name)

    def test_metrics_have_the_names_that_routers_read(self):
        self.server.completion(**SHORT)
        answer = self.server.get("/metrics")
        self.assertTrue(answer.fields["content-type"].startswith("text/plain"))
        samples = self.server.metrics()
        names = {series.split("{")[0] for series in samples}
        for name in VLLM_NAMES:
            self.assertIn("vllm:" + name, names)
        self.assertTrue(any(name.startswith("kvasir_") for name in names))
        usage = total(samples, "vllm:kv_cache_usage_perc")
        self.assertTrue(0 <= usage <= 1, usage)

    def test_histograms_add_up(self):
        self.server.completion(**SHORT)
        samples = self.server.metrics()
        buckets = {}  # by the series of their count
        for series, value in samples.items():
            if "_bucket{" in series:
                labels = [label for label in LABEL.findall(series) if not label.startswith("le=")]
                name = series.split("_bucket{")[0] + "_count{" + ",".join(labels) + "}"
                buckets.setdefault(name.removesuffix("{}"), []).append(value)
        self.assertTrue(buckets)
        for count, values in buckets.items():
            self.assertEqual(values, sorted(values), count)
            self.assertEqual(values[-1], samples[count])

    def test_every_block_is_in_one_state(self):
        self.server.completion(**SHORT)
        for group in self.server.kv_stats()["groups"]:
            self.assertEqual(sum(group["blocks_" + state]
                                 for state in ("free", "filling", "sealed", "cached")),
                             group["blocks_capacity"])

    def test_the_map_shows_the_blocks_that_the_figures_count(self):
        self.server.completion(**SHORT)
        self.server.wait_until_idle()
        kv_map = self.good(self.server.get("/kv/map"))
        for shown, counted in zip(kv_map["groups"], self.server.kv_stats()["groups"], strict=True):
            for letter, state in kv_map["legend"].items():
                self.assertEqual(shown["blocks"].count(letter), counted["blocks_" + state])


class ResetTest(ServeTest):
    def test_an_idle_cache_is_emptied(self):
        self.server.completion(**SHORT)
        self.server.wait_until_idle()
        self.assertEqual(self.server.call("POST", "/reset_prefix_cache").status, 200)
        usage = self.server.completion(**SHORT)["usage"]
        self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], 0)

    def test_a_cache_in_use_is_not(self):
        stream = self.server.stream(COMPLETIONS, **LONG)
        self.assertTrue(next(iter(stream)))
        self.refused(self.server.call("POST", "/reset_prefix_cache"), 409)
        stream.close()
        self.server.wait_until_idle()
        self.assertEqual(self.server.call("POST", "/reset_prefix_cache").status, 200)


class DisconnectTest(ServeTest):
    """Whoever leaves gives everything back, long before the answer would have been complete."""

    def send(self, **body):
        data = json.dumps(body).encode()
        connection = self.server.socket()
        connection.sendall(head(f"Content-Length: {len(data)}") + data)
        return connection

    def leaves(self, connection):
        before = self.server.generated()
        connection.close()
        self.server.wait_until_idle()
        self.assertLess(self.server.generated() - before, 900)

    def test_while_a_stream_is_written(self):
        stream = self.server.stream(COMPLETIONS, **LONG)
        list(itertools.islice(stream, 5))
        self.leaves(stream)

    def test_while_the_answer_is_awaited_whole(self):
        before = self.server.generated()
        connection = self.send(**LONG)
        eventually(lambda: self.server.generated() > before, "the first token")
        self.leaves(connection)

    def test_while_the_prompt_is_computed(self):
        for more in ({}, {"stream": True}):
            connection = self.send(**MANY_TOKENS, **more)
            eventually(lambda: not self.server.is_idle(), "it is computed")
            self.leaves(connection)

    def test_before_anything_happens(self):
        for more in ({}, {"stream": True}):
            self.leaves(self.send(**MANY_TOKENS, **more))

    def test_in_the_middle_of_the_request(self):
        for data in (head(LENGTH), head(LENGTH) + BODY[:9], head(LENGTH)[:20]):
            connection = self.server.socket()
            connection.sendall(data)
            self.leaves(connection)

    def test_with_several_answers_on_the_way(self):
        stream = self.server.stream(COMPLETIONS, **LONG | {"n": 8, "temperature": 1, "seed": 1})
        list(itertools.islice(stream, 5))
        self.leaves(stream)


class SlowReaderTest(ServeTest):
    # Log-probabilities make it long: about a megabyte for a hundred tokens of every choice.
    VERBOSE = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 400,
               "n": 8, "logprobs": True, "top_logprobs": 20, "temperature": 1, "seed": 5,
               "ignore_eos": True}
    CHAT = "/v1/chat/completions"

    def open_slowly(self):
        """A request whose client has a small window, and does not read."""
        data = json.dumps(self.VERBOSE | {"stream": True}).encode()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(SOON_S)
        connection.connect(("127.0.0.1", self.server.port))
        connection.sendall(head(f"Content-Length: {len(data)}",
                                line=f"POST {self.CHAT} HTTP/1.0") + data)
        return connection

    def test_who_does_not_read_pauses_only_himself(self):
        expected = self.server.post(self.CHAT, self.VERBOSE).json()["choices"]
        self.server.wait_until_idle()
        before = self.server.generated()
        with self.open_slowly() as connection:
            eventually(lambda: self.server.generated() > before, "it has begun")
            last = [before]

            def stands_still():
                # A whole other answer passes while this one gains nothing but that.
                usage = self.server.completion(**SHORT)["usage"]
                gained = self.server.generated() - last[0]
                last[0] += gained
                return gained == usage["completion_tokens"]

            eventually(stands_still, "the unread stream is paused")
            self.assertLess(last[0] - before, 8 * 400)
            with connection.makefile("rb") as file:
                data = file.read()
        lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: {")]
        chunks = [json.loads(line) for line in lines]
        for choice in expected:
            pieces = [part["delta"].get("content") or "" for chunk in chunks
                      for part in chunk["choices"] if part["index"] == choice["index"]]
            self.assertEqual("".join(pieces), choice["message"]["content"])
        self.assertIn(b"data: [DONE]", data)


class LimitsTest(ServersTest):
    def test_an_answer_that_misses_its_deadline_says_so(self):
        server = self.serve("--request-timeout", "1")
        error = self.refused(server.post(COMPLETIONS, LONG), 504)
        self.assertEqual(error["code"], "timeout")
        events = server.stream(COMPLETIONS, **LONG).to_the_end()
        self.assertEqual(events[-1]["error"]["code"], "timeout")
        self.assertTrue(all("choices" in event for event in events[:-1]))
        server.wait_until_idle()

    def test_each_request_is_a_line_of_the_log(self):
        server = self.serve("--log-format", "json")
        usage = server.completion(**SHORT)["usage"]
        server.close()
        lines = [json.loads(line) for line in server.lines if line.startswith("{")]
        line, = [line for line in lines if line["event"] == "request"]
        self.assertEqual((line["path"], line["finish"]), (COMPLETIONS, "length"))
        self.assertEqual(line["prompt_tokens"], usage["prompt_tokens"])
        self.assertEqual(line["tokens_generated"], usage["completion_tokens"])
        self.assertRegex(line["request_id"], "^req-")

    def test_what_does_not_fit_the_queue_is_sent_away_with_a_time_to_come_back(self):
        server = self.serve("--max-queue", "2", "--max-sequences", "1")
        streams = [server.stream(COMPLETIONS, **LONG) for _ in range(3)]
        self.assertEqual([stream.status for stream in streams], [200] * 3)
        for _ in range(5):
            answer = server.post(COMPLETIONS, SHORT)
            error = self.refused(answer, 429)
            self.assertEqual(error["type"], "rate_limit_error")
            self.assertGreaterEqual(int(answer.fields["retry-after"]), 1)
            self.assertEqual(server.get("/livez").status, 200)
        for stream in streams:
            stream.close()
        server.wait_until_idle()
        self.assertEqual(server.completion(**SHORT)["usage"]["completion_tokens"], 8)


class EndTest(ServersTest):
    ANSWERS = LONG | {"max_tokens": 200}

    def begin(self, server, count, **body):
        """Streams that have each said something: [(its other chunks, the first one)]."""
        opened = [server.stream(COMPLETIONS, **body) for _ in range(count)]
        for stream in opened:
            self.addCleanup(stream.close)
        iterators = map(iter, opened)
        return [(chunks, next(chunks)) for chunks in iterators]

    def test_open_streams_end_whole_and_new_requests_are_refused(self):
        server = self.serve()
        expected = server.completion(**self.ANSWERS)["choices"][0]["text"]
        begun = self.begin(server, 3, **self.ANSWERS)
        server.terminate()
        eventually(lambda: server.get("/readyz").status == 503, "it says that it is not ready")
        self.assertEqual(server.get("/livez").status, 200)
        refusal = server.post(COMPLETIONS, SHORT)
        self.refused(refusal, 503)
        self.assertIn("retry-after", refusal.fields)
        for chunks, first in begun:
            self.assertEqual(text_of([first, *chunks]), expected)
        self.assertEqual(server.wait(), 0)

    def test_the_time_to_drain_is_bounded(self):
        server = self.serve("--drain-timeout", "1")
        (chunks, _), = self.begin(server, 1, **LONG)
        server.terminate()
        with self.assertRaises(AssertionError):  # without [DONE]
            list(chunks)
        self.assertEqual(server.wait(), 0)

    def test_a_second_signal_ends_it_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.serve()
            (chunks, _), = self.begin(server, 1, **LONG)
            server.process.send_signal(number)
            eventually(lambda: server.get("/readyz").status == 503, "it drains")
            server.process.send_signal(number)
            with self.assertRaises((AssertionError, OSError)):
                list(chunks)
            self.assertNotEqual(server.wait(), 0)

    def test_an_idle_server_ends_at_once_whoever_is_connected(self):
        server = self.serve()
        with server.socket() as connection:
            connection.sendall(head(line="GET /livez HTTP/1.1"))
            self.assertTrue(connection.recv(1 << 16).endswith(b"ok\n"))
            server.terminate()
            self.assertEqual(server.wait(), 0)
            self.assertEqual(connection.recv(1), b"")


class StartTest(KvasirTest):
    def refuses(self, code, named, *flags):
        result = self.kvasir("serve", *flags)
        message = result.stderr.decode()
        self.assertEqual(result.returncode, code, (flags, message))
        # The memory plan may be told before; the reason is one line, and the last.
        self.assertRegex(message, r"\A(kvasir: memory: .*\n)?kvasir: [^\n]+\n\Z", flags)
        self.assertIn(named, message.splitlines()[-1], flags)

    def test_a_port_in_use_is_a_failure_of_one_line(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            self.refuses(1, port, "--port", port, "-m", MODEL)

    def test_what_makes_no_sense_is_bad_usage(self):
        for named, *flags in (
                ("--nonsense", "--nonsense"),
                ("--port", "--port", "65536"), ("--port", "--port", "-1"),
                ("--port", "--port", "http"), ("--host", "--host", "not an address"),
                ("--max-queue", "--max-queue", "-1"),
                ("--max-queue-tokens", "--max-queue-tokens", "0"),
                ("--log-format", "--log-format", "xml", "-m", MODEL),
                ("--log-level", "--log-level", "loud", "-m", MODEL),
                ("--itl-target-ms", "--itl-target-ms", "-1"),
                ("--itl-target-ms", "--itl-target-ms", "nan"),
                ("--drain-timeout", "--drain-timeout", "-1"),
                ("--threads", "--threads", "-2"), ("--kv-memory", "--kv-memory", "lots"),
                ("KV budget", "--kv-memory", "1KiB", "-m", MODEL),
                ("are available", "--kv-memory", "100000GiB", "-m", MODEL),
                ("none: No such file", "-m", "none")):
            self.refuses(2, named, *flags)


if __name__ == "__main__":
    unittest.main()
