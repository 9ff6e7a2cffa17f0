"""Who may do what, and what nobody gets to see."""
import hashlib
import tempfile
import unittest

from serve_bad_input_cases import BODIES, BODY, COMPLETIONS, LENGTH, head
from serve_harness import ServersTest, ServeTest

SECRET = "the tea was hidden in the third drowned box under Varren Point"
PROMPT = f"It is not to be told that {SECRET}. " * 3
GETS = ("/v1/models", "/version", "/metrics", "/kv/stats", "/kv/map", "/openapi.json")
# Whether a process lives is no secret; all else is.
OPEN = ("/livez", "/readyz", "/health")


def hashed(key):
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


class OneKeyTest(ServeTest):
    SERVER_FLAGS = ("--api-key", "sesame")

    def test_without_the_key_nothing_is_told(self):
        for authorization in (None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer sesam",
                              "Bearer sesames", "Bearer SESAME", "Basic sesame", "sesame"):
            fields = {} if authorization is None else {"Authorization": authorization}
            for path in GETS:
                with self.subTest(path, authorization=authorization):
                    error = self.refused(self.server.call("GET", path, None, fields), 401)
                    self.assertEqual(error["type"], "authentication_error")
        for path in (*BODIES, "/reset_prefix_cache", "/completions"):
            self.refused(self.server.post(path, BODY), 401)

    def test_without_the_key_not_even_the_routes_are_told(self):
        self.refused(self.server.get("/nothing/here"), 401)
        self.refused(self.server.call("DELETE", "/v1/models"), 401)

    def test_without_the_key_the_body_is_not_read(self):
        answer, closed = self.server.raw(head("Content-Length: 16000000"))
        self.refused(answer, 401)
        self.assertTrue(closed)

    def test_with_the_key_everything_is_there(self):
        for authorization in ("Bearer sesame", "bearer sesame", "BEARER sesame"):
            for path in GETS:
                answer = self.server.get(path, Authorization=authorization)
                self.assertEqual(answer.status, 200, path)
        answer = self.server.call("POST", COMPLETIONS, BODY, bearer("sesame"))
        self.good(answer)

    def test_probes_need_no_key(self):
        for path in OPEN:
            self.assertEqual(self.server.get(path).status, 200)


