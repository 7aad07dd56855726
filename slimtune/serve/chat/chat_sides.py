"""Who answers in a conversation: a GGUF in llama.cpp, or a run's adapter and its base in this process."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import secrets
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slimtune.core import run_folder, versions
from slimtune.core.errors import fail
from slimtune.data.records import Message, as_dicts
from slimtune.models import llama_server
from slimtune.models.gguf_header import read_gguf
from slimtune.models.llama_server import LlamaServer
from slimtune.serve.chat.chat_target import ChatModel

if TYPE_CHECKING:
    from slimtune.evaluate.targets.opening import Opened

LOCAL_REPLY_TOKENS = 512
"""The longest reply of a model in this process, whose reply is shown when it is complete."""

_OWN_THOUGHT = re.compile(r"\s*<think>(?P<thought>.*?)(?:</think>\s*|$)(?P<answer>.*)", re.DOTALL)
# How the Modelfiles that Slimtune writes begin: every message as ChatML. What follows opens the reply.
_CHATML_LOOP = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
_PROBE = (Message("system", "s"), Message("user", "u"))


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for; None leaves it to the Modelfile, the template, the run or llama.cpp."""

    temperature: float | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    thinking: bool | None = None
    seed: int | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a reply. thought: it belongs to the reasoning before the answer.

    cut: the reply ends here because no more tokens were allowed, not because the model ended it.
    """

    text: str = ""
    thought: bool = False
    cut: bool = False


class Side(Protocol):
    """One that answers. name: "base" or "tuned". about: file, quantisation, engine, in a sentence.

    context: tokens of prompt and reply together. reply_length: the longest reply in tokens, None for what the context
    holds. more_context: what to do where it is too small.
    """

    name: str
    about: str
    context: int
    reply_length: int | None
    more_context: str

    def room(self, messages: Sequence[Message]) -> int:
        """Tokens that are left for the reply to these messages; below 1 for none."""
        ...

    def reply(self, messages: Sequence[Message]) -> Generator[Piece, None, None]:
        """The reply, piece by piece as it is made. Closing the generator stops it."""
        ...


class GgufSide:
    """A GGUF in llama.cpp, asked as Ollama asks it: its own chat template, the Modelfile's sampling. See `open_gguf`."""

    def __init__(
        self, name: str, gguf: Path, model: ChatModel, wishes: Wishes, thinking: bool | None, server: LlamaServer
    ) -> None:
        facts = server.model()
        self.name = name
        self.context: int = facts["n_ctx"]
        self.reply_length = wishes.max_new_tokens or model.reply_length
        self.more_context = "--max-length gives more"
        if self.context >= facts["n_ctx_train"]:
            self.more_context = "the model was trained on no more"
        elif model.template:
            self.more_context += ", for Ollama export.num_ctx in the recipe"
        size, engine = facts["n_params"], f"llama.cpp (xllamacpp {versions.installed()['xllamacpp']})"
        shown_size = f"{size / 1e9:.2f} B" if size >= 1e8 else f"{size / 1e6:.2f} M"
        self._sampling = dict(model.sampling)
        if wishes.temperature is not None:
            self._sampling["temperature"] = wishes.temperature
        if wishes.seed is not None:
            self._sampling["seed"] = wishes.seed
        self.about = (
            f"{gguf.name}, {facts['ftype']}, {shown_size} parameters, in {engine}, context {self.context:,} tokens, "
            f"temperature {self._sampling['temperature']:g}"
        )
        self._stops, self._thinking, self._server = model.stops, thinking, server
        self._what = str(gguf)
        if thinking is not None:
            self._require_thinking(thinking)

    def room(self, messages: Sequence[Message]) -> int:
        body = {"content": self.rendered(messages), "add_special": True, "parse_special": True}
        return self.context - len(self._server.post("/tokenize", body)["tokens"])

    def reply(self, messages: Sequence[Message]) -> Generator[Piece, None, None]:
        body = self._body(messages, self._thinking) | {
            "stream": True,
            "max_tokens": self.reply_length or -1,
            "stop": list(self._stops),
            "cache_prompt": True,
            **self._sampling,
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

    def rendered(self, messages: Sequence[Message], thinking: bool | None = None) -> str:
        """The text that the model gets, as the embedded template makes it. thinking: None as in the conversation."""
        thinking = self._thinking if thinking is None else thinking
        text: str = self._server.post("/apply-template", self._body(messages, thinking))["prompt"]
        return text

    def agrees_with(self, template: str) -> bool:
        """Whether a Modelfile's TEMPLATE is the loop over ChatML messages that the embedded template renders as well."""
        loop, _, opening = template.partition("{{ end }}")
        turns = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in _PROBE)
        return loop + "{{ end }}" == _CHATML_LOOP and self.rendered(_PROBE) == turns + opening

    def opens_as(self, other: GgufSide) -> bool:
        """Whether both templates render the same conversation alike."""
        return self.rendered(_PROBE) == other.rendered(_PROBE)

    def _body(self, messages: Sequence[Message], thinking: bool | None) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": as_dicts(messages)}
        if thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": thinking}
        return body

    def _require_thinking(self, wanted: bool) -> None:
        """Raises SlimtuneError where the template cannot be told to think, or not to."""
        on, off = self.rendered(_PROBE, True), self.rendered(_PROBE, False)
        if on != off:
            return
        if wanted and not on.rstrip().endswith("<think>"):
            fix = "leave it out; a model exported without thinking never thinks"
            raise fail(f"the chat template of {self._what} cannot turn thinking on", where="--thinking", fix=fix)
        if not wanted and on.rstrip().endswith("<think>"):
            raise fail(f"the chat template of {self._what} always thinks", where="--no-thinking", fix="leave it out")


