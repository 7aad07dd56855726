"""JSON over HTTP with a server of the user's: patient with faults that pass, plain about those that do not. No torch."""

import email.utils
import ipaddress
import json
import random
import re
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.core.redaction import keep_secret, redact, without_keys

ATTEMPTS = 5
"""How often a request is sent before a fault is believed to last."""
FIRST_WAIT_SECONDS = 1.0
"""Before the second attempt, give or take a quarter; it doubles with each."""
LONGEST_WAIT_SECONDS = 60.0
"""However long a server's Retry-After asks for."""

_CONNECT_SECONDS = 10.0
_GRACE_SECONDS = 1.0
MOST_BYTES = 32 * 2**20
"""Of an answer, unpacked: 2,048 tokens with 20 log-probabilities each have about 4 MB."""
_LOOKED_AT = 2**16
_PLAIN = {"Accept-Encoding": "identity"}
_ANY_HEADER = 32 + zlib.MAX_WBITS  # gzip's or zlib's
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_QUOTED = 300

_Answer = TypeVar("_Answer", bound=BaseModel)
_Got = TypeVar("_Got")


@dataclass(eq=False)
class NoAnswerError(Exception):
    """The server gave no usable answer. reason: why, in the server's words where it has some.

    status: of the response, None where there was none. gone: no server listens at the address. passing: it may answer
    later, in `retry_after` seconds if it says so.
    """

    reason: str
    status: int | None = None
    gone: bool = False
    passing: bool = False
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.reason