class TenantsTest(ServeTest):
    """Three tenants; Alice has two keys, and Olga operates the server."""

    @classmethod
    def setUpClass(cls):
        keys = cls.enterClassContext(tempfile.NamedTemporaryFile("w"))
        keys.write("# who may come in\n\n"
                   f"alice {hashed('a1')} weight=2\nalice {hashed('a2')}\n"
                   f"bob {hashed('b1')} requests=4\nolga {hashed('o1')} admin\n")
        keys.flush()
        cls.SERVER_FLAGS = ("--api-key-file", keys.name)
        super().setUpClass()

    def ask(self, key, prompt, **more):
        body = {"prompt": prompt, "max_tokens": 4, "temperature": 0} | more
        answer = self.good(self.server.call("POST", COMPLETIONS, body, bearer(key)))
        cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return answer["choices"][0]["text"], cached

    def test_what_one_tenant_has_warmed_stays_cold_for_others(self):
        text, cached = self.ask("a1", PROMPT)
        self.assertEqual(cached, 0)
        for key, warm in (("a1", True), ("b1", False), ("a2", True), ("b1", True), ("o1", False)):
            again, cached = self.ask(key, PROMPT)
            self.assertEqual((again, cached > 0), (text, warm), key)

    def test_nothing_in_a_body_opens_another_tenants_cache(self):
        text, _ = self.ask("a1", "A" + PROMPT, user="alice")
        for more in ({"user": "alice"}, {"cache_salt": "alice"}, {"cache_salt": "0"},
                     {"prompt_cache_key": "alice"}, {"metadata": {"tenant": "alice"}}):
            self.assertEqual(self.ask("b1", "A" + PROMPT, **more)[0], text)
        # The first of these was cold; only what Bob has warmed himself can be warm.
        self.assertEqual(self.ask("o1", "A" + PROMPT, user="alice")[1], 0)

    def test_a_salt_separates_what_one_tenant_does(self):
        text, _ = self.ask("a1", "S" + PROMPT)
        for salt, warm in ((None, True), ("x", False), ("x", True), ("y", False), (None, True)):
            again, cached = self.ask("a2", "S" + PROMPT, cache_salt=salt)
            self.assertEqual((again, cached > 0), (text, warm), salt)

    def test_a_tenant_has_no_more_under_way_than_it_may(self):
        body = {"prompt": "M" + PROMPT, "max_tokens": 2}
        self.good(self.server.call("POST", COMPLETIONS, body | {"n": 4}, bearer("b1")))
        long = {"prompt": "M" + PROMPT, "n": 3, "max_tokens": 4000, "ignore_eos": True}
        under_way = self.server.stream(COMPLETIONS, bearer("b1"), **long)
        self.assertEqual(under_way.status, 200)
        chunks = iter(under_way)
        next(chunks)
        answer = self.server.call("POST", COMPLETIONS, body | {"n": 2}, bearer("b1"))
        under_way.close()
        self.assertEqual(self.refused(answer, 429)["type"], "rate_limit_error")
        self.assertIn("retry-after", answer.fields)

    def test_what_a_tenant_can_never_have_is_no_matter_of_time(self):
        prompt = "N" + PROMPT
        body = {"prompt": prompt, "max_tokens": 2}
        for more in ({"n": 5}, {"n": 3, "prompt": [prompt, prompt]}):
            answer = self.server.call("POST", COMPLETIONS, body | more, bearer("b1"))
            self.refused(answer, 400)
            self.good(self.server.call("POST", COMPLETIONS, body | more, bearer("a1")))

    def test_only_operators_see_and_change_the_whole_server(self):
        for method, path in (("GET", "/metrics"), ("GET", "/kv/stats"), ("GET", "/kv/map"),
                             ("POST", "/reset_prefix_cache")):
            self.refused(self.server.call(method, path, None, bearer("b1")), 403)
            answer = self.server.call(method, path, None, bearer("o1"))
            self.assertEqual(answer.status, 200, path)


class BrowserTest(ServeTest):
    """Web pages must not reach a server on the reader's own machine."""

    def ask(self, *fields, host):
        data = head(LENGTH, *fields, host=f"Host: {host}") + BODY
        return self.server.raw(data)[0]

    def test_a_name_that_is_not_ours_is_refused(self):
        for host in ("evil.example", f"evil.example:{self.server.port}", "127.0.0.1.evil.example",
                     "localhost.evil.example", "192.0.2.1", "[::1", "[::2]"):
            with self.subTest(host):
                self.refused(self.ask(host=host), 403)
        for host in ("127.0.0.1", f"127.0.0.1:{self.server.port}", "localhost",
                     f"localhost:{self.server.port}", f"[::1]:{self.server.port}"):
            with self.subTest(host):
                self.good(self.ask(host=host))

    def test_a_page_from_elsewhere_is_refused(self):
        for origin in ("http://evil.example", "https://evil.example:443", "null",
                       "http://localhost.evil.example", "http://127.0.0.1.evil.example",
                       "file://", "http://user@evil.example"):
            with self.subTest(origin):
                answer = self.ask(f"Origin: {origin}", host="127.0.0.1")
                self.refused(answer, 403)
                self.assertNotIn("access-control-allow-origin", answer.fields)
        for origin in (f"http://127.0.0.1:{self.server.port}",
                       f"http://localhost:{self.server.port}"):
            with self.subTest(origin):
                self.good(self.ask(f"Origin: {origin}", host="127.0.0.1"))


