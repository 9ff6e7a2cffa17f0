"""Requests that a server must refuse, as data."""
from typing import NamedTuple

VOCABULARY = 49152  # of the default model
CONTEXT = 8192

USER = {"role": "user", "content": "Hi"}
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LLAMA = "/completion"
INFILL = "/infill"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
RENDER = "/v1/chat/completions/render"

# A good request of each endpoint, which the cases below spoil. (This model can not fill in.)
GOOD = {
    CHAT: {"messages": [USER], "max_tokens": 4},
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 4},
    LLAMA: {"prompt": "Hi", "n_predict": 4},
    TOKENIZE: {"content": "Hi"},
    DETOKENIZE: {"tokens": [1, 2]},
    RENDER: {"messages": [USER]},
}
OPENAI = (CHAT, COMPLETIONS)
SAMPLING = (CHAT, COMPLETIONS, LLAMA)
BODIES = (*GOOD, INFILL)

# What is no JSON object, whatever the endpoint. Every one is a 400 that names no field.
MALFORMED = {
    "nothing": b"",
    "spaces": b"  \n ",
    "open brace": b"{",
    "unfinished": b'{"prompt": "Hi", "max_tokens":',
    "two objects": b"{}{}",
    "trailing garbage": b'{"prompt": "Hi"} x',
    "an array": b"[]",
    "null": b"null",
    "a number": b"1",
    "a string": b'"Hi"',
    "true": b"true",
    "trailing comma": b'{"prompt": "Hi",}',
    "single quotes": b"{'prompt': 'Hi'}",
    "a bare key": b'{prompt: "Hi"}',
    "a comment": b'{"prompt": "Hi"} // why not',
    "a repeated name": b'{"prompt": "Hi", "prompt": "Ho"}',
    "a repeated name far down": b'{"x": {"y": [{"z": 1, "z": 2}]}}',
    "NaN": b'{"temperature": NaN}',
    "minus Infinity": b'{"temperature": -Infinity}',
    "a number beyond doubles": b'{"temperature": 1e999}',
    "a leading zero": b'{"max_tokens": 01}',
    "a plus sign": b'{"max_tokens": +1}',
    "hexadecimal": b'{"max_tokens": 0x10}',
    "half a number": b'{"temperature": 1.}',
    "no leading digit": b'{"temperature": .5}',
    "a control character": b'{"prompt": "a\x01b"}',
    "a NUL": b'{"prompt": "a\x00b"}',
    "an unknown escape": b'{"prompt": "\\x41"}',
    "half an escape": b'{"prompt": "\\u12"}',
    "a lone high surrogate": b'{"prompt": "\\ud800"}',
    "a lone low surrogate": b'{"prompt": "a\\udc00b"}',
    "surrogates the wrong way round": b'{"prompt": "\\udc00\\ud800"}',
    "a surrogate in a name": b'{"\\ud800": 1}',
    "Latin-1": b'{"prompt": "na\xefve"}',
    "an overlong encoding": b'{"prompt": "\xc0\xaf"}',
    "an encoded surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "beyond Unicode": b'{"prompt": "\xf4\x90\x80\x80"}',
    "cut in a character": b'{"prompt": "\xe2\x82"}',
    "UTF-16": '{"prompt": "Hi"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"prompt": "Hi"}',
    "form fields": b"prompt=Hi&max_tokens=4",
    "deep arrays": b'{"prompt": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "deep and unfinished": b"[" * 1000000,
}


class Case(NamedTuple):
    endpoints: tuple
    field: str      # that is spoilt, and that the error must name
    value: object   # None with `missing`
    beside: dict = {}  # what the case needs besides
    status: int = 400
    code: str | None = None  # nothing: any
    missing: bool = False


def each(endpoints, field, *values, **more):
    return [Case(endpoints, field, value, **more) for value in values]


def message(**fields):
    return [USER, USER | fields]


