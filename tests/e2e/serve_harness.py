"""Runs `kvasir serve` and talks to it: whole answers, streams, raw bytes. Every wait is bounded."""
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
from typing import NamedTuple

from harness import BINARY, MODEL, SANITIZED, TIMEOUT_S, KvasirTest, no_core_files

# Where a test says nothing else: small enough that several servers fit beside each other.
DEFAULTS = (("--model", str(MODEL)), ("--port", "0"), ("--threads", "2"), ("--kv-memory", "1GiB"))
# For what takes milliseconds when it works.
SOON_S = 300 if SANITIZED else 60

LISTENING = r"^kvasir: (listening|admin listener) on {}://\S+:(\d+)$"


def eventually(condition, what, timeout_s=SOON_S):
    """Waits for what no event announces, and returns the first true value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)
    return value


class Answer(NamedTuple):
    status: int
    fields: dict  # names in lower case
    body: bytes

    def json(self):
        return json.loads(self.body)

    def error(self):
        """The error object; it must be as OpenAI defines it."""
        error = self.json()["error"]
        if set(error) != {"message", "type", "param", "code"}:
            raise AssertionError(f"not an error object: {error}")
        if not isinstance(error["message"], str) or not error["message"]:
            raise AssertionError(f"an error without a message: {error}")
        return error


def read_answer(response):
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


def encode(body):
    return body if isinstance(body, bytes) or body is None else json.dumps(body).encode()


class Stream:
    """A streamed answer, read as it comes."""

    def __init__(self, connection, response):
        self._connection = connection
        self._response = response
        self.status = response.status
        self.fields = {name.lower(): value for name, value in response.getheaders()}

    def _data(self):
        """Of every event."""
        while line := self._response.readline():
            if line.startswith(b"data: "):  # else the empty line between events, or a comment
                yield line[len("data: "):].strip()

    def __iter__(self):
        """The JSON of every event; ends behind [DONE], without which a stream is cut off."""
        for data in self._data():
            if data == b"[DONE]":
                self.close()
                return
            yield json.loads(data)
        raise AssertionError("the stream ended without [DONE]")

    def to_the_end(self):
        """The JSON of every event of a stream that may end in another way."""
        events = [json.loads(data) for data in self._data()]
        self.close()
        return events

    def close(self):
        self._response.close()
        self._connection.close()


def text_of(chunks):
    """Choice 0 of a stream of completions or of chat."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or ""
                   for choice in choices if choice["index"] == 0)


def metrics_of(text):
    """{"name{label="value"}": number} of Prometheus' text format."""
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            if name in samples:
                raise AssertionError(f"a series stands twice: {name}")
            samples[name] = float(value)
    return samples


def total(samples, name):
    """The sum over all labels."""
    return sum(value for series, value in samples.items() if series.split("{")[0] == name)


