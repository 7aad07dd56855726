"""llama.cpp's server, as xllamacpp embeds it (the engine of Ollama ≥ 0.30), in a process of its own.

A failed assertion of llama.cpp aborts its process, its threads do not always end, and it prints to standard output. In a
process of its own a crash is an error message, and closing always works. The server listens on the loopback interface,
asks for a new key at each start, and ends with this process, even with a killed one.
"""

import contextlib
import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from slimtune.core import child
from slimtune.core.errors import SlimtuneError, fail
from slimtune.data.records import Message, as_dicts

_LOAD_SECONDS = 900
_ENDING_SECONDS = 10
_AGAIN = "run the command again"
_SMALL_BYTES = 64 * 2**20
"""llama.cpp's threads wait for each other by spinning, which costs more than a model of this size gains from a second one."""
_WHOLE_VOCABULARY, _LIKELIEST = 4096, 512


class LlamaServer:
    """A running server. Make one with `start`, and close it. address: "http://127.0.0.1:PORT". key: bearer token."""

    def __init__(self, gguf: Path, answer_seconds: float):
        self.address, self.key = "", secrets.token_urlsafe()
        self._what = f"llama.cpp cannot run {gguf.name}"
        self._messages = child.scratch()  # `close` closes it
        self._reading = threading.Lock()
        self.process = subprocess.Popen(
            child.module("slimtune.models.llama_server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=child.offline_environment(),
        )
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=httpx.Timeout(answer_seconds, connect=_ENDING_SECONDS),
            trust_env=False,  # a proxy has no business between two processes of one machine
        )

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer to a request; may be called from several threads.

        Raises SlimtuneError with llama.cpp's own words where it refuses, has crashed, or does not answer in time.
        """
        return self._ask("POST", path, body)

    def stream(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The events of an answer that comes piece by piece, for a body with "stream": true.

        Closing the generator stops llama.cpp. Raises SlimtuneError as `post` does, in the middle of the answer as well.
        """
        with self._failures_in_words(), self._http.stream("POST", self.address + path, json=body) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise self._refused(self._value(response.content))
            for line in _lines(response.iter_bytes()):
                field, _, value = line.partition(b":")
                if value.strip() == b"[DONE]":
                    return
                if field in (b"data", b"error"):
                    event = self._value(value)
                    if field == b"error" or "error" in event:
                        raise self._refused(event if "error" in event else {"error": event})
                    yield event
        raise fail(f"{self._what}: its answer broke off", fix=_AGAIN)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of a text. special: control tokens in it become the real ones, and a vocabulary's BOS token is added."""
        body = {"content": text, "add_special": special, "parse_special": special}
        tokens: list[int] = self.post("/tokenize", body)["tokens"]
        return tokens

    def render(self, messages: Sequence[Message], thinking: bool | None = None) -> str:
        """The messages in the GGUF's own template, generation prompt included. thinking: its `enable_thinking`, if set."""
        text: str = self.post("/apply-template", chat_body(messages, thinking))["prompt"]
        return text

    def first_tokens(self, ids: Sequence[int], **more: Any) -> list[dict[str, Any]]:
        """The likeliest tokens after a prompt, each {"id", "token", "logprob"}: 512, or all of at most 4,096."""
        body = {
            "prompt": list(ids),
            "n_predict": 1,
            "temperature": 0.0,
            # llama.cpp tells no probabilities of a token that ends within a character. A whole token is drawn instead; that
            # does not change the probabilities, which are those before the bias.
            "logit_bias": [[self._whole_token, 1e4]],
            "n_probs": told_tokens(self.model["n_vocab"]),
            "post_sampling_probs": False,
            **more,
        }
        told: list[dict[str, Any]] = self.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        return told

    @functools.cached_property
    def _whole_token(self) -> int:
        return self.tokenize("a", special=False)[-1]

    @functools.cached_property
    def model(self) -> dict[str, Any]:
        """What the server says of its model: n_vocab, n_params, ftype, n_ctx_train, and n_ctx, the context of each slot
        (rounded up from what was asked for, and cut down to n_ctx_train)."""
        meta: dict[str, Any] = self._ask("GET", "/v1/models")["data"][0]["meta"]
        return meta

    def kill(self) -> None:
        """End it at once; whoever waits for an answer gets a SlimtuneError."""
        self.process.kill()

    def close(self) -> None:
        self._http.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._wait()
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _begin(self, settings: dict[str, Any]) -> None:
        """Hand the settings over and wait for the address that the process answers with."""
        assert self.process.stdout is not None
        overdue = threading.Timer(_LOAD_SECONDS, self.process.kill)
        overdue.start()
        try:
            # A process that has ended already answers with an empty address.
            child.send_line(self.process, json.dumps({**settings, "key": self.key}).encode() + b"\n")
            self.address = self.process.stdout.readline().decode().strip()
        finally:
            overdue.cancel()
        if not self.address:
            raise self._ended()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with self._failures_in_words():
            response = self._http.request(method, self.address + path, json=body)
        answer = self._value(response.content)
        if response.status_code != httpx.codes.OK:
            raise self._refused(answer)
        return answer

    def _value(self, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError:
            raise fail(f"{self._what}: its answer is not JSON: {content[:200]!r}", fix=_AGAIN) from None

    @contextlib.contextmanager
    def _failures_in_words(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise fail(f"{self._what}: no answer after {self._http.timeout.read:.0f} s", fix=_AGAIN) from error
        except httpx.TransportError as error:
            raise self._ended() from error

    def _refused(self, answer: Any) -> SlimtuneError:
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        return fail(f"{self._what}: {error.get('message', error) if isinstance(error, dict) else error}", fix=_AGAIN)

    def _ended(self) -> SlimtuneError:
        """What the process printed last. It is about to end, or its connections would not break."""
        code = self._wait()
        with self._reading:
            return child.failed(self._what, code, child.last_lines(self._messages))

    def _wait(self) -> int:
        try:
            return self.process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def chat_body(messages: Sequence[Message], thinking: bool | None) -> dict[str, Any]:
    """The part of a request that names a conversation and what the template is asked about thinking."""
    body: dict[str, Any] = {"messages": as_dicts(messages)}
    return body if thinking is None else body | {"chat_template_kwargs": {"enable_thinking": thinking}}


def told_tokens(vocabulary: int) -> int:
    """Of how many first tokens the probability is told: all of a small vocabulary, of a larger one the likeliest 512."""
    return vocabulary if vocabulary <= _WHOLE_VOCABULARY else _LIKELIEST


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines as llama.cpp ends them. httpx would also break them at U+2028, which JSON may hold as it is."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def start(
    gguf: Path,
    *,
    context_length: int,
    slots: int = 1,
    threads: int | None = None,
    flash_attention: bool = True,
    answer_seconds: float = 3600.0,
) -> LlamaServer:
    """A server for the model in a GGUF file, loaded and ready.

    context_length: tokens of prompt and reply, for each of the `slots` requests that it answers at a time. threads: None
    lets llama.cpp choose, and takes one for a file of less than 64 MiB. flash_attention: used where it can be.
    Raises SlimtuneError where llama.cpp cannot load the file, with what it printed last.
    """
    settings = {
        "gguf": str(gguf),
        "n_ctx": context_length * slots,
        "n_parallel": slots,
        "threads": threads or (1 if gguf.is_file() and gguf.stat().st_size < _SMALL_BYTES else None),
        "flash_attention": flash_attention,
    }
    server = LlamaServer(gguf, answer_seconds)
    try:
        server._begin(settings)
    except BaseException:
        server.kill()
        server.close()
        raise
    return server


# ---- inside the process ---------------------------------------------------------------------------------------------


def _serve() -> None:
    # Ctrl-C in a terminal reaches this process too, and may be meant for one answer only; the other process decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # llama.cpp prints to standard output: it gets standard error, and the address the real one.
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["gguf"]
    params.n_ctx = settings["n_ctx"]
    params.n_parallel = settings["n_parallel"]
    if settings["threads"]:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    if not settings["flash_attention"]:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.use_jinja = True
    params.warmup = False
    params.verbosity = 1  # errors alone
    params.ui = False
    params.cache_ram_mib = 0  # slots keep their own prompt; copies of past ones would fill the memory
    params.port = 0  # any free one, on the loopback interface
    params.api_keys = [settings["key"]]
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:  # what is wrong with the file, llama.cpp has printed
        sys.exit(str(error))
    print(server.listening_address, file=result, flush=True)
    sys.stdin.read()  # until the other process closes it, or is no more
    os._exit(0)  # its threads do not always end


if __name__ == "__main__":
    _serve()
