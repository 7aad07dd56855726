"""Ollama's program and server: where they are, what is known of their versions, and the few requests made of them.

The API: https://docs.ollama.com/api. Where the server is, is read from OLLAMA_HOST as `ollama` itself reads it
(envconfig/config.go of github.com/ollama/ollama), so that the program and these requests mean the same server.
"""

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from packaging.version import Version
from pydantic import BaseModel

from slimtune.core.errors import SlimtuneError, fail
from slimtune.evaluate.targets.http_json import JsonServer, NoAnswerError, checked

PROGRAM_VARIABLE, ADDRESS_VARIABLE = "SLIMTUNE_OLLAMA", "OLLAMA_HOST"
_DEFAULT_PORT = 11434
_PORTS = {"http": 80, "https": 443}
_HIGHEST_PORT = 65535
_HOST_AND_PORT = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?")
_ANSWER_SECONDS = 900.0
"""For one reply, the loading of the model included."""
_VERSION_SECONDS = 30.0
_REFUSAL = "does not support thinking"
_BAD_REQUEST = 400
_VERSION = re.compile(r"v?\d+\.\d+\.\d+(-rc\d*)?")
_DEVELOPMENT = Version("0.0.0")


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that versions before `fixed_in` have or lack; `source` says so."""

    fixed_in: str
    what: str
    source: str


GAPS = (
    Gap(
        "0.1.34",
        "CVE-2024-37032: whoever reaches the server can write files through a model's digest, and run code",
        "https://nvd.nist.gov/vuln/detail/CVE-2024-37032",
    ),
    Gap(
        "0.1.47",
        "CVE-2024-45436: a ZIP given to it as a model can write outside of its folder",
        "https://nvd.nist.gov/vuln/detail/CVE-2024-45436",
    ),
    Gap(
        "0.17.1",
        "CVE-2026-7482: a GGUF that lies about its tensors' sizes reads the server's memory",
        "https://osv.dev/vulnerability/CVE-2026-7482",
    ),
    Gap(
        "0.9.0",
        "it ignores `think`, so the three settings are the same",
        "https://github.com/ollama/ollama/releases/tag/v0.9.0",
    ),
    Gap(
        "0.30.0",
        "it uses the Modelfile's TEMPLATE alone and not the chat template in the GGUF",
        "https://github.com/ollama/ollama/tree/fb30760",
    ),
)


def _number(text: str) -> Version | None:
    """The release, or release candidate, at a version's beginning; None for a development build (0.0.0) or no version."""
    found = _VERSION.match(text.strip())
    version = Version(found[0]) if found else _DEVELOPMENT
    return None if version == _DEVELOPMENT else version


def older(text: str, than: str) -> bool | None:
    """Whether version `text` comes before `than`; None where one of them cannot be read."""
    mine, other = _number(text), _number(than)
    return None if mine is None or other is None else mine < other


def warnings(version: str) -> list[str]:
    """What is wrong with this version of Ollama, a sentence each; also that a version cannot be read."""
    if _number(version) is None:
        return [f"Ollama calls itself version '{version}', so its faults are not known"]
    return [
        f"Ollama {version} is older than {gap.fixed_in}: {gap.what} ({gap.source})"
        for gap in GAPS
        if older(version, gap.fixed_in)
    ]


# What of an answer is used; the server sends more.
class _Version(BaseModel):
    version: str


class _Tag(BaseModel):
    name: str


class _Tags(BaseModel):
    models: list[_Tag] | None = None


class _Show(BaseModel):
    capabilities: list[str] | None = None


class _Message(BaseModel):
    content: str = ""
    thinking: str = ""


class OllamaReply(BaseModel):
    """What came back for one conversation."""

    message: _Message
    done: bool
    done_reason: str = ""


_Answer = TypeVar("_Answer", bound=BaseModel)


def address(value: str | None) -> str:
    """The server's URL from the value of OLLAMA_HOST: a host, host:port or URL; http://127.0.0.1:11434 without one.

    As in Ollama, a URL without a port means the scheme's own (80, 443). An address to listen on everywhere (0.0.0.0,
    ::, :8080) means this machine. Raises SlimtuneError for an address that is not valid, or that holds a password.
    """
    text = (value or "").strip().strip("\"'").strip()
    scheme, is_url, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if is_url else ("http", text)
    authority, _, path = rest.partition("/")
    example = "write a host, host:port or URL, e.g. 127.0.0.1:11434"
    if "@" in authority:
        what = "the address must not hold a user name or password: it is written into records"
        raise fail(what, where=ADDRESS_VARIABLE, fix=example)
    found = _HOST_AND_PORT.fullmatch(authority)
    spaced = any(character.isspace() for character in rest)
    if scheme not in _PORTS or spaced or not (found or _ip(authority)):
        raise fail(f"'{text}' is not a valid address", where=ADDRESS_VARIABLE, fix=example)
    host, port = (found["bracketed"] or found["host"] or "", found["port"]) if found else (authority, None)
    if port is None:
        port = str(_PORTS[scheme] if is_url else _DEFAULT_PORT)
    if not (port.isascii() and port.isdecimal() and len(port) < 10 and int(port) <= _HIGHEST_PORT):
        raise fail(f"'{port}' is not a valid port", where=ADDRESS_VARIABLE, fix=example)
    ip = _ip(host)
    if ip is not None and ip.is_unspecified:
        host = "127.0.0.1" if ip.version == 4 else "::1"
    host = host or "127.0.0.1"
    path = path.strip("/")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{int(port)}" + (f"/{path}" if path else "")


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def find_program() -> str:
    """The program `ollama`: $SLIMTUNE_OLLAMA, else from PATH. Raises SlimtuneError where there is none."""
    named = os.environ.get(PROGRAM_VARIABLE)
    found = shutil.which(named or "ollama")
    if found:
        return str(Path(found).absolute())
    if named:
        raise fail(f"'{named}' is not a program", where=PROGRAM_VARIABLE, fix="name the ollama to use, or unset it")
    fix = f"install Ollama (https://ollama.com/download), or name it in {PROGRAM_VARIABLE}"
    raise fail("the program `ollama` is not on PATH", fix=fix)


