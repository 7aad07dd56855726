"""Who answers in a conversation: a GGUF in llama.cpp, or a run's base and the same with its adapter in this process."""

import contextlib
import dataclasses
import secrets
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import run_folder, versions
from slimtune.core.errors import fail
from slimtune.data.records import Message
from slimtune.evaluate.targets import gguf_target, opening
from slimtune.evaluate.targets.gguf_target import GgufTarget
from slimtune.evaluate.targets.opening import Spec
from slimtune.evaluate.targets.target import Piece, Sampling, Target
from slimtune.export.check.check_template import compare_templates
from slimtune.export.request import ROOM_FOR_ANSWER
from slimtune.models import families
from slimtune.models.gguf_header import read_gguf
from slimtune.serve.chat_model import ChatModel

_LOCAL_REPLY_TOKENS = 512
"""The longest reply of a model in this process, whose reply is shown when it is complete."""

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


@dataclass(frozen=True)
class Side:
    """One that answers. name: "base" or "tuned". about: file, quantisation, engine, in a sentence.

    answering: while it is entered, the target that answers. options: sampling parameters under llama.cpp's names.
    seed: None draws another one for each reply. context: tokens of prompt and reply together. reply_length: the longest
    reply in tokens, None for what the context holds. more_context: what to do where the context is too small.
    """

    name: str
    about: str
    answering: Callable[[], AbstractContextManager[Target]]
    temperature: float
    seed: int | None
    context: int
    reply_length: int | None
    more_context: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def room(self, messages: Sequence[Message]) -> int:
        """Tokens that are left for the reply to these messages; below 1 for none."""
        with self.answering() as target:
            room = target.room(messages)
        return self.context if room is None else room

    def reply(self, messages: Sequence[Message]) -> Generator[Piece, None, None]:
        """The reply, piece by piece as it is made. Closing the generator stops it."""
        room = self.room(messages)
        sampling = Sampling(
            max_new_tokens=min(self.reply_length or room, room),
            temperature=self.temperature,
            seed=secrets.randbelow(2**31) if self.seed is None else self.seed,
            options=self.options,
        )
        with self.answering() as target, contextlib.closing(target.stream(messages, sampling)) as pieces:
            yield from pieces


@contextlib.contextmanager
def open_gguf(
    name: str, gguf: Path, model: ChatModel, wishes: Wishes, thinking: bool | None = None
) -> Iterator[tuple[Side, GgufTarget]]:
    """A GGUF in llama.cpp, asked as `model` says; closed afterwards. thinking: None leaves it to the template.

    Raises SlimtuneError where the file is not a chat model, cannot be loaded, or cannot be told to think or not to.
    """
    target = gguf_target.open_gguf(
        gguf,
        context_length=wishes.max_length or model.context_length,
        batch_size=1,
        threads=wishes.threads,
        thinking=thinking,
        flash_attention=True,  # as Ollama runs it
    )
    with contextlib.closing(target):
        yield side_of(name, target, gguf, model, wishes, thinking), target


def side_of(name: str, target: GgufTarget, gguf: Path, model: ChatModel, wishes: Wishes, thinking: bool | None) -> Side:
    """A loaded GGUF that is asked as Ollama asks it: its own chat template, the Modelfile's sampling."""
    if thinking is not None:
        _require_thinking(target, gguf, thinking)
    facts = target.model
    context, size = facts["n_ctx"], facts["n_params"]
    more_context = "--max-length gives more"
    if context >= facts["n_ctx_train"]:
        more_context = "the model was trained on no more"
    elif model.template:
        more_context += ", for Ollama export.num_ctx in the recipe"
    shown_size = f"{size / 1e9:.2f} B" if size >= 1e8 else f"{size / 1e6:.2f} M"
    temperature = model.sampling["temperature"] if wishes.temperature is None else wishes.temperature
    given = {"temperature": temperature} | ({} if wishes.seed is None else {"seed": wishes.seed})
    return Side(
        name=name,
        about=f"{gguf.name}, {facts['ftype']}, {shown_size} parameters, in llama.cpp (xllamacpp "
        f"{versions.installed()['xllamacpp']}), context {context:,} tokens, temperature {temperature:g}",
        answering=lambda: contextlib.nullcontext(target),
        temperature=temperature,
        seed=wishes.seed,
        context=context,
        reply_length=wishes.max_new_tokens or model.reply_length,
        more_context=more_context,
        options=model.sampling | given | {"stop": list(model.stops)},
    )


def template_differs(model: ChatModel) -> str:
    """How the Modelfile's TEMPLATE differs from the chat template in the GGUF, which chat uses; "" where it does not."""
    jinja = read_gguf(model.gguf).text("tokenizer.chat_template")
    if model.template is None or jinja is None:
        return ""
    findings = compare_templates(model.template, jinja, model.system or "")
    return "; ".join(finding.what for finding in findings if finding.level != "note")


def rendered_alike(one: GgufTarget, other: GgufTarget) -> bool:
    """Whether both chat templates render the same conversation alike."""
    return one.rendered(_PROBE) == other.rendered(_PROBE)


def _require_thinking(target: GgufTarget, gguf: Path, wanted: bool) -> None:
    """Raise SlimtuneError where the template cannot be told to think, or not to."""
    on, off = target.rendered(_PROBE, True), target.rendered(_PROBE, False)
    if on != off:
        return
    thinks = on.rstrip().endswith(tuple(opens for opens, _ in families.thought_tags()))
    if wanted and not thinks:
        fix = "leave it out; a model exported without thinking never thinks"
        raise fail(f"the chat template of {gguf} cannot turn thinking on", where="--thinking", fix=fix)
    if thinks and not wanted:
        raise fail(f"the chat template of {gguf} always thinks", where="--no-thinking", fix="leave it out")


@contextlib.contextmanager
def open_run(run: Path, wishes: Wishes) -> Iterator[list[Side]]:
    """A run's base, and the same with its adapter; closed afterwards. Raises SlimtuneError where one is missing."""
    spec, model = Spec("run", str(run)), run_folder.read(run).section("model", *run_folder.MODEL)
    # As Ollama's context: the longest example, and room for a reply.
    context: int = wishes.max_length or model["max_seq_length"] + ROOM_FOR_ANSWER
    opening.weights_of(spec, opening.Loading())  # report a missing adapter before Unsloth is loaded
    with contextlib.redirect_stdout(sys.stderr):  # a script reads replies from standard output, and loaders print there
        opened = opening.open_local(spec, opening.Loading(max_length=context))
    local = opened.local
    if wishes.thinking is not None:
        local.tokenizer = dataclasses.replace(local.tokenizer, thinking=wishes.thinking)
    values = local.facts().values
    weights = f"{values['base']}, {'4' if values['load_in_4bit'] else '16'}-bit weights, {values['precision']}"
    drawn = f"temperature {wishes.temperature:g}" if wishes.temperature else "greedy"
    how = f"in this process (Unsloth), context {context:,} tokens, {drawn}"
    base = Side(
        name="base",
        about=f"{weights}, without the adapter, {how}",
        answering=opened.without_adapter,
        temperature=wishes.temperature or 0.0,
        seed=wishes.seed,
        context=context,
        reply_length=wishes.max_new_tokens or _LOCAL_REPLY_TOKENS,
        more_context="--max-length gives more",
    )
    tuned = dataclasses.replace(
        base,
        name="tuned",
        about=f"the same with the run's adapter, not the exported file, {how}",
        answering=lambda: contextlib.nullcontext(opened.target),
    )
    with contextlib.closing(opened.target):
        yield [base, tuned]
