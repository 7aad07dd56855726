"""Reader for `selection.json` of lawqa_jp, the Digital Agency of Japan's multiple-choice questions on statutes.

Format: {"samples": [{ファイル名, コンテキスト, 問題文, 指示, 選択肢, output, references}]}, see
https://github.com/digital-go-jp/lawqa_jp (public data licence PDL 1.0). 選択肢 is one string of lines "a …", "b …".
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from slimtune.core.errors import Problem
from slimtune.data.json_rows import Row
from slimtune.data.questions import LABELS, Question, checked_text, choice_faults

_TEXTS = ("ファイル名", "コンテキスト", "問題文", "選択肢", "output")
_ARTICLE = re.compile(r"^### *(第[^\n]+?条[^\n]*)", re.MULTILINE)


def is_lawqa(row: Row) -> bool:
    return all(key in row.value for key in _TEXTS)


def from_rows(rows: Iterable[Row], path: str, problems: list[Problem]) -> list[Question]:
    """The questions, without reasoning; faults of rows go into `problems`.

    id: ファイル名, with "-2", "-3" … if it is repeated. source: the law with which ファイル名 begins. article: the first one
    in the context's headings ("第5条"), or "".
    """
    seen: Counter[str] = Counter()
    found = []
    for question in filter(None, (_question(row, path, problems) for row in rows)):
        seen[question.id] += 1
        again = f"-{seen[question.id]}" if seen[question.id] > 1 else ""
        found.append(replace(question, id=question.id + again))
    return found


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


def _question(row: Row, path: str, problems: list[Problem]) -> Question | None:
    known = len(problems)

    def report(what: str, fix: str) -> None:
        problems.append(Problem(what, f"{path}:{row.line}", fix))

    for key in _TEXTS:
        if key not in row.value:
            report(f"'{key}' is missing", f"a sample has the strings {', '.join(_TEXTS)}")
    texts = {key: checked_text(row.value[key], f"'{key}'", report) for key in _TEXTS if key in row.value}
    if len(problems) > known:
        return None
    choices, correct = parse_choices(texts["選択肢"]), texts["output"].strip()
    for what, fix in choice_faults(choices, correct):
        report(f"選択肢: {what}", fix)
    if len(problems) > known:
        return None
    name, context = texts["ファイル名"], texts["コンテキスト"]
    article = _ARTICLE.search(context)
    return Question(
        id=name,
        source=name.split("_", 1)[0],
        article=article[1].rstrip(" ") if article else "",
        context=context,
        question=texts["問題文"],
        choices=choices,
        correct=correct,
        path=path,
        line=row.line,
    )