class Server:
    """A running server."""
    SCHEME = "http"

    def __init__(self, *flags, key=None):
        self.key = key
        self.lines = []  # of its stderr so far
        self._ready = threading.Event()
        self.port = self.admin_port = None
        line = [str(BINARY), "serve", *map(str, flags)]
        line += [part for default in DEFAULTS if default[0] not in flags for part in default]
        self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, preexec_fn=no_core_files)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(TIMEOUT_S)
        if self.port is None:
            self.kill()
            raise AssertionError("the server did not start:\n" + self.log())

    def _read(self):
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                if found := re.match(LISTENING.format(self.SCHEME), self.lines[-1]):
                    self._note_port(*found.groups())
        self._ready.set()

    def _note_port(self, what, port):
        if what != "listening":
            self.admin_port = int(port)
            return
        self.port = int(port)  # the last line of a start
        self.begin = "\n".join(self.lines)
        self._ready.set()

    def log(self):
        return "\n".join(self.lines)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    # ---- talking ----

    def _send(self, connection, method, path, body, fields):
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        sent |= fields or {}
        connection.request(method, path, encode(body), sent)
        return connection.getresponse()

    def _connection(self, port=None):
        return http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=TIMEOUT_S)

    def call(self, method, path, body=None, fields=None, port=None):
        connection = self._connection(port)
        try:
            return read_answer(self._send(connection, method, path, body, fields))
        finally:
            connection.close()

    def get(self, path, **fields):
        return self.call("GET", path, fields=fields)

    def post(self, path, body):
        return self.call("POST", path, body)

    def completion(self, **body):
        """The whole answer; it must be a good one."""
        answer = self.post("/v1/completions", body)
        if answer.status != 200:
            raise AssertionError(f"{answer.status}: {answer.body[:500]}")
        return answer.json()

    def stream(self, path, fields=None, **body):
        connection = self._connection()
        return Stream(connection, self._send(connection, "POST", path, body | {"stream": True},
                                             fields))

    def socket(self, timeout_s=TIMEOUT_S):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def raw(self, data):
        """What the server answers to these bytes, and whether it then closes the connection."""
        with self.socket(SOON_S) as connection:
            try:
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it had heard enough; its answer is there
            response = http.client.HTTPResponse(connection)
            response.begin()
            answer = read_answer(response)
            connection.settimeout(0.2 if answer.status == 200 else SOON_S)
            try:
                closed = not connection.recv(1)
            except ConnectionResetError:
                closed = True
            except TimeoutError:
                closed = False
            return answer, closed

    # ---- what it is doing ----

    def metrics(self):
        return metrics_of(self.get("/metrics").body.decode())

    def generated(self):
        """Tokens since the start."""
        return total(self.metrics(), "vllm:generation_tokens_total")

    def kv_stats(self):
        return self.get("/kv/stats").json()

    def is_idle(self):
        """No answer is under way, and nobody holds a block."""
        stats = self.kv_stats()
        return stats["answers"] == 0 and stats["sequences"] == 0 and all(
            group["blocks_free"] + group["blocks_cached"] == group["blocks_capacity"]
            for group in stats["groups"])

    def wait_until_idle(self, timeout_s=SOON_S):
        eventually(self.is_idle, "idle", timeout_s)

    # ---- the end ----

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s=SOON_S):
        """The exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def kill(self):
        self.process.kill()
        self.wait()

    def close(self):
        """Ends it as operators do; it must obey and exit with 0."""
        if self.process.returncode is not None:
            return  # a test has ended it, and looked how
        self.terminate()
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server ignored SIGTERM:\n" + self.log()) from None
        if code != 0:
            raise AssertionError(f"the server ended with {code}:\n" + self.log())


class ServersTest(KvasirTest):
    """Tests that start servers of their own."""

    def serve(self, *flags, **options):
        server = Server(*flags, **options)
        self.addCleanup(server.close)
        return server

    def refuses_to_start(self, named, *flags):
        """In one line, which names it; the line."""
        result = self.kvasir("serve", "--port", "0", *flags)
        message = result.stderr.decode()
        self.assertEqual(result.returncode, 2, message)
        self.assertRegex(message, r"\Akvasir: [^\n]+\n\Z")
        self.assertIn(named, message)
        return message

    def good(self, answer):
        """The JSON of a good answer."""
        self.assertEqual(answer.status, 200, answer.body[:500])
        return answer.json()

    def refused(self, answer, status):
        """The error object of a refusal."""
        self.assertEqual(answer.status, status, answer.body[:500])
        self.assertEqual(answer.fields["content-type"].split(";")[0], "application/json")
        return answer.error()


class ServeTest(ServersTest):
    """Tests that share one server, which must outlive every test."""
    SERVER_FLAGS = ()
    KEY = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.SERVER_FLAGS, key=cls.KEY)
        cls.addClassCleanup(cls.server.close)

    def tearDown(self):
        self.assertIsNone(self.server.process.poll(), self.server.log())
