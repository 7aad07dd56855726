"""A row that compares or rates answers, taken apart: the prompt's turns and those of each answer, wherever it has them.

Nothing is checked here that `data/formats` checks: each answer is put behind its prompt in a layout of that module and
read there. Its messages then name the row's own keys.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from slimtune.core import inputs
from slimtune.core.errors import Problem
from slimtune.data import formats
from slimtune.data.formats import Converted
from slimtune.data.json_rows import Row, StrictDecoder, type_name
from slimtune.data.preference_keys import ANSWERS, LISTS, Marks, is_mark
from slimtune.data.records import Conversation
from slimtune.recipe.names import FormatName

_PROMPTS = ("prompt", "instruction", "question", "query", "problem", "input")
"""Keys of a prompt's text, in the order in which they are looked for."""
_BESIDE = ("completions", "outputs", "responses", "answers", "candidates", "generations", "rationale", "explanation")
"""Keys of what answers were chosen from, and why: nothing of these is learned."""
_ASKING = ("system", "developer", "user", "human")
"""Roles with which a whole conversation begins, as an answer does not."""
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_TURNS_AS_TEXT = re.compile(r"\s*\[\s*\{\s*(?P<quote>['\"])(role|content|from|value)(?P=quote)\s*:")
_PLACE = re.compile(
    r"'(?:(?:messages|conversations)\[(?P<index>\d+)\](?P<rest>[^']*)"
    r"|(?P<key>instruction|output|response|question|answer))'"
)
# The layout in which a text and its answer are read, and its keys for them; others where there is a context.
_ALPACA: tuple[FormatName, str, str] = ("alpaca", "instruction", "output")
_WITH_CONTEXT: dict[str, tuple[FormatName, str, str]] = {
    "question": ("question_answer", "question", "answer"),
    "instruction": ("instruction_response", "instruction", "response"),
}


class _Turn(NamedTuple):
    """A turn. turn: as the row has it, a text as {"role", "content"}. place: its key or "key[2]". is_text: was a text."""

    turn: Any
    place: str
    is_text: bool = False

    @property
    def role(self) -> str:
        return str(self.turn.get("role", self.turn.get("from", ""))).lower() if isinstance(self.turn, dict) else ""

    @property
    def text(self) -> str:
        content = self.turn.get("content", self.turn.get("value", "")) if isinstance(self.turn, dict) else ""
        return str(content).strip()


@dataclass(slots=True)
class Answered:
    """An answer behind its prompt. turns: of the answer, 0 where the row has one whole conversation."""

    converted: Converted
    turns: int

    @property
    def conversation(self) -> Conversation:
        return self.converted.conversation


