"""Bad requests: each is refused by itself, and nobody else notices."""
import threading
import unittest

from serve_bad_input_cases import (BODIES, BODY, COMPLETIONS, FIELDS, FRAMING, GOOD, INFILL,
                                   MALFORMED, ROUTES, head)
from serve_harness import TIMEOUT_S, ServeTest, text_of

VICTIM = {"prompt": "Once upon a time", "max_tokens": 48, "temperature": 0.8, "seed": 11,
          "ignore_eos": True}


class BadInputTest(ServeTest):
    """While a test sends bad requests, a stream is always open, and always says the same."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expected = cls.server.completion(**VICTIM)["choices"][0]["text"]

    def setUp(self):
        super().setUp()
        self.texts = []
        self.failure = None
        self.enough = threading.Event()
        self.victim = threading.Thread(target=self.stream_on)
        self.victim.start()

    def stream_on(self):
        try:
            while not self.texts or not self.enough.is_set():
                stream = self.server.stream(COMPLETIONS, **VICTIM)
                self.texts.append(text_of(stream))
                stream.close()
        except Exception as failure:  # it is raised where the test can see it
            self.failure = failure

    def tearDown(self):
        self.enough.set()
        self.victim.join(TIMEOUT_S)
        super().tearDown()
        self.assertFalse(self.victim.is_alive())
        self.assertIsNone(self.failure)
        self.assertEqual(set(self.texts), {self.expected})
        self.assertEqual(self.server.get("/livez").status, 200)

    def test_what_is_no_json_object(self):
        for endpoint in BODIES:
            for name, body in MALFORMED.items():
                with self.subTest(name, endpoint=endpoint):
                    error = self.refused(self.server.post(endpoint, body), 400)
                    self.assertEqual(error["type"], "invalid_request_error")

    def test_fields_that_are_wrong(self):
        self.assertGreaterEqual(len(FIELDS) + len(MALFORMED) + len(FRAMING), 150)
        for case in FIELDS:
            for endpoint in case.endpoints:
                with self.subTest(case.field, value=repr(case.value)[:80], endpoint=endpoint):
                    body = GOOD[endpoint] | case.beside | {case.field: case.value}
                    if case.missing:
                        del body[case.field]
                    error = self.refused(self.server.post(endpoint, body), case.status)
                    self.assertRegex(error["param"] or "", rf"^{case.field}\b")
                    if case.code:
                        self.assertEqual(error["code"], case.code)

    def test_the_cases_spoil_requests_that_are_good(self):
        for endpoint, body in GOOD.items():
            self.good(self.server.post(endpoint, body))

    def test_a_model_that_can_not_fill_in_says_so(self):
        answer = self.server.post(INFILL, {"input_prefix": "a", "input_suffix": "b"})
        self.assertIn(answer.status, (400, 501))
        self.assertIn("fill", answer.error()["message"])

    def test_bytes_that_are_no_proper_request(self):
        for name, (status, data) in FRAMING.items():
            with self.subTest(name):
                answer, closed = self.server.raw(data)
                self.refused(answer, status)
                self.assertTrue(closed)

    def test_a_long_body_is_refused_while_it_comes(self):
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        answer, closed = self.server.raw(head("Transfer-Encoding: chunked") + chunk * 320)
        self.refused(answer, 413)
        self.assertTrue(closed)

    def test_what_is_not_there(self):
        for method, path, status in ROUTES:
            with self.subTest(method, path=path):
                answer = self.server.call(method, path)
                self.refused(answer, status)
                if status == 405:
                    self.assertTrue(answer.fields["allow"])

    def test_a_body_is_json_whatever_its_type_says(self):
        for content_type in ("application/json; charset=utf-8", "text/plain",
                             "application/x-www-form-urlencoded"):  # as `curl -d` says
            fields = {"Content-Type": content_type}
            self.good(self.server.call("POST", COMPLETIONS, BODY, fields))
            self.refused(self.server.call("POST", COMPLETIONS, b"prompt=Hi", fields), 400)

    def test_a_refusal_says_nothing_back(self):
        for body in (b'{"prompt": "<script>"', {"temperature": "<script>", "prompt": "x"},
                     {"model": "<script>", "prompt": "x"}):
            answer = self.server.post(COMPLETIONS, body)
            self.assertIn(answer.status, (400, 404))
            self.assertNotIn(b"<script>", answer.body)


if __name__ == "__main__":
    unittest.main()