class JsonServer:
    """A server at a base URL such as "http://localhost:11434/v1"; may be asked from several threads.

    api_key: sent as bearer token to this server only (redirects are not followed), and cut out of every message.
    timeout_seconds: for one answer. Proxies of the environment are used, but not for this machine's own servers.
    Raises SlimtuneError where such a proxy cannot be used.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout_seconds: float):
        self.url = url
        keep_secret(api_key)
        self._key, self._timeout = api_key, timeout_seconds
        self._closed = threading.Event()
        try:
            self._http = httpx.Client(
                headers=_PLAIN | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
                timeout=httpx.Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds)),
                trust_env=not is_loopback(url),
            )
        except (ImportError, ValueError) as error:
            fix = "unset ALL_PROXY, HTTP_PROXY and HTTPS_PROXY, or name the server in NO_PROXY"
            raise fail(f"the proxy that the environment names cannot be used: {error}", fix=fix) from error

    def get(self, path: str) -> Any:
        """The JSON answer to one attempt. Raises NoAnswerError."""
        return self._attempt("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer. Raises NoAnswerError.

        Sent up to ATTEMPTS times where the server is busy (408, 425, 429), failing (500, 502, 503, 504) or the
        connection breaks; only once where the answer takes too long, since it would again.
        """
        wait = FIRST_WAIT_SECONDS
        for _ in range(ATTEMPTS - 1):
            try:
                return self._attempt("POST", path, body)
            except NoAnswerError as error:
                if not error.passing or self._closed.is_set():
                    raise
                # Those who were turned away together should not come back together.
                pause = wait * random.uniform(0.75, 1.25) if error.retry_after is None else error.retry_after
            self._closed.wait(min(pause, LONGEST_WAIT_SECONDS))
            wait *= 2
        return self._attempt("POST", path, body)

    def close(self) -> None:
        """Also ends the waiting between attempts."""
        self._closed.set()
        self._http.close()

    def _attempt(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            response, content = self._in_time(lambda: self._exchange(method, path, body))
        except httpx.TimeoutException as error:
            gone = isinstance(error, httpx.ConnectTimeout)
            raise NoAnswerError(f"no answer within {self._timeout:g} s", gone=gone, passing=gone) from error
        except httpx.RequestError as error:
            reason = self._clean(str(error)) or type(error).__name__
            gone = isinstance(error, httpx.ConnectError)
            raise NoAnswerError(reason, gone=gone, passing=isinstance(error, httpx.TransportError)) from error
        status = response.status_code
        answer = _value(content)
        failed = isinstance(answer, dict) and answer.get("error")  # proxies report errors of others with 200
        if status == httpx.codes.OK and answer is not None and not failed:
            return answer
        said = _message(answer) or content[:_LOOKED_AT].decode(errors="replace")
        if response.is_redirect:
            said = f"it redirects to {response.headers.get('location', 'another address')}"
        elif status == httpx.codes.OK and answer is None:
            said = f"not JSON: {said}"
        raise NoAnswerError(
            self._clean(f"{status} {response.reason_phrase}: {said}").rstrip(": "),
            status=status,
            passing=status in _PASSING,
            retry_after=_seconds(response.headers.get("retry-after")),
        )

    def _in_time(self, exchange: Callable[[], _Got]) -> _Got:
        """What an exchange comes to. Raises httpx.ReadTimeout where all of it takes too long, however often bytes come.

        httpx limits the wait for the next bytes alone. A thread that is waiting for them cannot be ended: it is left.
        """
        future: Future[_Got] = Future()

        def work() -> None:
            try:
                future.set_result(exchange())
            except (httpx.HTTPError, httpx.StreamError, NoAnswerError, OSError, ValueError, RuntimeError) as error:
                future.set_exception(error)

        threading.Thread(target=work, name="request", daemon=True).start()
        try:
            return future.result(self._timeout + _GRACE_SECONDS)
        except TimeoutError:
            raise httpx.ReadTimeout("its answer does not end") from None

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[httpx.Response, bytes]:
        """A response and its body, of no more than MOST_BYTES. Raises NoAnswerError for a larger one."""
        until = time.monotonic() + self._timeout
        with self._http.stream(method, self.url + path, json=body) as response:
            coding = response.headers.get("content-encoding", "identity").strip().lower()
            inflate = zlib.decompressobj(_ANY_HEADER) if coding in ("gzip", "x-gzip", "deflate") else None
            if inflate is None and coding not in ("", "identity"):
                raise NoAnswerError(f"its answer is packed as {coding[:40]!r}, unasked", response.status_code)
            content = bytearray()
            for chunk in response.iter_raw():
                try:
                    content += inflate.decompress(chunk, MOST_BYTES + 1 - len(content)) if inflate else chunk
                except zlib.error as error:
                    raise NoAnswerError(f"its answer is not {coding}: {error}", response.status_code) from error
                if len(content) > MOST_BYTES:
                    raise NoAnswerError(f"its answer has more than {MOST_BYTES:,} bytes", response.status_code)
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("its answer does not end")
            return response, bytes(content)

    def _clean(self, text: str) -> str:
        """In one line, not too long, without keys, however short this server's is."""
        text = text.replace(self._key, "…") if self._key else text
        return redact(" ".join(text.split()))[:_QUOTED]


def checked(kind: type[_Answer], answer: Any, server: str) -> _Answer:
    """A server's answer as what it should be. server: the kind of server that answers so. Raises NoAnswerError."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        raise NoAnswerError(f"not what {server} answers ({where}: {first['msg']})", status=httpx.codes.OK) from error


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, as far as its name tells."""
    host = httpx.URL(url).host
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _value(content: bytes) -> Any:
    """The JSON value of a body; None where it is none. Half characters become U+FFFD: no file could hold them."""
    try:
        text = content.decode(json.detect_encoding(content))
        inputs.require_shallow(text)
        # Some servers repeat what they were sent, with escapes of their own, which reading and writing undoes.
        plain = without_keys(json.dumps(json.loads(text), ensure_ascii=False))
        return json.loads(_HALF_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", plain))
    except inputs.FAULTS:
        return None


def _message(answer: Any) -> str:
    """What an error response says: {"error": {"message": …}}, {"error": …}, {"message": …} or {"detail": …}."""
    if not isinstance(answer, dict):
        return ""
    said = next((answer[key] for key in ("error", "message", "detail") if answer.get(key)), "")
    return str(said.get("message", said) if isinstance(said, dict) else said)


def _seconds(retry_after: str | None) -> float | None:
    """The header's seconds, or the time until its date; None where there is neither (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):  # no date, or one that no clock shows
        return None
