"""A small real HTTP server on the loopback interface that answers as a test wants, faults included."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """body: JSON, or text as it is. hang_up: the connection is closed without any answer."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    hang_up: bool = False


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: Any
    time: float


def chat(
    text: str | None, *, finish: str = "stop", tokens: int = 1, top: dict[str, float] | None = None, ids: bool = False
) -> Answer:
    """A chat completion; top: text to log-probability of what may come first, the likeliest first.

    ids: tell the tokens' ids as well, as llama-server does: 1, 2, 3 and so on.
    """
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if top is not None:
        listed: list[dict[str, Any]] = [
            {"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in top.items()
        ]
        for number, token in enumerate(listed if ids else (), start=1):
            token["id"] = number
        choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
    return Answer(
        {"object": "chat.completion", "model": "m", "choices": [choice], "usage": {"completion_tokens": tokens}}
    )


def error(status: int, message: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message}}, status, named)


def models(*names: str) -> Answer:
    return Answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


class ApiServer:
    """Serves while in a `with` statement. requests: what it was asked, in order of arrival.

    complete: gives the answer to POST /v1/chat/completions from its JSON. listed: the answer to GET /v1/models.
    """

    def __init__(self, complete: Callable[[dict[str, Any]], Answer], listed: Answer | None = None):
        self.requests: list[Request] = []
        self._complete, self._listed = complete, listed or models("m")
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(server._listed if self.path == "/v1/models" else error(404, "not found"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.requests.append(Request(self.path, dict(self.headers), body, time.monotonic()))
                self._answer(server._complete(body) if self.path == "/v1/chat/completions" else error(404, "not found"))

            def _answer(self, answer: Answer) -> None:
                time.sleep(answer.delay_seconds)
                if answer.hang_up:
                    self.close_connection = True
                    return
                text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *values: Any) -> None:
                """Silent."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> Any:
                connection = super().get_request()
                server._connections.append(connection[0])
                return connection

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Silent: clients that give up are what some tests are about."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        for connection in self._connections:  # those kept alive would still be served
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