@dataclass(slots=True)
class Taken:
    """A row being taken apart. problems: what is wrong with it. ignored: keys that nothing is read from."""

    row: Row
    path: str
    system: str | None = None
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    _rest: dict[str, Any] = field(default_factory=dict)
    _prompt: list[_Turn] = field(default_factory=list)

    def report(self, what: str, fix: str) -> None:
        self.problems.append(Problem(what, f"{self.path}:{self.row.line}", fix))

    def answers(self, mark: Marks) -> list[Answered]:
        """The chosen and the rejected answer, or the only one; fewer where something was reported."""
        value = self.row.value
        self._rest = {key: content for key, content in value.items() if not (is_mark(key) or key in mark.keys)}
        self.ignored += [key for key in value if is_mark(key) and key not in mark.keys]
        self._prompt = self._listed_prompt()
        first = self._first_answer(mark)
        sides = [first]
        if mark.kind == "preference":
            sides.append(self._named(mark.rejected, "rejected"))
        if not all(sides):
            return []
        whole = [side for side in sides if side[0].role in _ASKING]
        text_key = "" if self._prompt else self._text_key()
        if whole:
            self._require_same(whole[0], text_key)
            self._prompt, text_key = whole[0][: _last_asking(whole[0]) + 1], ""
        elif self._prompt:
            self._prompt = _without_answer(self._prompt, first)
            if all(part.is_text for part in self._prompt):
                # Behind "Assistant:" stands a space, which is no part of the answer.
                sides = [[_stripped(part) for part in side] for side in sides]
        elif not text_key:
            fix = "add 'prompt': a text, or a list of turns that ends with the user's"
            self.report("there is no prompt: " + " and ".join(repr(side[0].place) for side in sides) + " alone", fix)
            return []
        self._drop_repeated(text_key, sides)
        return [answered for side in sides if (answered := self._read(side, text_key))]

    def _listed_prompt(self) -> list[_Turn]:
        """The turns before the answer, and the answer too where the row has no key for it; [] for a prompt of text."""
        asked = self._rest.get("input")
        if isinstance(asked, dict):
            del self._rest["input"]
            self._rest |= {key: content for key, content in asked.items() if key != "messages"}
            return self._parts(asked.get("messages"), "input.messages", "user")
        for key in (*LISTS, "prompt"):
            if self._rest.get(key) and (key not in LISTS or _has_roles(self._rest[key])):
                parts = self._parts(self._rest[key], key, "user")
                if key in LISTS or not parts or parts[0].turn != {"role": "user", "content": self._rest[key]}:
                    del self._rest[key]
                    return parts
        return []

    def _text_key(self) -> str:
        present = [key for key in _PROMPTS if key in self._rest]
        return next((key for key in present if self._rest[key]), "") or next(iter(present), "")

    def _first_answer(self, mark: Marks) -> list[_Turn]:
        """The chosen or the only answer."""
        if mark.chosen:
            return self._named(mark.chosen, "chosen")
        end = _last_asking(self._prompt) + 1
        if 0 < end < len(self._prompt):
            answer, self._prompt = self._prompt[end:], self._prompt[:end]
            return answer
        # AutoTrain's chosen answer is "text", which beside a rating would be no answer.
        names = (*ANSWERS, "text") if mark.kind == "preference" else ANSWERS
        if key := next((key for key in names if self._rest.get(key)), ""):
            return self._parts(self._rest.pop(key), key, "assistant")
        name = "chosen" if mark.kind == "preference" else "completion"
        return self._named("", name)

    def _named(self, key: str, name: str) -> list[_Turn]:
        if key or name in self.row.value:
            return self._parts(self.row.value[key or name], key or name, "assistant")
        self.report(f"'{name}' is missing", f"the keys here are {', '.join(map(repr, self.row.value))}")
        return []

    def _parts(self, raw: Any, place: str, role: str) -> list[_Turn]:
        """The turns of a value; [] with a report for one that has none."""
        if isinstance(raw, str) and (match := _TURNS_AS_TEXT.match(raw)):
            raw = self._decoded(raw, place, match["quote"])
            if raw is None:
                return []
        if isinstance(raw, str):
            spoken = _SPEAKER.split(raw)
            if spoken[0] or spoken[1:2] != ["Human"] or "Assistant" not in spoken[1::2]:
                return [_Turn({"role": role, "content": raw}, place, True)]
            roles = {"Human": "user", "Assistant": "assistant"}
            pairs = list(zip(spoken[1::2], spoken[2::2], strict=True))
            if len(pairs) > 1 and not pairs[-1][1].strip():
                pairs.pop()  # a prompt that ends with "Assistant:"
            return [_Turn({"role": roles[name], "content": said.strip()}, place, True) for name, said in pairs]
        if isinstance(raw, dict):
            return [_Turn(raw, place)]
        if isinstance(raw, list) and raw:
            return [_Turn(turn, f"{place}[{index}]") for index, turn in enumerate(raw)]
        state = "is empty" if raw == [] else f"is {type_name(raw)}, neither a text nor a list of turns"
        self.report(f"'{place}' {state}", 'write a text, or a list of {"role": …, "content": …}')
        return []

    def _decoded(self, text: str, place: str, quote: str) -> Any:
        """A list of turns that a table's cell has as JSON."""
        fix = "write the list as JSON (json.dumps)"
        if quote == "'":
            self.report(f"'{place}' has a list of turns as Python shows it, not as JSON", fix)
            return None
        decoder = StrictDecoder()
        try:
            value = decoder.decode(text)
            faults = list(decoder.complaints)
        except inputs.FAULTS as error:
            value, faults = None, [inputs.reason(error)]
        for fault in faults:
            self.report(f"'{place}' has a list of turns that is broken JSON: {fault}", fix)
        return None if faults else value

    def _require_same(self, whole: Sequence[_Turn], text_key: str) -> None:
        """Report a prompt that is not the one with which the whole conversation begins."""
        name = whole[0].place.partition("[")[0]
        if self._prompt:
            listed, place = [part.text for part in self._prompt], self._prompt[0].place.partition("[")[0]
            # The conversation may have a system prompt more, but not one less.
            same = any(listed == [part.text for part in begun][: len(listed)] for begun in (whole, whole[1:]))
        elif text_key:
            content, place = self._rest.pop(text_key), text_key
            same = isinstance(content, str) and content.strip() in [part.text for part in whole if part.role in _ASKING]
        else:
            return
        if not same:
            self.report(
                f"'{place}' is not the prompt with which '{name}' begins", "write the same one, or leave it out"
            )

    def _drop_repeated(self, text_key: str, sides: Sequence[Sequence[_Turn]]) -> None:
        """Leave out keys that repeat the prompt, and answers that are not compared. Report another prompt."""
        told = {part.text for part in (*self._prompt, *(part for side in sides for part in side))}
        told.add(str(self._rest.get(text_key, "")).strip())
        if "conversation" in self._rest and all(text.strip() in told for text in _texts(self._rest["conversation"])):
            del self._rest["conversation"]
            self.ignored.append("conversation")
        used = {text_key, "input"} if text_key == "instruction" else {text_key}
        for key in [key for key in (*_PROMPTS, *ANSWERS, *_BESIDE) if key in self._rest and key not in used]:
            content = self._rest.pop(key)
            self.ignored.append(key)
            if key in _PROMPTS and content and not (isinstance(content, str) and content.strip() in told):
                fix = "write all of the question into one of them, or leave it out"
                other = text_key or next((part.place for part in self._prompt), sides[0][0].place)
                self.report(f"'{key}' is another prompt than '{other}'", fix)

    def _read(self, side: Sequence[_Turn], text_key: str) -> Answered | None:
        """An answer behind the prompt, as `formats` reads it."""
        turns = 0 if side[0].role in _ASKING else len(side)
        if text_key and not self._prompt and turns == 1 and side[0].is_text:
            layout, *names = _WITH_CONTEXT.get(text_key, _ALPACA) if self._rest.get("context") else _ALPACA
            value = {key: content for key, content in self._rest.items() if key != text_key}
            value |= zip(names, (self._rest[text_key], side[0].turn["content"]), strict=True)
            places = dict(zip(names, (text_key, side[0].place), strict=True))
            return self._converted(value, layout, lambda found: places.get(found["key"], found["key"]), turns)
        value = dict(self._rest)
        prompt = self._prompt
        if text_key and not prompt:
            texts = [value.pop(text_key), *([value.pop("input")] if value.get("input") else [])]
            asked = "\n\n".join(texts) if all(isinstance(text, str) for text in texts) else texts[0]
            prompt = [_Turn({"role": "user", "content": asked}, text_key, True)]
        parts = [*prompt, *side] if turns else list(side)
        key = (
            "conversations" if any("from" in part.turn for part in parts if isinstance(part.turn, dict)) else "messages"
        )
        value[key] = [_as_sharegpt(part) if key == "conversations" else part.turn for part in parts]

        def place(found: Mapping[str, str]) -> str:
            part = parts[int(found["index"])]
            return part.place if part.is_text else part.place + found["rest"]

        return self._converted(value, "sharegpt" if key == "conversations" else "messages", place, turns)

    def _converted(
        self, value: dict[str, Any], name: FormatName, place: Callable[[Mapping[str, str]], str], turns: int
    ) -> Answered | None:
        problems: list[Problem] = []
        row = Row(self.row.line, value)
        converted = formats.convert(row, name, path=self.path, system=self.system, problems=problems)
        for one in problems:
            what = _PLACE.sub(lambda match: f"'{place(match.groupdict())}'", one.what)
            what = what.replace(f"the layout {name}", "the layout of these rows")
            self.problems.append(replace(one, what=what))
        return Answered(converted, turns) if converted else None