@contextlib.contextmanager
def open_gguf(
    name: str, gguf: Path, model: ChatModel, wishes: Wishes, thinking: bool | None = None
) -> Iterator[GgufSide]:
    """A GGUF in llama.cpp, asked as `model` says; closed afterwards. thinking: None leaves it to the template.

    Raises SlimtuneError where the file is no chat model or cannot be loaded.
    """
    header = read_gguf(gguf)
    if header.text("general.type") == "adapter":
        raise fail("the GGUF holds an adapter alone", where=str(gguf), fix="name the one that holds the whole model")
    if not header.text("tokenizer.chat_template"):
        raise fail(
            "the GGUF has no chat template", where=str(gguf), fix="export an instruction-tuned model, not a bare base"
        )
    if importlib.util.find_spec("xllamacpp") is None:
        raise fail("llama.cpp is not installed", fix="pip install -r requirements.txt (xllamacpp)")
    context = wishes.max_length or model.context_length
    with llama_server.start(gguf, context_length=context, threads=wishes.threads) as server:
        yield GgufSide(name, gguf, model, wishes, thinking, server)


class LocalSide:
    """A run's model in this process, with its adapter or without it. See `open_run`."""

    def __init__(self, name: str, opened: Opened, wishes: Wishes, about: str, context: int) -> None:
        self.name, self.about, self.context = name, about, context
        self.reply_length: int | None = wishes.max_new_tokens or LOCAL_REPLY_TOKENS
        self.more_context = "--max-length gives more"
        self._opened, self._wishes = opened, wishes

    def room(self, messages: Sequence[Message]) -> int:
        return self.context - len(self._opened.local.tokenizer.prompt_ids(messages))

    def reply(self, messages: Sequence[Message]) -> Generator[Piece, None, None]:
        from slimtune.evaluate.targets.target import Prompt, Sampling

        seed = self._wishes.seed
        sampling = Sampling(
            max_new_tokens=min(self.reply_length or LOCAL_REPLY_TOKENS, self.room(messages)),
            temperature=self._wishes.temperature or 0.0,
            seed=secrets.randbelow(2**31) if seed is None else seed,
        )
        adapter = self._opened.without_adapter() if self.name == "base" else contextlib.nullcontext(self._opened.target)
        with adapter as target:
            ((reply,),) = target.generate([Prompt(tuple(messages))], sampling)
        own = _OWN_THOUGHT.fullmatch(reply.text)
        if own:
            yield Piece(own["thought"].strip(), thought=True)
        yield Piece(own["answer"] if own else reply.text, cut=reply.truncated)


@contextlib.contextmanager
def open_run(run: Path, wishes: Wishes) -> Iterator[tuple[LocalSide, LocalSide]]:
    """A run's base and the same with its adapter, loaded once; closed afterwards. Needs no export.

    Raises SlimtuneError where the run has no adapter or its base is not at hand.
    """
    from slimtune.evaluate.targets import opening
    from slimtune.evaluate.targets.target_spec import Spec
    from slimtune.export.shipment import ROOM_FOR_ANSWER

    spec, recipe = Spec("run", str(run)), run_folder.read(run).recipe
    # As Ollama's context: the longest example, and room for a reply.
    context = wishes.max_length or recipe["model"]["max_seq_length"] + ROOM_FOR_ANSWER
    opening.weights_of(spec, opening.Loading())  # an adapter that is missing is said before Unsloth is loaded
    with contextlib.redirect_stdout(sys.stderr):  # a script reads replies there, and loaders print
        opened = opening.open_local(spec, opening.Loading(max_length=context))
    local = opened.local
    if wishes.thinking is not None:
        local.tokenizer = dataclasses.replace(local.tokenizer, thinking=wishes.thinking)
    values = local.facts().values
    weights = f"{values['base']}, {'4' if values['load_in_4bit'] else '16'}-bit weights, {values['precision']}"
    how = f"in this process (Unsloth), context {context:,} tokens, " + (
        f"temperature {wishes.temperature:g}" if wishes.temperature else "greedy"
    )
    try:
        yield (
            LocalSide("base", opened, wishes, f"{weights}, without the adapter, {how}", context),
            LocalSide(
                "tuned", opened, wishes, f"the same with the run's adapter, not the exported file, {how}", context
            ),
        )
    finally:
        opened.target.close()
