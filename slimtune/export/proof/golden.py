"""Golden prompts: what the adapter answered when it was judged, and what the served export must answer. No torch.

Also the generated conversations that stand in for questions, and on which templates and tokenizers are compared.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.core.run_folder import lines, read_lines
from slimtune.data.chat_template import ChatTokenizer, render_template
from slimtune.data.records import Message, as_dicts
from slimtune.evaluate.kinds.kind import Item
from slimtune.evaluate.targets.target import Prompt

if TYPE_CHECKING:
    from slimtune.evaluate.targets.local_target import LocalTarget

FILE_NAME = "golden.jsonl"
PARITY_ITEMS = 20

# What people write, and what trips renderers.
_PIECES = (
    "賃貸人は、賃貸物の使用及び収益に必要な修繕をする義務を負う。", "次の選択肢から、正しいものを一つ選びなさい。", "「契約」とは何ですか？",
    "第５条　第１項", "a", "b. 甲は乙に対し、代金の支払を請求することができる。", "①②③ ㈱ Ⅳ", "ｶﾞｲﾄﾞﾗｲﾝ", "髙橋　𠮷野", "I don't know.", "It's 12,345.67 % of what we'd ask",
    "def f(x):\n    return {'a': [x, \"y\"]}\n", "<b>not a tag</b> & <think", "{{ .Content }} {% if x %} {# #}", "C:\\new\\table", "naïve café, Ärger, ñandú",
    "🦙🎉👨‍👩‍👧", "…—–“”‘’", "| a | b |\n|---|---|", "http://example.org/?q=1&r=%20", "\t\ttabs\t", "  two spaces  ", "\n\n\n", "x" * 70,
)  # fmt: skip
_BETWEEN = ("", " ", "\n", "\n\n", "　", "  ", "\t")


@dataclass(frozen=True, kw_only=True)
class Golden:
    """A line of eval/golden.jsonl: a prompt as rendered for the model, and what the judged adapter makes of it.

    greedy_token: the first token of its answer. letters: label to natural log-probability as the first token; empty where
    no letter is asked for. reference_ids: the file's own answer up to and including the end of turn; reference_nll: its
    negative log-likelihood under the adapter, summed. messages: that `prompt` was rendered from.
    Older runs recorded no messages, letters or references.
    """

    id: str
    prompt: str
    prompt_ids: Sequence[int]
    greedy_token: int
    messages: Sequence[Message] = ()
    letters: Mapping[str, float] = field(default_factory=dict)
    reference_ids: Sequence[int] = ()
    reference_nll: float | None = None


def read(run: Path) -> list[Golden]:
    """The golden prompts of a run; empty where it recorded none. Raises SlimtuneError with every line that is none."""
    path, problems, found = run / "eval" / FILE_NAME, list[Problem](), list[Golden]()
    fix = f"export its adapter, which is asked first: slimtune export {run / 'adapter'}"
    for number, row in enumerate(read_lines(path, fix=fix) if inputs.exists(path) else [], 1):
        try:
            one = TypeAdapter(Golden).validate_python(row)
            found.append(replace(one, messages=tuple(one.messages)))
        except ValidationError as error:
            first = error.errors()[0]
            problems.append(Problem(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", f"{path}:{number}", fix))
    if problems:
        raise bad_data({str(path): problems})
    return found


def ask(target: LocalTarget, items: Sequence[Item]) -> list[Golden]:
    """What the model makes of the first items: letters where they have choices, else the likelihood of their reference."""
    chosen = items[:PARITY_ITEMS]
    made: list[Golden] = []
    for start in range(0, len(chosen), target.batch_size):
        part = chosen[start : start + target.batch_size]
        prompts = [Prompt(item.prompt, item.labels) for item in part]
        references: list[dict[str, Any]] = [{} for _ in part]
        answers: list[list[int]] = []
        if not any(item.labels for item in part) and all(item.reference for item in part):
            answers = [target.tokenizer.prompt_and_response_ids(item.prompt, item.reference)[1] for item in part]
        # Where replies were generated, a reference may be longer than what the model is loaded for.
        if answers and all(len(ids) <= target.room(item.prompt) for item, ids in zip(part, answers, strict=True)):
            found = target.likelihood(prompts, [item.reference for item in part])
            references = [
                {"reference_ids": ids, "reference_nll": round(one.nll, 6)}
                for ids, one in zip(answers, found, strict=True)
            ]
        for item, letters, reference in zip(part, target.score(prompts), references, strict=True):
            ids = target.tokenizer.prompt_ids(item.prompt)
            made.append(
                Golden(
                    id=item.id,
                    messages=item.prompt,
                    prompt=target.tokenizer.decode(ids),
                    prompt_ids=ids,
                    greedy_token=letters.greedy_token or 0,
                    letters={label: round(value, 6) for label, value in letters.logprobs.items()},
                    **reference,
                )
            )
    return made


def made_up(tokenizer: ChatTokenizer, max_length: int) -> list[Item]:
    """Items for a model that was not judged: generated conversations that leave room for a token in max_length."""
    taken = accepted(generated(10 * PARITY_ITEMS), tokenizer.template, thinking=tokenizer.thinking)
    items = [Item(f"made-up-{number}", conversation, reference="") for number, conversation in enumerate(taken, 1)]
    return [item for item in items if len(tokenizer.prompt_ids(item.prompt)) < max_length][:PARITY_ITEMS]


def accepted(
    conversations: Sequence[tuple[Message, ...]], template: str, *, thinking: bool
) -> list[tuple[Message, ...]]:
    """Those that a chat template renders: some refuse a system prompt."""

    def renders(conversation: tuple[Message, ...]) -> bool:
        try:
            render_template(template, as_dicts(conversation), add_generation_prompt=True, thinking=thinking)
        except SlimtuneError:
            return False
        return True

    return [conversation for conversation in conversations if renders(conversation)]


# ---- made-up conversations ------------------------------------------------------------------------------------------


def generated(count: int, *, seed: int = 0) -> list[tuple[Message, ...]]:
    """The same `count` conversations for the same seed; the last turn is the user's.

    NFC throughout, since Transformers composes text before it encodes it and llama.cpp does not.
    """
    draw = random.Random(seed)
    return [tuple(_conversation(draw)) for _ in range(count)]


def _conversation(draw: random.Random) -> Iterator[Message]:
    if draw.random() < 0.5:
        yield Message("system", _text(draw))
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        yield Message("user", _text(draw))
        yield Message("assistant", _text(draw))
    yield Message("user", _text(draw))


def _text(draw: random.Random) -> str:
    """Never blank: nobody sends a turn without text."""
    while True:
        pieces = draw.choices(_PIECES, k=draw.randint(1, 5))
        text = "".join(piece + draw.choice(_BETWEEN) for piece in pieces)
        if text.strip():
            return unicodedata.normalize("NFC", text)


# ---- what ships -----------------------------------------------------------------------------------------------------


class ServedPrompt(BaseModel):
    """A line of export/golden.jsonl: a conversation, and the merged model's greedy answer to it.

    answer: without the end-of-turn token. ended: whether it came within max_new_tokens. thinking: as in training.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    id: str
    messages: list[Message] = Field(min_length=1)
    answer: str
    max_new_tokens: int = Field(ge=1)
    ended: bool
    thinking: bool


def read_served(run: Path, fix: str) -> tuple[list[ServedPrompt], list[Problem]]:
    """The prompts of a run's export/golden.jsonl, and everything that is wrong with them. fix: what mends it."""
    name = f"export/{FILE_NAME}"
    if not (run / name).is_file():
        what = "there are no golden prompts: this export was made before they were recorded, or without questions"
        return [], [Problem(what, str(run / name), fix)]
    unreadable: list[str] = []
    rows = lines(run, name, unreadable)
    problems = [Problem(what, str(run), fix) for what in unreadable]
    prompts = []
    for number, row in enumerate(rows, 1):
        try:
            prompts.append(ServedPrompt.model_validate_json(json.dumps(row)))
        except ValidationError as error:
            where = f"{run / name}, prompt {number}"
            problems += [Problem(f"{'.'.join(map(str, e['loc']))}: {e['msg']}", where, fix) for e in error.errors()]
    if not rows and not problems:
        problems.append(Problem("it holds no golden prompt", str(run / name), fix))
    if len({one.thinking for one in prompts}) > 1:
        what = "some of the prompts were trained with thinking and some without"
        problems.append(Problem(what, str(run / name), fix))
    return prompts, problems
