"""A stand-in for Ollama, which cannot be had where the tests run: its program on PATH, and its server on the loopback.

Made after https://docs.ollama.com/api and the source (server/routes.go, cmd/cmd.go of github.com/ollama/ollama): the
program reads the Modelfile and uploads the GGUF as a blob before it asks for the model; a model that can think thinks
unless told not to (since 0.12.4); one that cannot refuses `think: true` with 400; versions before 0.9 ignore `think`.
What the model says is the test's: `engine` is asked with the messages and whether the prompt lets it think. It gives a
text, of which one token is one character, with one more for the end of the turn; or a text and its own done_reason.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Engine = Callable[[list[dict[str, str]], bool], str | tuple[str, str]]

# In two parts, since Python takes long to start: a shell script, and what it hands `create` to.
_PROGRAM = r"""#!/bin/sh
printf '%s\n' "$PWD" "$@" >> {log}
if [ "$*" = --version ]; then
    server=$(curl --silent --max-time 10 --noproxy '*' {url}/api/version | sed 's/.*"version": "//; s/".*//')
    if [ -n "$server" ]; then
        echo "ollama version is $server"
    else
        echo "Warning: could not connect to a running Ollama instance"
    fi
    if [ "$server" != {version} ]; then echo "Warning: client version is {version}"; fi
    exit 0