def _has_roles(listed: Any) -> bool:
    """Whether it is a text or has turns as they are read here: lists of {"input", "output"} describe a row otherwise."""
    objects = [turn for turn in listed if isinstance(turn, dict)] if isinstance(listed, list) else []
    return not objects or any("role" in turn or "from" in turn for turn in objects)


def _texts(value: Any) -> list[str]:
    """Every text in a JSON value, the names of its keys left out."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]


def _stripped(part: _Turn) -> _Turn:
    return part._replace(turn=part.turn | {"content": part.text}) if part.is_text else part


def _last_asking(parts: Sequence[_Turn]) -> int:
    """The number of the last turn of the user; -1 for none."""
    return max((number for number, part in enumerate(parts) if part.role in ("user", "human")), default=-1)


def _without_answer(prompt: list[_Turn], answer: Sequence[_Turn]) -> list[_Turn]:
    """The prompt without the chosen answer at its end, which some data sets have in both places."""
    texts = [part.text for part in answer]
    return prompt[: -len(texts)] if [part.text for part in prompt[-len(texts) :]] == texts else prompt


def _as_sharegpt(part: _Turn) -> Any:
    if not part.is_text:
        return part.turn
    return {"from": {"user": "human", "assistant": "gpt"}[part.turn["role"]], "value": part.turn["content"]}
