from __future__ import annotations

from slimtune.data.records import Conversation, Message
from slimtune.datatools.check.text.languages import Languages

JAPANESE = "日本の法令に関する次の問題に答えてください。"
ENGLISH = "Please answer the following question about the law."
CHINESE = "請問根據日本法律未成年人締結契約時是否需要法定代理人的事先同意才能生效"


def counted(*pairs: tuple[str, str]) -> Languages:
    languages = Languages()
    for line, (prompt, output) in enumerate(pairs, start=1):
        languages.add(Conversation((Message("user", prompt), Message("assistant", output)), {}, "rows.jsonl", line))
    return languages


def test_a_row_that_changes_the_language() -> None:
    same = [(JAPANESE, JAPANESE)] * 8
    found = counted(*same, (JAPANESE, ENGLISH), (JAPANESE, CHINESE)).findings("rows.jsonl")
    assert [(finding.code, finding.where) for finding in found] == [
        ("language-differs", "rows.jsonl:9"),
        ("language-differs", "rows.jsonl:10"),
    ]
    assert found[0].what.startswith("the prompt is in Japanese, the output in Latin script;")


def test_files_that_always_change_it_or_were_asked_to() -> None:
    assert counted(*[(JAPANESE, ENGLISH)] * 10).findings("rows.jsonl") == []
    asked = ("次の文を英語に訳してください。「日本の法令に関する問題です」", ENGLISH)
    assert counted(*[(JAPANESE, JAPANESE)] * 9, asked).findings("rows.jsonl") == []


def test_labels_and_code_have_no_language() -> None:
    code = "```python\nfor letter in letters_of_the_word: print(letter)\n```"
    assert counted(*[(JAPANESE, JAPANESE)] * 9, (JAPANESE, "a"), (JAPANESE, code)).findings("rows.jsonl") == []


def test_a_file_in_two_languages() -> None:
    (finding,) = counted(*[(JAPANESE, "a")] * 3, (ENGLISH, "b")).findings("rows.jsonl")
    assert (finding.level, finding.code, finding.where) == ("note", "mixed-languages", "rows.jsonl")
    assert "Japanese 3, Latin script 1 rows" in finding.what
