"""`slimtune compare` writes into a folder of its own, and looks at it before it asks anybody."""

import json
from pathlib import Path

import pytest
from support.answer_rows import answers, items
from support.paths import ROOT

from slimtune.core.console import Console
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.evaluate import comparison
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.targets import opening

GOLD = "abcd" * 5
NAMES = ["comparison.html", "comparison.json", "comparison.md"]
FOREIGN = "somebody's work"
QUESTIONS = str(ROOT / "data/quickstart/test.jsonl")


@pytest.fixture
def places(tmp_path):
    found = []
    for name, right in (("first", range(10)), ("second", range(5, 20))):
        path = tmp_path / f"{name}.jsonl"
        rows = items(GOLD, answers(GOLD, right), labels=list("abcd"))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found.append(str(path))
    return found


def compare(places, out, **options):
    given = {"max_items": None, "judge": None, "as_html": lambda result: "<page>", "on_progress": Console()} | options
    return comparison.write(places, given.pop("data", None), given.pop("settings", Settings()), out=out, **given)


def test_a_comparison_is_replaced_by_another_and_what_is_not_ours_stays(places, tmp_path):
    folder, result = compare(places, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    written = json.loads((folder / "comparison.json").read_text("utf-8"))
    assert written["files"] == ["comparison.html", "comparison.md"]
    assert written["contenders"] == result["contenders"]
    (folder / "notes.md").write_text(FOREIGN, encoding="utf-8")
    compare(places[::-1], folder)
    again = json.loads((folder / "comparison.json").read_text("utf-8"))
    assert [one["name"] for one in again["contenders"]] == ["second", "first"]
    assert (folder / "notes.md").read_text("utf-8") == FOREIGN


def test_a_comparison_of_an_earlier_version_is_known(places, tmp_path):
    folder, _ = compare(places, tmp_path / "out")
    content = json.loads((folder / "comparison.json").read_text("utf-8"))
    del content["files"], content["made_by"]
    (folder / "comparison.json").write_text(json.dumps(content), encoding="utf-8")
    compare(places, folder)
    assert json.loads((folder / "comparison.json").read_text("utf-8"))["files"] == ["comparison.html", "comparison.md"]


@pytest.mark.parametrize("name", [*NAMES, "other.txt", "judgements-second.jsonl"])
@pytest.mark.parametrize("content", [FOREIGN, "{}", '{"files": ["other.txt"]}'])
def test_a_folder_that_is_not_ours_is_refused_before_anybody_is_asked(places, tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("asked"))
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(content, encoding="utf-8")
    with pytest.raises(SlimtuneError, match="holds files that Slimtune did not write"):
        compare(places, out, judge="http://127.0.0.1:1#m")
    assert (out / name).read_text("utf-8") == content
    assert [path.name for path in out.iterdir()] == [name]


def test_a_name_that_somebody_else_took_is_refused(places, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("asked"))
    out, _ = compare(places, tmp_path / "out")
    taken = out / "judgements-second.jsonl"
    taken.write_text(FOREIGN, encoding="utf-8")
    with pytest.raises(SlimtuneError, match=r"judgements-second\.jsonl: Slimtune needs this name"):
        compare(places, out, judge="http://127.0.0.1:1#m")
    assert taken.read_text("utf-8") == FOREIGN


def test_answers_in_the_folder_are_not_written_over(places, tmp_path):
    out, _ = compare(places, tmp_path / "out")
    for link in (Path.symlink_to, Path.hardlink_to):
        (out / "comparison.md").unlink()
        link(out / "comparison.md", Path(places[0]))
        with pytest.raises(SlimtuneError, match="also an input of this command"):
            compare(places, out)


def test_one_contender_is_too_few_before_it_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("asked"))
    with pytest.raises(SlimtuneError, match="a comparison needs two or more"):
        compare(["http://127.0.0.1:1#m"], tmp_path / "out", data="data/quickstart/test.jsonl")


def test_judgements_on_names_that_become_the_same_have_files_of_their_own():
    assert comparison._judgements(["a b", "a-b", "c", "a/b"]) == [
        "judgements-a-b-1.jsonl",
        "judgements-a-b-2.jsonl",
        "judgements-c-3.jsonl",
        "judgements-a-b-4.jsonl",
    ]
    assert comparison._judgements(["a", "b"]) == ["judgements-a.jsonl", "judgements-b.jsonl"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data": QUESTIONS}, "none of these answers is to a question of --data"),
        ({"data": QUESTIONS, "settings": Settings(kind="generation")}, "answers of kind multiple_choice"),
        ({"data": QUESTIONS, "judge": "http://127.0.0.1:1#m"}, "--judge: a judge compares free answers"),
        ({"data": QUESTIONS, "max_items": 10**6}, "you asked for 1000000 items"),
    ],
)
def test_what_cannot_be_compared_is_told_before_anybody_is_asked(places, tmp_path, monkeypatch, change, told):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("opened"))
    with pytest.raises(SlimtuneError) as caught:
        compare([places[0], "builtin:tiny-qwen3"], tmp_path / "out", **change)
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_judge_that_does_not_answer_is_told_before_anybody_is_asked(tmp_path, monkeypatch):
    opened = []

    def nobody(spec, loading):
        opened.append(spec.place)
        raise SlimtuneError(Problem("nobody answers", spec.place))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "open_target", nobody)
    with pytest.raises(SlimtuneError, match="nobody answers"):
        compare(
            ["builtin:tiny-qwen3", "http://127.0.0.1:2#other"],
            tmp_path / "out",
            data=QUESTIONS,
            settings=Settings(kind="generation", max_new_tokens=8),
            judge="http://127.0.0.1:1#m",
        )
    assert opened == ["http://127.0.0.1:1"]
