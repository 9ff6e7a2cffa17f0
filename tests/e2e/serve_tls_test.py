"""`kvasir serve` over TLS, as the documentation sets it up."""
import http.client
import re
import shlex
import socket
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import SOURCE, TIMEOUT_S
from serve_harness import SOON_S, Server, ServersTest, eventually, text_of

PROMPT = "Once upon a time there was a small"


def documented_command():
    """The one that makes a certificate for trying TLS out."""
    text = (SOURCE / "docs/serving.md").read_text()
    return re.search(r"^openssl (?:.*\\\n)*.*", text, re.MULTILINE).group()


class Certificate:
    """cert.pem and key.pem in a folder of their own."""

    def __init__(self, test):
        self._folder = tempfile.TemporaryDirectory()
        test(self._folder.cleanup)
        subprocess.run(shlex.split(documented_command().replace("\\\n", " ")), check=True,
                       cwd=self._folder.name, capture_output=True, timeout=SOON_S)
        self.certificate = Path(self._folder.name, "cert.pem")
        self.key = Path(self._folder.name, "key.pem")
        self.flags = ("--tls-cert", self.certificate, "--tls-key", self.key)
        self.context = ssl.create_default_context(cafile=self.certificate)
        # Of a server that just hangs up, TLS itself must not make a whole answer.
        self.context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


class TlsServer(Server):
    SCHEME = "https"

    def __init__(self, certificate, *flags, **options):
        self._certificate = certificate
        super().__init__(*certificate.flags, *flags, **options)

    def _connection(self, port=None):
        return http.client.HTTPSConnection("localhost", port or self.port, timeout=TIMEOUT_S,
                                           context=self._certificate.context)

    def tls_socket(self):
        return self._certificate.context.wrap_socket(self.socket(), server_hostname="localhost")


class TlsTest(ServersTest):
    @classmethod
    def setUpClass(cls):
        cls.certificate = Certificate(cls.addClassCleanup)
        cls.server = TlsServer(cls.certificate, "--admin-port", "0")
        cls.addClassCleanup(cls.server.close)

    def tearDown(self):
        self.assertIsNone(self.server.process.poll(), self.server.log())

    def test_answers_are_the_same_whole_and_streamed(self):
        self.assertEqual(self.server.get("/health").status, 200)
        body = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0}
        text = self.server.completion(**body)["choices"][0]["text"]
        self.assertEqual(text_of(self.server.stream("/v1/completions", **body)), text)

    def test_operators_have_tls_too(self):
        answer = self.server.call("GET", "/kv/stats", port=self.server.admin_port)
        self.assertEqual(answer.status, 200)

    def test_a_client_that_does_not_trust_the_certificate_does_no_harm(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(self.server.socket(),
                                                     server_hostname="localhost")
        self.assertEqual(self.server.get("/health").status, 200)

    def test_what_is_no_tls_gets_no_answer(self):
        for data in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"nonsense" * 1000):
            with self.server.socket(SOON_S) as connection:
                connection.sendall(data)
                try:
                    answer = connection.recv(1000)
                except ConnectionResetError:
                    answer = b""
                self.assertLessEqual(len(answer), 7)  # an alert at most
        self.assertEqual(self.server.get("/health").status, 200)

    def test_a_client_that_leaves_frees_its_blocks(self):
        body = {"prompt": PROMPT, "max_tokens": 4000, "ignore_eos": True}
        stream = self.server.stream("/v1/completions", **body)
        next(iter(stream))
        stream.close()
        eventually(self.is_idle, "idle")
        self.assertLess(self.generated(), 4000)

    def is_idle(self):
        stats = self.server.call("GET", "/kv/stats", port=self.server.admin_port).json()
        return stats["answers"] == 0 and stats["sequences"] == 0

    def generated(self):
        text = self.server.call("GET", "/metrics", port=self.server.admin_port).body.decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                   if line.startswith("vllm:generation_tokens_total"))

    def test_the_end_of_a_connection_is_told(self):
        with self.server.tls_socket() as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            answer = b""
            while data := connection.recv(1000):
                answer += data
            self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)
            # This raises where the end has not been told.
            connection.unwrap()


class DrainTest(ServersTest):
    def test_an_answer_under_way_ends_whole(self):
        server = TlsServer(Certificate(self.addCleanup))
        self.addCleanup(server.close)
        idle = server.tls_socket()
        self.addCleanup(idle.close)
        stream = server.stream("/v1/completions", prompt=PROMPT, max_tokens=40, ignore_eos=True)
        chunks = iter(stream)
        first = next(chunks)
        server.terminate()
        self.assertTrue(text_of([first, *chunks]))  # with [DONE], or it raises
        self.assertEqual(server.wait(), 0)


class BadUseTest(ServersTest):
    def test_files_that_can_not_be_used_are_told_at_once(self):
        good, other = Certificate(self.addCleanup), Certificate(self.addCleanup)
        locked = self.folder / "locked.pem"
        subprocess.run(["openssl", "pkey", "-in", good.key, "-aes128", "-passout", "pass:secret",
                        "-out", locked], check=True, capture_output=True, timeout=SOON_S)
        text = self.write("text.pem", "This is no certificate.\n")
        for named, certificate, key in (
                ("none.pem: can not be read: No such file", "none.pem", good.key),
                ("none.pem: can not be read: No such file", good.certificate, "none.pem"),
                (f"{self.folder}: can not be read", self.folder, good.key),
                ("text.pem: holds no certificates", text, good.key),
                ("text.pem: holds no private key", good.certificate, text),
                ("key.pem: the key is not that of the certificate", good.certificate, other.key),
                ("locked.pem: the key is encrypted", good.certificate, locked)):
            with self.subTest(named):
                self.refuses_to_start(named, "--tls-cert", certificate, "--tls-key", key)

    def test_both_files_are_needed(self):
        files = Certificate(self.addCleanup)
        self.refuses_to_start("--tls-key", "--tls-cert", files.certificate)
        self.refuses_to_start("--tls-cert", "--tls-key", files.key)
        self.refuses_to_start("--tls-cert", "--tls-cert", "", "--tls-key", "")


if __name__ == "__main__":
    unittest.main()