fi
[ "$#" = 4 ] && [ "$1" = create ] && [ "$3" = -f ] || exit 64
exec {python} -S -E {creating} {url} "$2" "$4"
"""

_CREATING = r'''
import hashlib, http.client, json, pathlib, re, sys, urllib.parse

url, name, modelfile = sys.argv[1:]
connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=10)


def ask(method, path, data=None):
    connection.request(method, path, body=data)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


text = pathlib.Path(modelfile).read_text(encoding="utf-8")
block = re.compile(r'^(TEMPLATE|SYSTEM) """(.*?)"""$', re.DOTALL | re.MULTILINE)
fields = {key.lower(): value for key, value in block.findall(text)}
parameters = {}
for key, value in re.findall(r"^PARAMETER (\S+) (.+)$", block.sub("", text), re.MULTILINE):
    parameters.setdefault(key, []).append(value.strip('"'))
gguf = pathlib.Path(re.search(r"^FROM (\S+)$", text, re.MULTILINE)[1])
content = gguf.read_bytes()
digest = "sha256:" + hashlib.sha256(content).hexdigest()
print("gathering model components")
if ask("HEAD", "/api/blobs/" + digest)[0] == 404:
    ask("POST", "/api/blobs/" + digest, content)
body = {"model": name, "files": {gguf.name: digest}, "parameters": parameters, **fields}
for line in ask("POST", "/api/create", json.dumps(body).encode())[1].splitlines():
    said = json.loads(line)
    if "error" in said:
        sys.exit("Error: " + said["error"])
    print(said["status"])
'''


class FakeOllama:
    """Serves while in a `with` statement. requests: path and body of what it was asked, in order.

    version: the server's. thinks: whether the models' templates can think, as Ollama sees it. create_error: what
    /api/create says instead of creating. not_ollama: some other server, which answers everything with a page.
    lenient: does as newer servers may and ignores `think: true` for a model that cannot, instead of refusing it.
    endless: no stop is seen, so that a reply goes on until num_predict ends it.
    """

    def __init__(self, engine: Engine | None = None, *, version: str = "0.34.4", thinks: bool = False):
        self.engine: Engine = engine or (lambda messages, thinking: "")
        self.version, self.thinks = version, thinks
        self.create_error = ""
        self.not_ollama = self.lenient = self.endless = False
        self.models: dict[str, dict[str, Any]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, Any]] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: else each answer waits 40 ms for an acknowledgement

            def do_GET(self) -> None:
                self._answer(None)

            def do_HEAD(self) -> None:
                self._send(200 if self.path.removeprefix("/api/blobs/") in fake.blobs else 404, b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes | None) -> None:
                if fake.not_ollama:
                    self._send(200, b"<html>hello</html>", "text/html")
                    return
                status, answer = fake._answer(self.path, body)
                lines = answer if isinstance(answer, list) else [answer]
                self._send(status, "\n".join(json.dumps(line) for line in lines if line is not None).encode())

            def _send(self, status: int, content: bytes, kind: str = "application/json; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *values: Any) -> None:
                """Silent."""

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> FakeOllama:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def asked(self, path: str) -> list[Any]:
        """The bodies of the requests to a path."""
        return [body for asked, body in self.requests if asked == path]

    # ---- what it answers -------------------------------------------------------------------------------------------------

    def _answer(self, path: str, content: bytes | None) -> tuple[int, Any]:
        if path.startswith("/api/blobs/"):
            digest = path.removeprefix("/api/blobs/")
            if f"sha256:{hashlib.sha256(content or b'').hexdigest()}" != digest:
                return 400, {"error": "digest mismatch"}
            self.blobs[digest] = content or b""
            return 201, None
        body = json.loads(content) if content else {}
        self.requests.append((path, body))
        if path == "/api/version":
            return 200, {"version": self.version}
        if path == "/api/tags":
            return 200, {"models": [{"name": name, "model": name, "size": 1} for name in self.models]}
        if path == "/api/create":
            return self._create(body)
        if path not in ("/api/show", "/api/chat"):
            return 404, {"error": "not found"}
        model = self.models.get(_full(body["model"]))
        if model is None:
            return 404, {"error": f"model '{body['model']}' not found"}
        if path == "/api/chat":
            return self._chat(body, model)
        return 200, {"modelfile": "", "capabilities": ["completion", *(["thinking"] if self.thinks else [])]}

    def _create(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self.create_error:
            return 200, [{"status": "parsing GGUF"}, {"error": self.create_error}]
        if any(digest not in self.blobs for digest in body["files"].values()):
            return 400, {"error": "blob not found"}
        self.models[_full(body["model"])] = body
        return 200, [{"status": "parsing GGUF"}, {"status": "writing manifest"}, {"status": "success"}]

    def _chat(self, body: dict[str, Any], model: dict[str, Any]) -> tuple[int, Any]:
        think = body.get("think") if self._at_least(0, 9, 0) else None
        if self.thinks and think is None and self._at_least(0, 12, 4):
            think = True
        if not self.thinks and think:
            if not self.lenient:
                return 400, {"error": f'"{body["model"]}" does not support thinking'}
            think = False
        messages = body["messages"]
        if messages[0]["role"] != "system" and model.get("system"):
            messages = [{"role": "system", "content": model["system"]}, *messages]
        said = self.engine(messages, self.thinks and think is not False)
        if isinstance(said, tuple):
            text, reason = said
        else:
            limit = body["options"]["num_predict"]
            whole = said + "\nuser " * limit if self.endless else said
            text, reason = whole[:limit], "length" if len(whole) + 1 > limit else "stop"
        message = {"role": "assistant", "content": text}
        found = re.match(r"\s*<think>(.*?)(?:</think>|\Z)(.*)", text, re.DOTALL) if think else None
        if found:
            message |= {"content": found[2].lstrip(), "thinking": found[1].strip()}
        done = {"done": True, "done_reason": reason}
        return 200, {"model": body["model"], "created_at": "2026-11-25T12:00:00Z", "message": message, **done}

    def _at_least(self, *version: int) -> bool:
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3]) >= version


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def write_program(folder: Path, url: str, *, version: str = "0.34.4") -> Path:
    """The program `ollama` in `folder`, which asks the server at `url`. What it is started with goes to ollama.log."""
    path, creating = folder / "ollama", folder / "create.py"
    creating.write_text(_CREATING, encoding="utf-8")
    values = {"log": str(folder / "ollama.log"), "url": url, "python": sys.executable, "creating": str(creating)}
    quoted = {key: shlex.quote(value) for key, value in values.items()}
    path.write_text(_PROGRAM.format(version=version, **quoted), encoding="utf-8")
    path.chmod(0o755)
    return path


def starts(program: Path) -> list[list[str]]:
    """How the program was started: the folder and the arguments, one list a start."""
    log = program.with_name("ollama.log")
    found: list[list[str]] = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else []:
        if line.startswith("/"):
            found.append([])
        found[-1].append(line)
    return found
