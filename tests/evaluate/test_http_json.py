"""Servers that answer with anything at all: each is a NoAnswerError, in time and in little memory."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from contextlib import contextmanager, suppress

import pytest
from support.api_server import Answer, ApiServer, chat

from slimtune.core.errors import SlimtuneError
from slimtune.data.records import Message
from slimtune.evaluate.targets import http_json
from slimtune.evaluate.targets.api_target import open_api
from slimtune.evaluate.targets.http_json import JsonServer, NoAnswerError
from slimtune.evaluate.targets.target import Prompt, Sampling


@contextmanager
def raw_server(answer, *, timeout=5.0):
    """A JsonServer whose server writes what `answer(connection)` does, then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with suppress(OSError), connection:
                    connection.recv(65536)
                    answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    server = JsonServer(f"http://127.0.0.1:{listener.getsockname()[1]}", api_key=None, timeout_seconds=timeout)
    try:
        yield server
    finally:
        server.close()
        listener.close()


def http(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def drip(first: bytes):
    def answer(connection):
        connection.sendall(first)
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    return answer


@pytest.mark.parametrize("first", [http(b"", length=10**9), b"HTTP/1.1 200 OK\r\nX: "], ids=["body", "headers"])
def test_an_answer_that_drips_for_ever_is_given_up(first, monkeypatch):
    monkeypatch.setattr(http_json, "_GRACE_SECONDS", 0.2)
    with raw_server(drip(first), timeout=0.3) as server:
        started = time.monotonic()
        with pytest.raises(NoAnswerError, match=r"no answer within 0\.3 s"):
            server.get("/x")
        assert time.monotonic() - started < 3


BOMB = zlib.compress(bytes(10**7))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http(b"x" * 2_000_000), "more than 1,000,000 bytes"),
        (http(BOMB, "Content-Encoding: deflate"), "more than 1,000,000 bytes"),
        (http(gzip.compress(bytes(10**7)), "Content-Encoding: gzip"), "more than 1,000,000 bytes"),
        (http(b"{}", "Content-Encoding: gzip"), "its answer is not gzip"),
        (http(b"{}", "Content-Encoding: br"), "packed as 'br', unasked"),
        (http(b"{}", "Content-Encoding: gzip, gzip"), "packed as 'gzip, gzip'"),
        (http(b"", status="204 No Content"), "204 No Content"),
        (http(b"", "Location: file:///etc/passwd", status="302 Found"), "redirects to file:///etc/passwd"),
        (http(b"[" * 99_999), "200 OK: not JSON"),
        (http(b'{"a": ' + b"9" * 9_999 + b"}"), "200 OK: not JSON"),
        (http(b"\xff\xfe\x00"), "200 OK: not JSON"),
        (http(b""), "200 OK: not JSON"),
        (http(b"", status="999 \xff\xfe"), "999"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "illegal|rotocol|disconnected"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, "disconnected|Disconnected"),
        (http(b"{", length=100), "closed|incomplete"),
        (b"", "disconnected|Disconnected|reset"),
        (b"HTTP/1.1 200 OK\r\n" + b"A" * 200_000, "."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "."),
    ],
)
def test_whatever_is_sent_is_an_answer_or_none(answer, told, monkeypatch):
    monkeypatch.setattr(http_json, "MOST_BYTES", 1_000_000)
    served = raw_server(lambda connection: connection.sendall(answer))
    with served as server, pytest.raises(NoAnswerError, match=told) as caught:
        server.get("/x")
    assert len(str(caught.value)) < 500


def test_what_was_packed_unasked_is_unpacked():
    packed = gzip.compress(json.dumps({"a": 1}).encode())
    with raw_server(lambda connection: connection.sendall(http(packed, "Content-Encoding: gzip"))) as server:
        assert server.get("/x") == {"a": 1}


def test_half_a_character_becomes_a_whole_one():
    with raw_server(lambda connection: connection.sendall(http(b'{"a": "\\ud83d", "b": "\\ud83d\\ude00"}'))) as server:
        assert server.get("/x") == {"a": "\N{REPLACEMENT CHARACTER}", "b": "\U0001f600"}


PLAIN = {"message": {"content": "a"}, "finish_reason": "stop"}


BODIES = [
    {"choices": None}, {"choices": []}, {"choices": 5}, {"choices": [None]}, {"choices": [[]]}, [], 5, "text", None,
    {"choices": [{"message": None}]}, {"choices": [{"message": {"content": 5}}]},
    {"choices": [{"message": {"content": ["a"]}}]}, {"choices": [PLAIN | {"finish_reason": 5}]},
    {"choices": [PLAIN | {"logprobs": 5}]}, {"choices": [PLAIN | {"logprobs": {"content": "x"}}]},
    {"choices": [PLAIN | {"logprobs": {"content": [{"token": "a", "logprob": float("nan")}]}}]},
    {"choices": [PLAIN | {"logprobs": {"content": [{"token": "a", "logprob": float("inf")}]}}]},
    {"choices": [PLAIN | {"logprobs": {"content": [{"token": None, "logprob": -1}]}}]},
    {"choices": [PLAIN | {"logprobs": {"content": [{"logprob": -1}]}}]},
    {"choices": [PLAIN], "usage": "many"}, {"choices": [PLAIN], "usage": {"completion_tokens": "many"}},
    {"choices": [PLAIN], "usage": {"completion_tokens": 1.5}}, {"choices": [PLAIN], "model": 5},
]  # fmt: skip


def test_a_reply_of_another_shape_is_an_error_of_that_reply():
    answers = iter([chat("b"), *(Answer(json.dumps(body)) for body in BODIES)])
    with ApiServer(lambda request: next(answers)) as server:
        target = open_api(server.url, "m", batch_size=1)
        replies = target.generate([Prompt((Message("user", "q"),))] * len(BODIES), Sampling(4))
        target.close()
    assert all(reply.error for (reply,) in replies), replies


@pytest.mark.parametrize("body", [BODIES[0], BODIES[7], BODIES[14]])
def test_a_server_that_answers_otherwise_is_not_opened(body):
    with ApiServer(lambda request: Answer(json.dumps(body))) as server, pytest.raises(SlimtuneError) as caught:
        open_api(server.url, "m")
    assert server.url in str(caught.value)


@pytest.mark.parametrize("listed", [5, {"data": 5}, {"data": [5, None, {"id": None}]}])
def test_a_list_of_models_of_another_shape_is_no_list(listed):
    with ApiServer(lambda request: chat("a"), Answer(json.dumps(listed))) as server:
        open_api(server.url, "m").close()
        assert len(server.requests) == 1