class AdminListenerTest(ServersTest):
    def test_operators_have_a_door_of_their_own(self):
        server = self.serve("--admin-port", "0", "--api-key", "sesame", key="sesame")
        for method, path in (("GET", "/metrics"), ("GET", "/kv/stats"), ("GET", "/kv/map"),
                             ("POST", "/reset_prefix_cache")):
            self.refused(server.call(method, path), 403)
            answer = server.call(method, path, port=server.admin_port)
            self.assertEqual(answer.status, 200, path)
            answer = server.call(method, path, None, bearer("wrong"), server.admin_port)
            # Scrapers have no keys; reaching their listener is enough.
            self.assertEqual(answer.status, 200 if path == "/metrics" else 401)
        for path in OPEN:
            self.assertEqual(server.call("GET", path, port=server.admin_port).status, 200)


class SecrecyTest(ServersTest):
    def test_the_log_has_no_prompts_answers_or_keys(self):
        server = self.serve("--api-key", "sesame", key="sesame")
        text = server.completion(prompt=PROMPT, max_tokens=24, temperature=0)["choices"][0]["text"]
        chat = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4}
        self.good(server.post("/v1/chat/completions", chat))
        list(server.stream("/v1/chat/completions", **chat))
        self.refused(server.post("/v1/chat/completions", chat | {"temperature": SECRET}), 400)
        self.refused(server.post(COMPLETIONS, f'{{"prompt": "{PROMPT}"'.encode()), 400)
        self.good(server.post("/tokenize", {"content": PROMPT}))
        self.refused(server.call("GET", "/v1/models", None, bearer("wrong-" + "k" * 20)), 401)
        answer = server.call("POST", COMPLETIONS, BODY, {"X-Request-Id": "keeper-1"})
        self.assertEqual(answer.fields["x-request-id"], "keeper-1")
        server.close()
        log = server.log()
        for hidden in (SECRET, "drowned", text.strip()[:20], "sesame", "k" * 20):
            self.assertNotIn(hidden, log)
        self.assertIn("keeper-1", log)

    def test_ids_of_requests_are_the_clients_only_where_they_are_harmless(self):
        ids = set()
        server = self.serve()
        for given in ("x" * 129, "a b", "a\tb", "ä", "<b>", ""):
            answer = server.get("/livez", **{"X-Request-Id": given.encode()})
            ids.add(answer.fields["x-request-id"])
        self.assertEqual(len(ids), 6)
        for name in ids:
            self.assertRegex(name, r"^req-[0-9a-f]{24}$")


class StartTest(ServersTest):
    def test_other_machines_are_let_in_only_with_keys_or_by_order(self):
        for host in ("0.0.0.0", "::", "[::]"):
            self.refuses_to_start("--insecure", "--host", host)

    def test_key_files_that_are_wrong_are_told_by_line_and_never_by_key(self):
        good = f"alice {hashed('a1')}\n"
        for bad in ("bob sha256:1234", "bob " + hashed("b")[:-1], "bob sha256:" + "x" * 64, "bob",
                    f"bob {hashed('b')} weight=0", f"bob {hashed('b')} weight=x",
                    f"bob {hashed('b')} requests=-1", f"bob {hashed('b')} colour=red"):
            path = self.write("keys", good + bad + "\n")
            message = self.refuses_to_start("keys", "--api-key-file", path)
            self.assertIn("2", message)
            for secret in (hashed("b")[7:], "1234", hashed("a1")[7:]):
                self.assertNotIn(secret, message)
        self.refuses_to_start("keys", "--api-key-file", self.write("keys", "# nobody\n"))
        self.refuses_to_start("none: can not be read", "--api-key-file", "none")
        self.refuses_to_start("--api-key", "--api-key", "")


class OtherMachinesTest(ServersTest):
    def test_with_a_key_or_by_order_every_name_is_ours(self):
        for flags in (("--api-key", "sesame"), ("--insecure",)):
            server = self.serve("--host", "0.0.0.0", *flags)
            data = head(LENGTH, "Authorization: Bearer sesame", host="Host: kvasir.example") + BODY
            self.good(server.raw(data)[0])


if __name__ == "__main__":
    unittest.main()
