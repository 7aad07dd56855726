"""A model behind an OpenAI-compatible server as an evaluation target: Ollama, vLLM, llama-server, LM Studio.

The server renders the prompt with its own template and does not show it, so results have no hash of the prompt. What a
server returns as `reasoning_content` or `reasoning` is not part of a reply; a <think> block in the content is left.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx
from pydantic import BaseModel, Field

from slimtune.core.errors import SlimtuneError, fail
from slimtune.data.records import Message, as_dicts
from slimtune.evaluate.targets.http_json import JsonServer, NoAnswerError, checked, is_loopback
from slimtune.evaluate.targets.served import Told, in_threads, letters_of
from slimtune.evaluate.targets.target import Ability, Facts, Letters, Likelihood, Piece, Prompt, Reply, Sampling

_TOP_LOGPROBS = (20, 5)
"""The most that OpenAI, vLLM and Ollama tell of a token, and the most that stricter servers do."""
_REFUSED, _NO_ACCESS, _NOT_FOUND = (400, 422), (401, 403), 404
_VERSION = re.compile(r"v\d\w*")
_SHOWN_MODELS, _SHOWN_CHARACTERS = 10, 200


# What of a response is used; servers send more.
class _Token(Told):
    top_logprobs: tuple[Told, ...] = ()


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    @property
    def first_token(self) -> list[Told]:
        """The likeliest first tokens; empty without log-probabilities."""
        tokens = (self.logprobs and self.logprobs.content) or []
        return [told for first in tokens[:1] for told in first.top_logprobs or (first,)]


class _Usage(BaseModel):
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None
    model: str | None = None
    system_fingerprint: str | None = None


def open_api(
    url: str,
    model: str,
    *,
    api_key: str | None = None,
    batch_size: int = 4,
    timeout: float = 120.0,
    thinking: bool | None = None,
) -> ApiTarget:
    """Ask the server for one token, to see whether it knows the model and tells log-probabilities.

    url: with or without /v1. api_key: see `api_key_for`. batch_size: requests under way at a time. timeout: seconds for
    one answer, the loading of the model included. thinking: sent as `chat_template_kwargs.enable_thinking`, which vLLM
    and llama-server know; None sends nothing, since some servers refuse fields that they do not know, and Ollama
    ignores this one.
    Raises SlimtuneError for an invalid address, a server that is not reachable or not OpenAI-compatible, a model
    that it does not have, and a key that it does not accept.
    """
    server = JsonServer(base_url(url), api_key=api_key, timeout_seconds=timeout)
    extra = {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}
    request = {"model": model, **extra}
    try:
        known = _model_names(server)
        try:
            first, top_logprobs = _probe(server, request)
        except NoAnswerError as error:
            raise _cannot_open(server, model, known, error) from error
    except BaseException:
        server.close()
        raise
    values = {
        "url": server.url,
        "model": model,
        "answered_as": first.model,
        "system_fingerprint": first.system_fingerprint,
        "thinking": thinking,
        "logprobs": top_logprobs is not None,
        "top_logprobs": top_logprobs,
    }
    scoring = {"temperature": 0.0, "logprobs": True, "top_logprobs": top_logprobs, **_whole_token(first)}
    return ApiTarget(server, Facts(model, values), request, scoring if top_logprobs else None, batch_size)


def base_url(url: str) -> str:
    """The address before "/chat/completions": as given where its path names a version, else with /v1.

    Raises SlimtuneError for anything but a plain http or https URL, and for one with a password in it.
    """
    example = "write an address such as http://localhost:11434/v1"
    shown = re.sub(r"//[^/]*@", "//…@", url)
    try:
        parsed = httpx.URL(url)
        host = parsed.host  # reads the name, which may be no valid one in another alphabet
    except (httpx.InvalidURL, ValueError) as error:
        raise fail(f"not a valid URL: {error}", where=shown, fix=example) from error
    if parsed.userinfo:
        what = "the URL contains a user name or password, which would appear in records and logs"
        raise fail(what, where=shown, fix="set the environment variable SLIMTUNE_API_KEY instead")
    if parsed.scheme not in ("http", "https") or not host or parsed.query:
        raise fail("only plain http and https addresses are supported", where=shown, fix=example)
    path = parsed.path.rstrip("/").removesuffix("/chat/completions")
    if not any(_VERSION.fullmatch(part) for part in path.split("/")):
        path += "/v1"
    return str(parsed.copy_with(path=path, fragment=None))


def api_key_for(url: str, environment: Mapping[str, str] | None = None) -> str | None:
    """SLIMTUNE_API_KEY; else OPENAI_API_KEY, but never in clear text over a network."""
    environment = os.environ if environment is None else environment
    own, general = environment.get("SLIMTUNE_API_KEY"), environment.get("OPENAI_API_KEY")
    return own or (general if url.startswith("https://") or is_loopback(url) else None)


class ApiTarget:
    """A served model, as a Target. Make one with `open_api`."""

    def __init__(
        self, server: JsonServer, facts: Facts, request: dict[str, Any], scoring: dict[str, Any] | None, batch_size: int
    ):
        """request: fields of every request. scoring: those of one for log-probabilities, None where none are told."""
        self.abilities: frozenset[Ability] = frozenset({"generate"} if scoring is None else {"generate", "score"})
        self.batch_size = batch_size
        self._server, self._facts = server, facts
        self._request, self._scoring = request, scoring

    def facts(self) -> Facts:
        return self._facts

    def close(self) -> None:
        self._server.close()

    def expecting(self, prompts: Sequence[Prompt]) -> AbstractContextManager[None]:
        """Nothing to do: a server keeps what prompts share by itself."""
        return contextlib.nullcontext()

    def score(self, prompts: Sequence[Prompt]) -> list[Letters]:
        """From the likeliest tokens that the server tells, usually 20; labels without one among them are `bounded`.

        Raises SlimtuneError where the server returns no log-probabilities, or gives no answer.
        """
        if self._scoring is None:
            fix = "evaluate its text, or the run or the GGUF itself; newer versions of Ollama and vLLM return them"
            raise fail(f"{self._facts.name} at {self._server.url} does not return log-probabilities", fix=fix)
        options = {"max_tokens": 1, **self._scoring}
        return self._at_once(lambda prompt: self._letters(prompt, options), prompts)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Reply]]:
        """Reply number i of a prompt is asked for with seed `sampling.seed + i`; stop_at_answer is not possible here.

        A request that gets no answer in the end is a Reply with an error. Raises SlimtuneError where no request could
        get one any more: no server listens, the key is no longer accepted, or the model is gone.
        """
        requests = [(prompt, sampling.seed + index) for prompt in prompts for index in range(sampling.replies)]
        replies = iter(self._at_once(lambda request: self._reply(request[0], request[1], sampling), requests))
        return [[next(replies) for _ in range(sampling.replies)] for _ in prompts]

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """The whole reply at once."""
        ((reply,),) = self.generate([Prompt(tuple(messages))], sampling)
        if reply.error:
            raise self._no_answer(NoAnswerError(reply.error))
        yield Piece(reply.text, cut=reply.truncated)

    def room(self, messages: Sequence[Message]) -> None:
        """Not known: a server does not tell how it tokenises a prompt."""

    def likelihood(self, prompts: Sequence[Prompt], references: Sequence[str]) -> list[Likelihood]:
        """Raises SlimtuneError always: chat servers return no probabilities of given text."""
        raise fail(
            f"the perplexity of {self._facts.name} cannot be measured: servers return no probabilities of given text",
            fix="evaluate a run, an adapter, or a Hugging Face model instead",
        )

    # ---- how ---------------------------------------------------------------------------------------------------------

    def _letters(self, prompt: Prompt, options: dict[str, Any]) -> Letters:
        try:
            told = self._ask(prompt, options).choices[0].first_token
        except NoAnswerError as error:
            raise self._no_answer(error) from error
        if not told:
            raise self._no_answer(NoAnswerError("this time without log-probabilities"))
        return letters_of(told, prompt.labels)

    def _reply(self, prompt: Prompt, seed: int, sampling: Sampling) -> Reply:
        options = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
        try:
            completion = self._ask(prompt, options)
        except NoAnswerError as error:
            if error.gone or error.status in (*_NO_ACCESS, _NOT_FOUND):
                raise self._no_answer(error) from error
            return Reply("", error=str(error))
        choice = completion.choices[0]
        return Reply(
            choice.message.content or "",
            completion.usage.completion_tokens if completion.usage else 0,
            truncated=choice.finish_reason == "length",
        )

    def _ask(self, prompt: Prompt, options: dict[str, Any]) -> _Completion:
        return _complete(self._server, {**self._request, **options, "messages": as_dicts(prompt.messages)})

    def _no_answer(self, error: NoAnswerError) -> SlimtuneError:
        what = f"{self._facts.name} at {self._server.url} gave no answer: {error}"
        return fail(what, fix="when the server answers again, run the same command")

    def _at_once(self, ask: Any, given: Sequence[Any]) -> list[Any]:
        return in_threads(ask, given, self.batch_size, interrupt=self.close)


def _complete(server: JsonServer, body: dict[str, Any]) -> _Completion:
    return checked(_Completion, server.post("/chat/completions", body), "an OpenAI-compatible server")


def _probe(server: JsonServer, request: dict[str, Any]) -> tuple[_Completion, int | None]:
    """One token, with as many log-probabilities as the server is ready to tell; None for none."""
    body = {**request, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "temperature": 0.0}
    for top_logprobs in _TOP_LOGPROBS:
        try:
            completion = _complete(server, {**body, "logprobs": True, "top_logprobs": top_logprobs})
        except NoAnswerError as error:
            if error.status not in _REFUSED:
                raise
        else:
            return completion, top_logprobs if completion.choices[0].first_token else None
    return _complete(server, body), None


def _whole_token(probed: _Completion) -> dict[str, Any]:
    """For llama-server, which tells tokens' ids: a bias towards any token that is whole characters.

    It returns no log-probabilities for a token that ends within a character; those it returns are from before the bias.
    """
    told = probed.choices[0].first_token
    whole = next((token for token in told if token.id is not None and token.token.strip().isalnum()), None)
    return {} if whole is None else {"logit_bias": {str(whole.id): 100}}


def _model_names(server: JsonServer) -> list[str]:
    """The models that the server lists; empty where it lists none. Raises SlimtuneError where no server answers."""
    try:
        listed = server.get("/models")
    except NoAnswerError as error:
        if error.status is None:
            fix = "start it (Ollama: ollama serve) and check the address"
            raise fail(f"the server is not reachable: {error}", where=server.url, fix=fix) from error
        return []
    models = listed.get("data") if isinstance(listed, dict) else None
    entries = models if isinstance(models, list) else []
    return [str(entry["id"])[:_SHOWN_CHARACTERS] for entry in entries if isinstance(entry, dict) and entry.get("id")]


def _cannot_open(server: JsonServer, model: str, known: Sequence[str], error: NoAnswerError) -> SlimtuneError:
    what = f"the server does not answer for '{model}'"
    if error.status in _NO_ACCESS:
        what = "the server does not accept the key"
        fix = "set the environment variable SLIMTUNE_API_KEY to the right key"
    elif error.status == _NOT_FOUND and known and model not in known:
        what = f"the server has no model '{model}'"
        close = difflib.get_close_matches(model, known, n=1)
        meant = f"did you mean '{close[0]}'? " if close else ""
        names = ", ".join(known[:_SHOWN_MODELS]) + (", …" if len(known) > _SHOWN_MODELS else "")
        fix = f"{meant}It has: {names}. Ollama gets others with  ollama pull {model}"
    elif error.status in (200, _NOT_FOUND):
        what = f"this is not an OpenAI-compatible server, or it has no model '{model}'"
        fix = f"check the address and the name, e.g. http://localhost:11434/v1 for Ollama, and  ollama pull {model}"
    elif error.status is not None and 300 <= error.status < 400:
        fix = "use the address that it redirects to"
    else:
        fix = "see the server's own log"
    return fail(f"{what}: {error}", where=server.url, fix=fix)
