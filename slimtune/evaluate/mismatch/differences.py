"""What of an evaluation file the training rows do not have, trait by trait. No torch."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from slimtune.core.units import plural
from slimtune.data.languages import IN_LATIN, LATIN
from slimtune.evaluate.mismatch import traits
from slimtune.evaluate.mismatch.traits import Traits

# A value that fewer of the training rows have than this is foreign to them, and worth a word from so many questions on.
RARE, WORTH_A_WORD = 0.05, 0.2
# The style of answers varies, so that only files that are each of one style are called different.
OF_ONE_STYLE, FEWEST_STYLED = 0.8, 5
_TIMES_AS_LONG = 10
_TITLES = {
    "other-task": "another kind of task",
    "other-answers": "another kind of answer",
    "other-turns": "another kind of conversation",
    "other-language": "another language",
    "other-answer-language": "another language of answers",
    "other-reasoning": "another style of answers",
    "other-markdown": "another style of answers",
    "other-ending": "another style of answers",
    "other-length": "another length of answers",
    "other-system-prompt": "another system prompt",
    "other-layout": "another form of choices",
    "other-prompt": "another form of prompt",
}
_SHOWN_LINES, _SHOWN, _PLACES = 2, 60, 3


@dataclass(frozen=True, slots=True)
class Difference:
    """code: its kind. what: a clause with counts and example lines. places: of the questions that differ."""

    code: str
    what: str
    places: tuple[str, ...]


def between(train: Sequence[Traits], test: Sequence[Traits], *, answers: bool) -> list[Difference]:
    """How the rows of `test` differ from those of `train`; what follows from another difference is not told.

    answers: whether the answers of `test` are what a model's are compared with.
    """
    if not train or not test:
        return []
    found: list[Difference] = []

    def seen(*differences: Difference | None) -> bool:
        found.extend(one for one in differences if one)
        return any(differences)

    other_task = seen(_foreign("other-task", train, test, lambda row: row.asks, "are {}"))
    other_answer = (
        answers and not other_task and seen(_foreign("other-answers", train, test, _answer, "answer with {}"))
    )
    seen(_foreign("other-turns", train, test, lambda row: row.turns, "are {}"))
    other_language = seen(_language("other-language", train, test, lambda row: row.prompt_language, "ask in {}"))
    if answers and not other_task and not other_answer:
        if not other_language:
            seen(_language("other-answer-language", train, test, lambda row: row.answer_language, "answer in {}"))
        if not seen(_foreign("other-reasoning", train, test, _reasoning, "{}")):
            seen(_style("other-markdown", train, test, _markdown), _style("other-ending", train, test, _ending))
            seen(_length(train, test))
    seen(_system(train, test))
    if not other_task and not other_language:
        seen(_foreign("other-layout", train, test, lambda row: row.listing or None, "list their choices as '{}'"))
        seen(_prompt(train, test))
    return [replace(one, what=f"{_TITLES[one.code]}: {one.what}") for one in found]


def _answer(row: Traits) -> str:
    return traits.TEXT if row.answer == traits.CHOICE else row.answer


def _reasoning(row: Traits) -> str:
    return "reason before they answer" if row.reasoning else "answer without reasoning"


def _markdown(row: Traits) -> str | None:
    return None if row.answer not in (traits.TEXT, traits.CHOICE) else "Markdown" if row.markdown else "plain text"


def _ending(row: Traits) -> str | None:
    return None if row.sentence is None else "with a full stop" if row.sentence else "without a full stop"


def _foreign(
    code: str, train: Sequence[Traits], test: Sequence[Traits], trait: Callable[[Traits], str | None], clause: str
) -> Difference | None:
    """Questions whose value few training rows have; rows that have none are not counted."""
    trained = Counter(value for row in train if (value := trait(row)) is not None)
    asked = [(value, row) for row in test if (value := trait(row)) is not None]
    few = RARE * trained.total()
    foreign = [(value, row) for value, row in asked if trained[value] < few]
    # A single row among others is chance.
    if not trained or len(foreign) < max(WORTH_A_WORD * len(asked), min(2, len(asked)), 1):
        return None
    value = Counter(value for value, _ in foreign).most_common(1)[0][0]
    rows = [row for one, row in foreign if one == value]
    usual = trained.most_common(1)[0]
    what = f"{len(rows)} of {plural(len(asked), 'evaluation row')} {clause.format(value)} ({places([row.where for row in rows])}), but "
    what += f"only {trained[value]} training rows do; " if trained[value] else "no training row does; "
    what += f"{usual[1]} of {plural(trained.total(), 'training row')} {clause.format(usual[0])}"
    return Difference(code, what, tuple(row.where for row in rows))


def _language(
    code: str, train: Sequence[Traits], test: Sequence[Traits], trait: Callable[[Traits], str | None], clause: str
) -> Difference | None:
    """As `_foreign`. A text that is only known to be in Latin script may be in any language that the other side has."""

    def script(row: Traits) -> str | None:
        return LATIN if trait(row) in IN_LATIN else trait(row)

    def clear(row: Traits) -> str | None:
        return None if trait(row) == LATIN else trait(row)

    if found := _foreign(code, train, test, script, clause):
        named = Counter(name for row in (*train, *test) if (name := trait(row)) in IN_LATIN).most_common(1)
        return replace(found, what=found.what.replace(LATIN, str(named[0][0]))) if named else found
    return _foreign(code, train, test, clear, clause)


def _style(
    code: str, train: Sequence[Traits], test: Sequence[Traits], trait: Callable[[Traits], str | None]
) -> Difference | None:
    """Two files that are each of one style, but not of the same."""
    sides = [Counter(value for row in rows if (value := trait(row)) is not None) for rows in (train, test)]
    if any(side.total() < FEWEST_STYLED for side in sides):
        return None
    (trained, often), (asked, count) = (side.most_common(1)[0] for side in sides)
    one_style = often >= OF_ONE_STYLE * sides[0].total() and count >= OF_ONE_STYLE * sides[1].total()
    if trained == asked or not one_style:
        return None
    rows = [row for row in test if trait(row) == asked]
    verb = "end" if code == "other-ending" else "are"
    what = f"{count} of {sides[1].total()} answers of the evaluation {verb} {asked} ({places([row.where for row in rows])}), and "
    what += f"{often} of {sides[0].total()} of the training {verb} {trained}"
    return Difference(code, what, tuple(row.where for row in rows))


def _length(train: Sequence[Traits], test: Sequence[Traits]) -> Difference | None:
    sides = [[row for row in rows if row.answer == traits.TEXT and row.size] for rows in (train, test)]
    if any(len(side) < FEWEST_STYLED for side in sides):
        return None
    trained, asked = (median(row.size for row in side) for side in sides)
    if max(trained, asked) < _TIMES_AS_LONG * min(trained, asked):
        return None
    rows = sorted(sides[1], key=lambda row: row.size, reverse=asked > trained)
    which = "longer" if asked > trained else "shorter"
    times = max(trained, asked) / min(trained, asked)
    what = f"the answers of the evaluation are {times:.0f} times {which} than those of the training: {asked:,.0f} and "
    what += f"{trained:,.0f} bytes in the middle ({places([row.where for row in rows])})"
    return Difference("other-length", what, tuple(row.where for row in rows))


def system_prompts(rows: Sequence[Traits]) -> Counter[str]:
    """How many rows have each system prompt; "" for none."""
    return Counter(row.system for row in rows)


def _system(train: Sequence[Traits], test: Sequence[Traits]) -> Difference | None:
    trained, asked = system_prompts(train), system_prompts(test)
    several = trained.most_common(1)[0][1] < len(train) / 2
    if several:
        # Each row has its own: what counts is whether there is one.
        asked = Counter({"": asked[""], "one": asked.total() - asked[""]})
        trained = Counter({"": trained[""], "one": trained.total() - trained[""]})
    few = RARE * len(train)
    foreign = {value: count for value, count in asked.items() if count and trained[value] < few}
    if sum(foreign.values()) < max(WORTH_A_WORD * len(test), min(2, len(test))) or not foreign:
        return None
    value = max(foreign, key=lambda one: foreign[one])
    rows = [row for row in test if (bool(row.system) == bool(value) if several else row.system == value)]
    usual, often = trained.most_common(1)[0]

    def shown(text: str) -> str:
        return "no system prompt" if not text else "a system prompt" if several else f"the system prompt {_short(text)}"

    what = f"{len(rows)} of {plural(len(test), 'evaluation row')} have {shown(value)} ({places([row.where for row in rows])}), and {often} of "
    what += f"{plural(len(train), 'training row')} have {shown(usual)}"
    return Difference("other-system-prompt", what, tuple(row.where for row in rows))


def _prompt(train: Sequence[Traits], test: Sequence[Traits]) -> Difference | None:
    """Lines that nearly every prompt of one file has, and nearly none of the other."""
    if len(train) < FEWEST_STYLED or len(test) < FEWEST_STYLED:
        return None
    sides = [Counter(line for row in rows for line in row.lines) for rows in (train, test)]
    told = []
    for here, there, rows, others, name in (
        (sides[1], sides[0], test, train, "evaluation"),
        (sides[0], sides[1], train, test, "training"),
    ):
        own = [
            line
            for line, count in here.items()
            if count >= OF_ONE_STYLE * len(rows) and there[line] < RARE * len(others)
        ]
        # A heading within a line of its own says the same as the line.
        own = sorted(one for one in own if not any(one != line and line.startswith(one) for line in own))
        if own:
            own.sort(key=len, reverse=True)
            listed = " and ".join(map(_short, own[:_SHOWN_LINES]))
            told.append(f"{here[own[0]]} of {len(rows)} prompts of the {name} have {listed}")
    if not told:
        return None
    other = "the training" if " of the evaluation have " in told[0] else "the evaluation"
    what = ", and ".join(told) if len(told) > 1 else f"{told[0]}, and those of {other} do not"
    return Difference(
        "other-prompt", f"{what} ({places([row.where for row in test])})", tuple(row.where for row in test)
    )


def places(rows: Sequence[str]) -> str:
    """ "first at data/test.jsonl:3, 5 and 8"."""
    first, *others = rows[:_PLACES]
    path = first.rpartition(":")[0]
    lines = [one.removeprefix(f"{path}:") for one in others]
    return f"at {first}" + "".join(f", {line}" for line in lines) + (", …" if len(rows) > _PLACES else "")


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return f"'{shown}'" if len(shown) <= _SHOWN else f"'{shown[:_SHOWN]}…'"
