"""The items of a held-out file, independent of the model that will answer. No torch."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from slimtune.core.errors import Gathered, Problem, SlimtuneError, bad_data, fail
from slimtune.core.units import plural
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.json_rows import type_name
from slimtune.data.loading import Loaded
from slimtune.data.questions import SHAPE, asked_faults
from slimtune.data.records import Conversation, Mode
from slimtune.evaluate import kinds
from slimtune.evaluate.kinds import permutations as orders
from slimtune.evaluate.kinds.kind import Item, Settings
from slimtune.evaluate.replies.extract import label_position
from slimtune.evaluate.targets.served import single_tokens

_UNUSABLE = "The evaluation set cannot be used"
_ROUND, _LEAST_REPLY = 64, 32
"""max_seq_length is advised in steps of so many tokens, and no limit of replies that is shorter."""


def first(conversations: Sequence[Conversation], count: int | None, path: str) -> Sequence[Conversation]:
    """The first `count` of a file; None takes all. Raises SlimtuneError where there are fewer: n would be another one."""
    if count is not None and len(conversations) < count:
        what = f"you asked for {count} items, but the file has {len(conversations)}"
        raise fail(what, where=path, fix=f"ask for at most {len(conversations)}")
    return conversations[:count]


def of_mode(loaded: Loaded, kind: str, mode: Mode) -> Loaded:
    """The rows of a file with this `meta.mode`; rows that do not say theirs are of any, and only questions have one.

    Raises SlimtuneError for each row with a mode that there is not, and where no row is left.
    """
    if not kinds.named(kind).has_choices:
        return loaded
    rows, path = loaded.conversations, loaded.files[0].file.path
    modes = Counter(str(row.meta["mode"]) for row in rows if row.meta.get("mode") is not None)
    fix = "write direct or cot, or leave it out"
    _require_none(
        [
            Problem(f"meta.mode is {row.meta['mode']!r}, neither direct nor cot", row.where, fix)
            for row in rows
            if row.meta.get("mode") not in (None, *get_args(Mode))
        ]
    )
    kept = tuple(row for row in rows if row.meta.get("mode") in (None, mode))
    if not kept:
        others = ", ".join(f"{count} {other}" for other, count in modes.items())
        what = f"no row is left: the file has no row of mode {mode} (there are: {others})"
        raise fail(what, where=path, fix=f"set evaluate.mode: {next(iter(modes))} (slimtune evaluate: --mode)")
    (file,) = loaded.files
    return Loaded(kept, (dataclasses.replace(file, kept=len(kept), used=len(kept)),))


def read(conversations: Sequence[Conversation], kind: str, *, permutations: int = 1) -> list[Item]:
    """The items of a held-out file; the last turn of each conversation is what is asked for.

    permutations: orders of the choices that each is to be asked in. Raises SlimtuneError with every repeated id, every
    row that cannot be an item of this kind, and every item whose choices have not so many orders, all at once.
    """
    items = list(map(_item, conversations))
    problems: list[Problem] = []
    if kinds.named(kind).has_choices and not any("choices" in row.meta for row in conversations):
        what = f"evaluate.kind is {kind}, and none of {plural(len(items), 'row')} has choices (meta.choices)"
        fix = "set evaluate.kind: generation (slimtune evaluate: --kind generation), which compares replies with the outputs"
        if all(label_position(item.reference.strip()) is not None for item in items):
            fix = f"say what the letters mean: {SHAPE}; or {fix}"
        path = items[0].where.rpartition(":")[0]
        raise SlimtuneError(Problem(what, path, fix), summary=_UNUSABLE)
    seen: dict[str, str] = {}
    for item, conversation in zip(items, conversations, strict=True):
        if what := _no_question(conversation):
            fix = "keep rows of tools and excluded answers for training, and judge rows whose last turn is a text"
            problems.append(Problem(what, item.where, fix))
            continue
        id = conversation.meta.get("id")
        if not isinstance(id, str | int | None) or isinstance(id, bool):
            problems.append(Problem(f"meta.id is {type_name(id)}", item.where, "write it as a string"))
        elif problem := kinds.named(kind).check(item):
            problems.append(problem)
        elif item.id in seen:
            problems.append(
                Problem(
                    f"id '{item.id}' is used twice",
                    item.where,
                    f"give it an id of its own; {seen[item.id]} has this one",
                )
            )
        seen.setdefault(item.id, item.where)
    found = Gathered()
    with found:
        _require_none(problems)
    if permutations > 1:
        with found:
            orders.check([item for item in items if item.choices], permutations)
    found.require_none()
    return items


def require_askable(items: Sequence[Item], settings: Settings, tokenizer: ChatTokenizer, max_length: int) -> None:
    """Raise SlimtuneError where items cannot be asked of a model with this tokenizer and `max_length` tokens of context.

    It names each item whose prompt leaves no room for the reply, or is refused by the chat template. Where letters are
    read from the first token's probabilities, it also names each label that no single token spells.
    """
    kind = kinds.named(settings.kind)
    ability = kind.ability(settings)
    letters = {label: item for item in reversed(items) for label in item.labels} if ability == "score" else {}
    problems = [
        Problem(f"no single token spells the label '{label}'", item.where, "use letters as labels")
        for label, item in letters.items()
        if not single_tokens(label, tokenizer.encode)
    ]
    crowded: dict[str, int] = {}
    for item in items:
        try:
            if ability == "likelihood":
                needed = sum(map(len, tokenizer.prompt_and_response_ids(item.prompt, item.reference)))
            else:
                needed = len(tokenizer.prompt_ids(item.prompt)) + kind.room(settings)
        except SlimtuneError as error:
            problems += [Problem(one.what, item.where, one.fix) for one in error.problems]
            continue
        if needed > max_length:
            crowded[item.where] = needed
    # One value for all of them, and a lower limit of replies only where it leaves room for one.
    wanted = math.ceil(max(crowded.values(), default=0) / _ROUND) * _ROUND
    fix = f"set model.max_seq_length: {wanted} (--max-length {wanted})"
    room = max_length - max(crowded.values(), default=0) + settings.max_new_tokens
    if ability == "generate" and kind.room(settings) == settings.max_new_tokens and room >= _LEAST_REPLY:
        fix += f", or evaluate.max_new_tokens: {room} (--max-new-tokens {room})"
    for where, needed in crowded.items():
        what = f"prompt and reply may have {needed} tokens, max_seq_length is {max_length}"
        problems.append(Problem(what, where, fix))
    _require_none(problems)


def _require_none(problems: Sequence[Problem]) -> None:
    files: dict[str, list[Problem]] = {}
    for problem in problems:
        files.setdefault(problem.where.rpartition(":")[0], []).append(problem)
    if files:
        raise bad_data(files, summary=_UNUSABLE)


def _no_question(conversation: Conversation) -> str:
    """Why a conversation cannot be asked; "" for one that can."""
    *asked, answer = conversation.messages
    if answer.tool_calls:
        return "the last turn calls a function, and only texts are judged"
    if conversation.tools or any(message.role == "tool" or message.tool_calls for message in asked):
        return "the row has tools, and questions are asked without tools"
    return "the last turn is excluded, so there is no answer to judge by" if answer.excluded else ""


def _item(conversation: Conversation) -> Item:
    meta, where = conversation.meta, conversation.where
    faults = tuple(asked_faults(meta))
    id = meta.get("id")
    return Item(
        id=where if id in (None, "") else str(id),
        prompt=conversation.messages[:-1],
        reference=conversation.messages[-1].content,
        choices={} if faults else dict(meta["choices"]),
        gold="" if faults else meta["correct"],
        source=str(meta.get("source") or ""),
        context=str(meta.get("context") or ""),
        where=where,
        faults=faults,
    )
