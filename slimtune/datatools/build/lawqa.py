"""Reader for `selection.json` of lawqa_jp, the Digital Agency of Japan's multiple-choice questions on statutes.

Format: {"samples": [{ファイル名, コンテキスト, 問題文, 指示, 選択肢, output, references}]}, see
https://github.com/digital-go-jp/lawqa_jp (public data licence PDL 1.0). 選択肢 is one string of lines "a …", "b …".
"""

import re
from collections import Counter
from collections.abc import Iterable

from slimtune.core.errors import Problem
from slimtune.data.json_rows import Row, type_name
from slimtune.data.questions import LABELS, Question, choice_faults
from slimtune.data.text import faults, normalised

_TEXTS = ("ファイル名", "コンテキスト", "問題文", "選択肢", "output")
_ARTICLE = re.compile(r"^### *(第.+?条.*?) *$", re.MULTILINE)


def is_lawqa(row: Row) -> bool:
    """Whether a row has the keys of a sample."""
    return all(key in row.value for key in _TEXTS)


def from_rows(rows: Iterable[Row], path: str, problems: list[Problem]) -> list[Question]:
    """The questions of rows; what is wrong with the others is added to `problems`. They have no reasoning.

    id: ファイル名, with "-2", "-3" … where one is repeated. source: the law with which ファイル名 begins. article: the first
    one in the context's headings ("第5条"), or "".
    """
    seen: Counter[str] = Counter()
    found = [_question(row, path, seen, problems) for row in rows]
    return [question for question in found if question]


def parse_choices(text: str) -> dict[str, str]:
    """Lines "a …" to label and text; a line that begins with no further label continues the choice above it.

    Text before the first label is under the key "", so that it shows as a wrong label.
    """
    choices: dict[str, str] = {}
    label = ""
    for line in text.strip().split("\n"):
        following = LABELS[len(choices) : len(choices) + 1]
        if following and re.match(rf"{following}[ \u3000.．]", line):
            label = following
            choices[label] = line[2:].strip()
        else:
            choices[label] = f"{choices.get(label, '')}\n{line}".strip()
    return choices


def _question(row: Row, path: str, seen: Counter[str], problems: list[Problem]) -> Question | None:
    known = len(problems)
    where = f"{path}:{row.line}"
    texts: dict[str, str] = {}
    for key in _TEXTS:
        value = row.value.get(key)
        if not isinstance(value, str):
            what = f"'{key}' is {type_name(value)}, not a string" if key in row.value else f"'{key}' is missing"
            problems.append(Problem(what, where, f"a sample has the strings {', '.join(_TEXTS)}"))
            continue
        texts[key] = normalised(value)
        problems += [Problem(f"'{key}' {what}", where, fix) for what, fix in faults(texts[key], "user")]
    if len(problems) > known:
        return None

    choices = parse_choices(texts["選択肢"])
    correct = texts["output"].strip()
    problems += [Problem(f"選択肢: {what}", where, fix) for what, fix in choice_faults(choices, correct)]
    if len(problems) > known:
        return None
    name = texts["ファイル名"]
    article = _ARTICLE.search(texts["コンテキスト"])
    seen[name] += 1
    return Question(
        id=name if seen[name] == 1 else f"{name}-{seen[name]}",
        source=name.split("_", 1)[0],
        article=article[1] if article else "",
        context=texts["コンテキスト"],
        question=texts["問題文"],
        choices=choices,
        correct=correct,
        path=path,
        line=row.line,
    )
