"""A GGUF as an evaluation target: what llama.cpp, and so Ollama, answers with the file that ships.

llama.cpp runs in a process of its own (slimtune/models/llama_server.py says why). Prompts are rendered by the GGUF's embedded
chat template and tokenised by its embedded vocabulary, so that a template or a tokenizer that went wrong on the way
into the file shows in the result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from slimtune.core import versions
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import sha256_file
from slimtune.data import template_sandbox
from slimtune.data.records import Message
from slimtune.evaluate.targets.prefixes import group_by_prefix
from slimtune.evaluate.targets.served import Told, ids_sha256, in_threads, letters_of, single_tokens
from slimtune.evaluate.targets.target import Ability, Facts, Letters, Likelihood, Piece, Prompt, Reply, Sampling
from slimtune.models import llama_server
from slimtune.models.gguf_header import read_whole

# Nothing of what a GGUF or llama.cpp would add on its own, such as top_k 40 and min_p 0.05.
_PLAIN_SAMPLING = {"samplers": ["temperature", "top_p"], "mirostat": 0, "cache_prompt": True}


def open_gguf(
    path: Path,
    *,
    context_length: int,
    batch_size: int = 4,
    threads: int | None = None,
    thinking: bool | None = None,
    flash_attention: bool = False,
) -> GgufTarget:
    """Load a GGUF into llama.cpp.

    context_length: tokens of prompt and reply together. batch_size: how many prompts are answered at a time; the
    key-value cache has batch_size × context_length positions. threads: None lets llama.cpp choose. thinking: the
    template's `enable_thinking`; None leaves it to the template, as Ollama does, and templates that Slimtune exports
    do not ask for it. flash_attention: as Ollama does; on a CPU it adds up in 16 bits, and errs twice as much as the 16-bit
    cache. For a split GGUF, `path` is the first file.
    Raises SlimtuneError where the file is not a GGUF, has no chat template, or cannot be loaded.
    """
    header = read_whole(path)
    if header.text("general.type") == "adapter":
        raise fail("the GGUF holds an adapter alone", where=str(path), fix="name the one that holds the whole model")
    if not header.text("tokenizer.chat_template"):
        fix = "export an instruction-tuned model, not a bare base"
        raise fail("the GGUF has no chat template", where=str(path), fix=fix)
    template_sandbox.require_bounded(header.text("tokenizer.chat_template") or "", str(path))
    if importlib.util.find_spec("xllamacpp") is None:
        raise fail("llama.cpp is not installed", fix="install it:  pip install -r requirements.txt (xllamacpp)")
    server = llama_server.start(
        path, context_length=context_length, slots=batch_size, threads=threads, flash_attention=flash_attention
    )
    return GgufTarget(path, server, header.text("general.architecture") or "unknown", batch_size, thinking)


class GgufTarget:
    """llama.cpp with a GGUF, as a Target. Make one with `open_gguf`. model: what llama.cpp says of it (LlamaServer.model).

    llama.cpp computes in 16 bits: the log-probabilities of a prompt differ in the third digit with what is computed
    beside it, and from those of Transformers.
    """

    abilities: frozenset[Ability] = frozenset({"score", "generate"})

    def __init__(
        self, path: Path, server: llama_server.LlamaServer, architecture: str, batch_size: int, thinking: bool | None
    ):
        self.batch_size = batch_size
        self._path, self._server = path, server
        self._architecture, self._thinking = architecture, thinking
        self.model = server.model
        self._spelled: dict[str, frozenset[int]] = {}
        self._facts: Facts | None = None

    def facts(self) -> Facts:
        """Reads the whole file once, for its hash."""
        if self._facts is None:
            values = {
                "file": self._path.name,
                "sha256": sha256_file(self._path),
                "bytes": self._path.stat().st_size,
                "architecture": self._architecture,
                "quantisation": self.model["ftype"],
                "parameters": self.model["n_params"],
                "context_length": self.model["n_ctx"],
                "thinking": self._thinking,
                "xllamacpp": versions.installed()["xllamacpp"],
            }
            self._facts = Facts(self._path.name, values)
        return self._facts

    def close(self) -> None:
        self._server.close()

    def expecting(self, prompts: Sequence[Prompt]) -> AbstractContextManager[None]:
        """Nothing to do: llama.cpp keeps what prompts share by itself."""
        return contextlib.nullcontext()

    def score(self, prompts: Sequence[Prompt]) -> list[Letters]:
        """Prompts with a long common beginning are computed one after the other in one slot, which keeps it.

        For a vocabulary of more than 4,096 tokens llama.cpp returns the likeliest 512; a label without one among them is
        `bounded`. Raises SlimtuneError for prompts that leave no room for an answer, labels that no single token
        spells, and where llama.cpp fails.
        """
        ids = self._prompt_ids(prompts, room=1)
        self._look_up({label for prompt in prompts for label in prompt.labels})
        chains = [
            chain
            for group in group_by_prefix(ids)
            for chain in ([group.members] if group.shared else zip(group.members, strict=True))
        ]

        def score_chain(chain: tuple[int, Sequence[int]]) -> list[tuple[int, Letters]]:
            slot, members = chain
            return [(index, self._letters(prompts[index], ids[index], slot % self.batch_size)) for index in members]

        found = dict(pair for pairs in self._at_once(score_chain, enumerate(chains)) for pair in pairs)
        return [found[index] for index in range(len(prompts))]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Reply]]:
        """Reply number i of a prompt is drawn with seed `sampling.seed + i`; a prompt is computed once for its replies.

        stop_at_answer is not possible here: llama.cpp stops at fixed text only.
        Raises SlimtuneError for prompts that leave no room for `max_new_tokens`, and where llama.cpp fails.
        """
        ids = self._prompt_ids(prompts, room=sampling.max_new_tokens)
        starts = range(0, sampling.replies, self.batch_size)
        requests = [(row, start) for row in ids for start in starts]
        answers = iter(self._at_once(lambda request: self._replies(request[0], request[1], sampling), requests))
        return [[reply for _ in starts for reply in next(answers)] for _ in prompts]

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """As llama.cpp's chat endpoint makes it; what is between the template's thinking marks is a thought."""
        body = llama_server.chat_body(messages, self._thinking) | {
            "stream": True,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed % 2**31,
            "cache_prompt": True,
            **sampling.options,
        }
        cut = False
        with contextlib.closing(self._server.stream("/v1/chat/completions", body)) as events:
            for event in events:
                choice = event["choices"][0]
                cut = cut or choice["finish_reason"] == "length"
                for key, thought in (("reasoning_content", True), ("content", False)):
                    if choice["delta"].get(key):
                        yield Piece(choice["delta"][key], thought=thought)
        yield Piece(cut=cut)

    def room(self, messages: Sequence[Message]) -> int:
        return int(self.model["n_ctx"]) - len(self._server.tokenize(self.rendered(messages)))

    def rendered(self, messages: Sequence[Message], thinking: bool | None = None) -> str:
        """The text that the model gets, as the embedded template makes it. thinking: None as the target was opened."""
        return self._server.render(messages, self._thinking if thinking is None else thinking)

    def likelihood(self, prompts: Sequence[Prompt], references: Sequence[str]) -> list[Likelihood]:
        """Raises SlimtuneError always: llama.cpp's server returns no probabilities of given text."""
        raise fail(
            f"the perplexity of {self._path.name} cannot be measured: llama.cpp returns no probabilities of given text",
            fix="evaluate the run, its adapter, or the Hugging Face folder that the GGUF was made from",
        )

    # ---- how ---------------------------------------------------------------------------------------------------------

    def _prompt_ids(self, prompts: Sequence[Prompt], room: int) -> list[list[int]]:
        """The rendered prompts' tokens. Raises SlimtuneError with every one that does not fit."""
        ids = self._at_once(lambda prompt: self._server.tokenize(self.rendered(prompt.messages)), prompts)
        limit = self.model["n_ctx"]
        more = "raise --max-length" if limit < self.model["n_ctx_train"] else "the model was trained on no more"
        problems = [
            Problem(
                f"{len(row)} tokens and {room} for the reply are more than the {limit} that the model is loaded for",
                f"the prompt that ends with {prompt.messages[-1].content[-40:]!r}",
                f"{more}; or shorten the question",
            )
            for prompt, row in zip(prompts, ids, strict=True)
            if len(row) + room > limit
        ]
        if problems:
            raise SlimtuneError(problems)
        return ids

    def _look_up(self, labels: set[str]) -> None:
        """Find the tokens that spell labels not seen before, full-width ones whose text comes in bytes among them."""
        for label in sorted(labels - self._spelled.keys()):
            self._spelled[label] = single_tokens(label, lambda text: self._server.tokenize(text, special=False))
        impossible = sorted(label for label in labels if not self._spelled[label])
        if impossible:
            raise fail(f"no single token spells {', '.join(impossible)}", fix="use letters as labels")

    def _letters(self, prompt: Prompt, ids: list[int], slot: int) -> Letters:
        told = [Told(**token) for token in self._server.first_tokens(ids, id_slot=slot, **_PLAIN_SAMPLING)]
        letters = letters_of(told, prompt.labels, spelled=self._spelled)
        # The text of control tokens is left out of the list.
        text = letters.greedy_text or self._server.post("/detokenize", {"tokens": [letters.greedy_token]})["content"]
        return dataclasses.replace(letters, greedy_text=text, prompt_sha256=ids_sha256(ids))

    def _replies(self, ids: list[int], start: int, sampling: Sampling) -> list[Reply]:
        """At most batch_size replies, from the one with number `start` on; llama.cpp counts the seed up itself."""
        body = {
            **_PLAIN_SAMPLING,
            "prompt": ids,
            "n_cmpl": min(sampling.replies - start, self.batch_size),
            "n_predict": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": (sampling.seed + start) % 2**31,
        }
        answer = self._server.post("/completion", body)
        return [
            Reply(reply["content"], reply["tokens_predicted"], truncated=reply["stop_type"] == "limit")
            for reply in (answer if isinstance(answer, list) else [answer])
        ]

    def _at_once(self, ask: Any, given: Iterable[Any]) -> list[Any]:
        return in_threads(ask, given, self.batch_size, interrupt=self._server.kill)
