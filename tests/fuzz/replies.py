"""A server on the loopback whose every reply is a file of the case: `http/v1/models.json` answers /v1/models.

`http/meta.json` says how: {"status", "reason", "headers"}. What is drawn is sent as it is, also where it is no HTTP.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from typing import Any

META = {"status": 200, "reason": "OK", "headers": {"Content-Type": "application/json"}}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    files: Mapping[str, bytes]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: the client may hang up."""


class _Handler(socketserver.StreamRequestHandler):
    timeout = 5

    def handle(self) -> None:
        request = self.rfile.readline().split()
        length = 0
        for line in iter(self.rfile.readline, b"\r\n"):
            if not line:
                return
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        self.rfile.read(length)
        path = request[1].decode().strip("/").partition("?")[0]
        files = self.server.files  # type: ignore[attr-defined]
        body = files.get(f"http/{path}.json", b'{"error": "not found"}')
        status = 200 if f"http/{path}.json" in files else 404
        self.wfile.write(_head(files.get("http/meta.json"), status, len(body)) + b"\r\n\r\n" + body)


def _head(meta: bytes | None, status: int, length: int) -> bytes:
    said: Any = META
    if meta is not None:
        try:
            said = json.loads(meta)
        except ValueError:
            return meta
    if not isinstance(said, dict):
        said = {"status": said}
    status = said.get("status", status) if status == 200 else status
    lines = [f"HTTP/1.1 {_raw(status)} {_raw(said.get('reason', ''))}"]
    headers = said.get("headers")
    lines += (
        [f"{name}: {_raw(value)}" for name, value in headers.items()] if isinstance(headers, dict) else [_raw(headers)]
    )
    if not isinstance(headers, dict) or not any(name.lower() == "content-length" for name in headers):
        lines.append(f"Content-Length: {length}")
    lines.append("Connection: close")
    return "\r\n".join(lines).encode("utf-8", "surrogatepass")


def _raw(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)[:10_000]


@contextlib.contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[str]:
    """The address ("127.0.0.1:43210") of the server; one that refuses every connection where no reply is given."""
    if not any(name.startswith("http/") for name in files):
        yield "127.0.0.1:9"
        return
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.files = files
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