NUMBERS = [
    *each(SAMPLING, "temperature", -0.1, 2.1, 1e308, "1", True, [], {}),
    *each(SAMPLING, "top_p", 0, -1, 1.01, "x", False),
    *each(SAMPLING, "top_k", -2, 1.5, "x", 2**64, -2**63),
    *each(SAMPLING, "min_p", -0.1, 1.1, "x"),
    *each(OPENAI, "repetition_penalty", 0, -1, "x"),
    *each((LLAMA,), "repeat_penalty", 0, -1, "x"),
    *each(SAMPLING, "presence_penalty", -2.1, 2.1, "x"),
    *each(SAMPLING, "frequency_penalty", -2.1, 2.1, []),
    *each(SAMPLING, "seed", 1.5, "x", 2**64, True),
    *each(OPENAI, "n", 0, -1, 17, 1.5, "2", 10**20, True),
    *each(OPENAI, "max_tokens", -1, 1.5, "x", 10**20, 2**32 + 1, CONTEXT + 1),
    *each((CHAT,), "max_completion_tokens", -1, "x"),
    *each((LLAMA,), "n_predict", -2, 1.5, "x", 10**20),
    *each(OPENAI, "min_tokens", -1, 5, "x", 2**32),
    *each(OPENAI, "priority", "x", 1.5, 2**40),
]
LISTS = [
    *each(SAMPLING, "stop", "", ["a", ""], 1, [1], ["x"] * 17, "x" * 1025, {}, [None]),
    *each(OPENAI, "stop_token_ids", "x", ["x"], [-1], [VOCABULARY], [1.5], [2**40]),
    *each(OPENAI, "logit_bias", "x", {"a": 1}, {"-1": 1}, {str(VOCABULARY): 1}, {"1": 101},
          {"1": -100.5}, {"1": "x"}, {"1.5": 1}, {"": 1},
          {str(token): 1 for token in range(1025)}),
    *each(SAMPLING, "stream", "yes", 1, []),
    *each(OPENAI, "stream_options", 1, [], {"include_usage": "x"}, beside={"stream": True}),
    *each(OPENAI, "ignore_eos", "x", 1),
    *each(OPENAI, "include_stop_str_in_output", "x", 0),
    *each(OPENAI, "cache_salt", "", 1, "x" * 1025, []),
    *each(SAMPLING, "model", 1, []),
    *each(OPENAI, "model", "gpt-9", status=404, code="model_not_found"),
]
CHATS = [
    Case((CHAT, RENDER), "messages", None, missing=True),
    *each((CHAT, RENDER), "messages", None, [], "x", {}, 1, [1], [None], [[]], [{}],
          [{"role": "user"}], [{"content": "Hi"}], [USER] * 4097, message(role="robot"),
          message(role=1), message(role=""), message(role=None), message(content=1),
          message(content=None), message(content={}), message(content=[1]),
          message(content=[{"type": "text"}]), message(content=[{"type": "text", "text": 1}]),
          message(content=[{"text": "Hi"}]), message(content=[{"type": "hologram"}])),
    *each((CHAT,), "messages", [USER | {"content": "word " * 2 * CONTEXT}]),
    *each((CHAT,), "messages", message(content=[{"type": "image_url",
                                                 "image_url": {"url": "data:,x"}}]),
          message(role="tool", tool_call_id="1"), code="unsupported_parameter"),
    *each((CHAT,), "logprobs", "x", 1, []),
    *each((CHAT,), "top_logprobs", -1, 21, "x", 1.5, beside={"logprobs": True}),
    *each((CHAT,), "top_logprobs", 3),  # without logprobs
    *each((CHAT,), "tools", [{"type": "function", "function": {"name": "f"}}],
          code="unsupported_parameter"),
    *each((CHAT,), "functions", [{"name": "f"}], code="unsupported_parameter"),
    *each((CHAT,), "tool_choice", "required", code="unsupported_parameter"),
    *each((CHAT,), "response_format", {"type": "json_object"},
          {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
          code="unsupported_parameter"),
    *each((CHAT,), "response_format", 1, {"type": "x"}),
    *each((CHAT,), "audio", {"voice": "x", "format": "wav"}, code="unsupported_parameter"),
    *each((CHAT,), "modalities", ["text", "audio"], code="unsupported_parameter"),
    *each((CHAT,), "prediction", {"type": "content", "content": "x"},
          code="unsupported_parameter"),
    *each((CHAT,), "web_search_options", {}, code="unsupported_parameter"),
]
COMPLETION_FIELDS = [
    Case((COMPLETIONS, LLAMA), "prompt", None, missing=True),
    *each((COMPLETIONS,), "prompt", None, 1, {}, True, [], [[]], "", [""], ["a", ""], ["a", 1],
          [1, "a"], ["a", [1, "b"]], [-1], [VOCABULARY], [1.5], [2**40], [[1], [VOCABULARY]],
          [[[1]]], [None], [1] * (CONTEXT + 1), "word " * 2 * CONTEXT),
    *each((LLAMA,), "prompt", {}, True, "", [VOCABULARY], [-1], [1] * (CONTEXT + 1)),
    *each((COMPLETIONS,), "echo", "x", 1),
    *each((COMPLETIONS,), "logprobs", -1, 21, "x", 1.5),
    *each((COMPLETIONS,), "best_of", 0, 17, "x"),
    *each((COMPLETIONS,), "best_of", 1, beside={"n": 2}),
    *each((COMPLETIONS,), "best_of", 2, beside={"stream": True}),
    *each((COMPLETIONS,), "suffix", "x", 1),  # this model can not fill in
    *each((LLAMA,), "n_probs", -1, "x"),
    *each((LLAMA,), "response_fields", 1, [1]),
    *each((LLAMA,), "cache_prompt", "x", 1),
]
TOKENS = [
    Case((TOKENIZE,), "content", None, missing=True),
    *each((TOKENIZE,), "content", 1, [1], {}, None),
    *each((TOKENIZE,), "add_special", "x", 1),
    *each((TOKENIZE,), "with_pieces", "x"),
    Case((DETOKENIZE,), "tokens", None, missing=True),
    *each((DETOKENIZE,), "tokens", "x", 1, {}, [-1], [VOCABULARY], ["x"], [1.5], [None], [2**64]),
]
FIELDS = [*NUMBERS, *LISTS, *CHATS, *COMPLETION_FIELDS, *TOKENS]


def head(*fields, line="POST /v1/completions HTTP/1.1", host="Host: 127.0.0.1"):
    fields = (host, "Content-Type: application/json", *fields)
    return "\r\n".join((line, *fields, "", "")).encode("latin-1")


BODY = b'{"prompt": "Hi", "max_tokens": 1}'
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
GET = "GET /livez HTTP/1.1"

# Bytes that are no proper request -> the status; each ends its connection.
FRAMING = {
    "two lengths that differ": (400, head(LENGTH, "Content-Length: 1") + BODY),
    "the same length twice": (400, head(LENGTH, LENGTH) + BODY),
    "two lengths in one field": (400, head("Content-Length: 33, 33") + BODY),
    "a length with a sign": (400, head(f"Content-Length: +{len(BODY)}") + BODY),
    "a negative length": (400, head("Content-Length: -1") + BODY),
    "a hexadecimal length": (400, head("Content-Length: 0x21") + BODY),
    "an empty length": (400, head("Content-Length:") + BODY),
    "a length beyond 64 bits": (400, head("Content-Length: 99999999999999999999")),
    "a length and chunks": (400, head(LENGTH, CHUNKED) + b"0\r\n\r\n"),
    "an unknown transfer coding": (400, head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "chunked twice": (400, head(CHUNKED, CHUNKED) + b"0\r\n\r\n"),
    "a chunk size that is none": (400, head(CHUNKED) + b"zz\r\n\r\n"),
    "a negative chunk": (400, head(CHUNKED) + b"-1\r\n\r\n"),
    "a chunk size beyond 64 bits": (413, head(CHUNKED) + b"1" + b"0" * 16 + b"\r\n"),
    "a chunk without its end": (400, head(CHUNKED) + b"1\r\nabcdef\r\n0\r\n\r\n"),
    "a continued field": (400, head("X: a\r\n b", line=GET)),
    "a space before the colon": (400, head("X : a", line=GET)),
    "a field without a colon": (400, head("nonsense", line=GET)),
    "a NUL in a field": (400, head("X: a\0b", line=GET)),
    "a bare carriage return": (400, head("X: a\rb", line=GET)),
    "no Host": (400, head(line=GET, host="X: a")),
    "two Hosts": (400, head("Host: 127.0.0.1", line=GET)),
    "HTTP of the future": (505, head(line="GET /livez HTTP/9.9")),
    "no version": (400, head(line="GET /livez")),
    "no target": (400, head(line="GET HTTP/1.1")),
    "a target with a space": (400, head(line="GET /li vez HTTP/1.1")),
    "a line of garbage": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "a coded body": (415, head(LENGTH, "Content-Encoding: gzip") + BODY),
    "a strange expectation": (417, head(LENGTH, "Expect: a miracle")),
    "a body that is too long": (413, head("Content-Length: 1000000000")),
    "a chunk that is too long": (413, head(CHUNKED) + b"4000000\r\n"),
    "a target that is too long": (414, head(line=f"GET /{'x' * 9000} HTTP/1.1")),
    "a field that is too long": (431, head("X: " + "x" * 40000, line=GET)),
    "too many fields": (431, head(*("X: a",) * 200, line=GET)),
    "CONNECT": (405, head(line="CONNECT 127.0.0.1:80 HTTP/1.1")),
    "TRACE": (405, head(line="TRACE /livez HTTP/1.1")),
}

# Method, path -> status.
ROUTES = (
    ("GET", "/", 404), ("GET", "/v1", 404), ("POST", "/v1/embeddings", 404),
    ("GET", "/livez/", 404), ("GET", "//livez", 404), ("GET", "/v1/../livez", 404),
    ("GET", "/%6civez", 404), ("GET", "/v1/models/..%2f..", 404), ("GET", "/favicon.ico", 404),
    ("GET", CHAT, 405), ("GET", COMPLETIONS, 405), ("PUT", COMPLETIONS, 405),
    ("DELETE", "/v1/models", 405), ("POST", "/v1/models", 405), ("POST", "/livez", 405),
    ("GET", "/reset_prefix_cache", 405), ("PATCH", TOKENIZE, 405), ("FROB", "/livez", 405),
)
