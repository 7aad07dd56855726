"""The system prompts of a training set: missing in some rows, or different without a reason that shows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from slimtune.core.findings import Finding
from slimtune.core.units import plural
from slimtune.data.languages import language
from slimtune.data.records import Conversation
from slimtune.data.text import normalised

# Different prompts that are kept, and shown. Beyond the first number every row has its own.
_KEPT, _SHOWN = 1000, 3
# No prompt stands in so large a share of the rows: they were written row by row.
_OWN_SHARE = 0.1
_BEGINNING = 40
_JUDGED = 500  # characters of a question, to tell its language
_NONE = ""
_CODE = "system-prompts"
_MEANT = "nothing to do if you meant it"
_MODE, _LANGUAGE = "meta.mode", "the language of the question"


@dataclass(slots=True)
class _Uses:
    """first: the first row with a prompt. by: the rows of each mode, and of each language that they ask in."""

    first: str
    rows: int = 0
    by: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


@dataclass(slots=True)
class SystemPrompts:
    """Counts the system prompts of all rows of a training set."""

    _uses: dict[str, _Uses] = field(default_factory=dict)
    _more: int = 0

    def add(self, conversation: Conversation) -> None:
        messages = conversation.messages
        text = messages[0].content if messages[0].role == "system" else _NONE
        uses = self._uses.get(text)
        if uses is None:
            if len(self._uses) >= _KEPT:
                self._more += 1
                return
            uses = self._uses[text] = _Uses(conversation.where)
        uses.rows += 1
        asked = next((one.content for one in reversed(messages) if one.role == "user"), "")
        uses.by[_MODE][str(conversation.meta.get("mode"))] += 1
        uses.by[_LANGUAGE][language(asked[:_JUDGED]) or "unknown"] += 1

    def findings(self) -> list[Finding]:
        """Rows without a system prompt beside rows with one; several prompts. Notes where that seems to be meant."""
        found: list[Finding] = []
        given = sorted((one for one in self._uses.items() if one[0] != _NONE), key=lambda one: -one[1].rows)
        missing = self._uses.get(_NONE)
        if missing and given:
            found.append(self._missing(missing, [uses for _, uses in given]))
        if len(given) > 1:
            found.append(self._several(given))
        return found

    def _missing(self, missing: _Uses, given: Sequence[_Uses]) -> Finding:
        total = missing.rows + sum(uses.rows for uses in given) + self._more
        what = f"{missing.rows:,} of {plural(total, 'row')} have no system prompt; the others have one"
        what += f" (first: {_place(given[0], missing)})"
        merged = _Uses(given[0].first)
        for uses in given:
            for name, counts in uses.by.items():
                merged.by[name].update(counts)
        if by := _told_apart([missing, merged]):
            return Finding("note", f"{what}. They differ by {by}", _MEANT, missing.first, _CODE)
        fix = "give every row the same one; data.system in the recipe is the prompt of rows that have none"
        return Finding("warning", what, fix, missing.first, _CODE)

    def _several(self, given: Sequence[tuple[str, _Uses]]) -> Finding:
        uses = [one for _, one in given]
        rows, second = sum(one.rows for one in uses) + self._more, uses[1]
        if self._more or len(uses) == rows or uses[0].rows < _OWN_SHARE * rows:
            number = f"more than {len(uses):,}" if self._more else f"{len(uses):,}"
            what = f"{number} different system prompts in {plural(rows, 'row')}: rows have their own"
            return Finding("note", what, _MEANT, second.first, _CODE)
        told = [f"{_begin(text)} in {plural(one.rows, 'row')} (first: {_place(one, second)})" for text, one in given]
        more = [f"{len(told) - _SHOWN:,} more"] if len(told) > _SHOWN else []
        what = f"{len(uses):,} different system prompts: {'; '.join([*told[:_SHOWN], *more])}"
        if by := _told_apart(uses):
            return Finding("note", f"{what}. They differ by {by}", _MEANT, second.first, _CODE)
        if len({"".join(normalised(text, "NFKC").casefold().split()) for text, _ in given}) < len(given):
            what += ". Some differ in width, case or spacing only"
        fix = "write the one that the model will be asked with into every row"
        return Finding("warning", what, fix, second.first, _CODE)


def _told_apart(uses: Sequence[_Uses]) -> str:
    """What has other values in the rows of each of these: the mode, or the language of the question; else ""."""
    for name in (_MODE, _LANGUAGE):
        values = [one.by[name].keys() - {"unknown"} for one in uses]
        if all(values) and len(set().union(*values)) == sum(map(len, values)):
            return name
    return ""


def _place(uses: _Uses, beside: _Uses) -> str:
    """The first row with a prompt: its line alone where the finding stands in the same file."""
    path, _, line = uses.first.rpartition(":")
    return f"line {line}" if beside.first.rpartition(":")[0] == path else uses.first


def _begin(text: str) -> str:
    return repr(text if len(text) <= _BEGINNING else f"{text[:_BEGINNING]}…")