def program_version(program: str) -> str:
    """The client's version by `ollama --version`. Raises SlimtuneError where it does not run or says no version."""
    output: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace"}
    try:
        done = subprocess.run([program, "--version"], **output, timeout=_VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise fail(f"`ollama --version` cannot be run: {error}", where=program, fix="reinstall Ollama") from error
    said = done.stdout + done.stderr
    found = re.search(r"client version is (\S+)", said) or re.search(r"version is (\S+)", said)
    if done.returncode or found is None:
        shown = " ".join(said.split())[:200] or "(it printed nothing)"
        what = f"`ollama --version` ended with {done.returncode}: {shown}"
        raise fail(what, where=program, fix=f"is this Ollama? Reinstall it, or name it in {PROGRAM_VARIABLE}")
    return found[1]


class Ollama:
    """A server that answers. Make one with `connect`, and close it."""

    def __init__(self, server: JsonServer):
        self._server = server
        self.url = server.url
        self.version = self._ask(_Version, "/api/version").version

    def close(self) -> None:
        self._server.close()

    def has(self, name: str) -> bool:
        """Whether there is a model of this name (without a tag: its `latest`). Raises SlimtuneError."""
        wanted = (name if ":" in name else f"{name}:latest").lower()
        return any(model.name.lower() == wanted for model in self._ask(_Tags, "/api/tags").models or [])

    def capabilities(self, name: str) -> list[str] | None:
        """What it says the model can do ("completion", …); None in versions that do not tell. Raises SlimtuneError."""
        return self._ask(_Show, "/api/show", {"model": name}).capabilities

    def chat(
        self, name: str, messages: Sequence[Mapping[str, str]], *, think: bool | None, options: Mapping[str, Any]
    ) -> OllamaReply | None:
        """One reply; None where it says that it cannot think. think: None sends none. Raises SlimtuneError."""
        body: dict[str, Any] = {"model": name, "messages": list(messages), "stream": False, "options": dict(options)}
        if think is not None:
            body["think"] = think
        try:
            answer = checked(OllamaReply, self._server.post("/api/chat", body), "Ollama")
            if not answer.done:
                raise NoAnswerError("the reply is not done, though no stream was asked for")
        except NoAnswerError as error:
            if error.status == _BAD_REQUEST and _REFUSAL in str(error):
                return None
            raise self._no_answer("POST /api/chat", error) from error
        return answer

    def _ask(self, kind: type[_Answer], path: str, body: dict[str, Any] | None = None) -> _Answer:
        try:
            return checked(kind, self._server.get(path) if body is None else self._server.post(path, body), "Ollama")
        except NoAnswerError as error:
            raise self._no_answer(f"{'GET' if body is None else 'POST'} {path}", error) from error

    def _no_answer(self, request: str, error: NoAnswerError) -> SlimtuneError:
        if error.gone:
            fix = f"start it with  ollama serve  (or Ollama's app), or say in {ADDRESS_VARIABLE} where it is"
            return fail(f"no Ollama server answers: {error}", where=self.url, fix=fix)
        fix = f"see Ollama's log; is {ADDRESS_VARIABLE} the address of an Ollama server?"
        return fail(f"{request} gets no answer: {error}", where=self.url, fix=fix)


def connect() -> Ollama:
    """The server that OLLAMA_HOST names. Raises SlimtuneError where none answers there."""
    server = JsonServer(address(os.environ.get(ADDRESS_VARIABLE)), api_key=None, timeout_seconds=_ANSWER_SECONDS)
    try:
        return Ollama(server)
    except BaseException:
        server.close()
        raise


def find() -> tuple[str, Ollama]:
    """The program and the server. Raises SlimtuneError with what is missing of both."""
    try:
        program = find_program()
    except SlimtuneError as no_program:
        try:
            connect().close()
        except SlimtuneError as no_server:
            raise SlimtuneError([*no_program.problems, *no_server.problems]) from None
        raise
    return program, connect()
