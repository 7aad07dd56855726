"""Prompts, splits without shared excerpts, and files that are the same on every run."""

import hashlib
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from scripts.law_files import build_files, choose_passages, render_question, split_questions
from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import load_conversations
from slimtune.data.questions import KEYS, Question


def question(number: int, *, label: str = "a", source: str = "民法", context: str | None = None) -> Question:
    return Question(
        id=f"q-{number:03d}",
        source=source,
        article=f"第{number}条",
        context=context or f"{source}\n第{number}条　本文{number}。",
        question=f"問題文{number}",
        choices={"a": "甲", "b": "乙", "c": "丙", "d": "丁"},
        correct=label,
        reasoning=f"理由{number}により、選択肢{label}が正しい。",
        path="q.jsonl",
        line=number,
    )


def questions(count: int) -> list[Question]:
    sources = ("民法", "刑法", "会社法")
    return [question(n, label="abcd"[n % 4], source=sources[n // 4 % 3]) for n in range(count)]


# --- prompts


def test_direct_prompt_by_hand():
    assert render_question(question(3, label="c"), mode="direct", rag=False) == {
        "input": (
            "日本の法令に関する次の問題に答えてください。\n\n"
            "【問題】\n問題文3\n\n"
            "【選択肢】\na. 甲\nb. 乙\nc. 丙\nd. 丁\n\n"
            "選択肢の記号1文字だけで答えてください。"
        ),
        "output": "c",
        "meta": {
            "id": "q-003",
            "mode": "direct",
            "rag": False,
            "choices": {"a": "甲", "b": "乙", "c": "丙", "d": "丁"},
            "correct": "c",
            "context": "民法\n第3条　本文3。",
            "source": "民法",
            "article": "第3条",
        },
    }


def test_cot_prompt_with_passages_by_hand():
    row = render_question(question(3, label="c"), mode="cot", rag=True, passages=["一", "二"])
    assert row["input"] == (
        "日本の法令に関する次の問題に答えてください。\n\n"
        "【参照条文】\n〔1〕\n一\n\n〔2〕\n二\n\n"
        "【問題】\n問題文3\n\n"
        "【選択肢】\na. 甲\nb. 乙\nc. 丙\nd. 丁\n\n"
        "根拠を述べてから、最後の行に「回答: 記号」の形で答えてください。"
    )
    assert row["output"] == "理由3により、選択肢cが正しい。\n回答: c"
    assert (row["meta"]["mode"], row["meta"]["rag"]) == ("cot", True)


def test_statutes_without_passages_are_the_questions_own():
    assert (
        "【参照条文】\n〔1〕\n民法\n第3条　本文3。\n\n【問題】"
        in render_question(question(3), mode="direct", rag=True)["input"]
    )


@pytest.mark.parametrize("mode", ["direct", "cot"])
@pytest.mark.parametrize("label", "abcd")
def test_the_prompt_does_not_depend_on_the_right_answer(mode, label):
    prompts = [render_question(question(1, label=right), mode=mode, rag=True)["input"] for right in (label, "a")]
    assert prompts[0] == prompts[1]
    assert not re.search(r"[a-d]\W*$", prompts[0])


def test_cot_needs_a_reasoning():
    bare = Question("x", "民法", "", "本文", "問い", {"a": "甲", "b": "乙"}, "a", path="q.jsonl", line=4)
    with pytest.raises(SlimtuneError, match=r"q\.jsonl:4: the question 'x' has no reasoning"):
        render_question(bare, mode="cot", rag=False)


# --- splits


def test_split_sizes_labels_and_sources():
    split = split_questions(questions(96), dev=0.125, test=0.25, seed=1)
    assert {name: len(part) for name, part in split.items()} == {"train": 60, "dev": 12, "test": 24}
    # 96 questions are 8 of each of the 12 pairs of label and source: 5, 1 and 2 of each pair.
    for part, each in zip(split.values(), (5, 1, 2), strict=True):
        assert set(Counter((one.correct, one.source) for one in part).values()) == {each}
    assert [one.id for one in split["train"]] == sorted(one.id for one in split["train"])


def test_split_depends_on_seed_but_not_on_order():
    given = questions(60)
    ids = {name: {one.id for one in part} for name, part in split_questions(given, dev=0.1, test=0.2, seed=1).items()}
    again = split_questions(given[::-1], dev=0.1, test=0.2, seed=1)
    assert {name: {one.id for one in part} for name, part in again.items()} == ids
    other = split_questions(given, dev=0.1, test=0.2, seed=2)
    assert {one.id for one in other["test"]} != ids["test"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.sampled_from("abcd"), st.sampled_from(["民法", "刑法"])),
        min_size=30,
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_no_context_is_in_two_splits(drawn, seed):
    # The first eight have contexts of their own, so that no split has to be empty.
    numbers = [n if n < 8 else number for n, (number, _, _) in enumerate(drawn)]
    given = [
        question(n, label=label, source=source, context=f"本文{' ' * (n % 2)}{number}")
        for n, (number, (_, label, source)) in enumerate(zip(numbers, drawn, strict=True))
    ]
    split = split_questions(given, dev=0.2, test=0.2, seed=seed)
    contexts = [{one.context.replace(" ", "") for one in part} for part in split.values()]
    assert sum(map(len, contexts)) == len(set.union(*contexts))
    assert sorted(one.id for part in split.values() for one in part) == [one.id for one in given]


def test_no_dev_set_and_impossible_shares():
    split = split_questions(questions(12), dev=0, test=0.25, seed=1)
    assert [len(part) for part in split.values()] == [9, 0, 3]
    for dev, test in [(0.5, 0.5), (-0.1, 0.2)]:
        with pytest.raises(SlimtuneError, match="shares of"):
            split_questions(questions(12), dev=dev, test=test, seed=1)
    with pytest.raises(SlimtuneError, match="too few"):
        split_questions(questions(2), dev=0.2, test=0.2, seed=1)
    shared = [question(n, context="同じ") for n in range(8)]
    with pytest.raises(SlimtuneError, match="is empty"):
        split_questions(shared, dev=0.2, test=0.2, seed=1)


# --- passages


def test_passages_are_of_the_same_source_and_split():
    split = questions(24)
    for one in split:
        passages = choose_passages(one, split, count=3, seed=7)
        assert len(set(passages)) == 3
        assert one.context in passages
        assert all(text.startswith(one.source) for text in passages)
    positions = Counter(choose_passages(one, split, count=3, seed=7).index(one.context) for one in split)
    assert set(positions) == {0, 1, 2}


def test_passages_of_other_sources_only_where_needed():
    split = [
        question(1),
        question(2),
        question(3, source="刑法"),
        question(4, source="刑法", context="民法\n第2条　本文2。"),
    ]
    passages = choose_passages(split[0], split, count=3, seed=1)
    assert sorted(passages) == sorted([one.context for one in split[:3]])
    assert choose_passages(split[0], split, count=1, seed=1) == [split[0].context]
    assert len(choose_passages(split[0], split, count=9, seed=1)) == 3


# --- files


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_files_hold_what_the_manifest_says(tmp_path):
    given = questions(48)
    written = build_files(given, tmp_path, dev=0.125, test=0.25, seed=5)
    assert {
        name: written[name] for name in ("direct_norag.train.jsonl", "cot_rag.dev.jsonl", "test_cot_rag.jsonl")
    } == {"direct_norag.train.jsonl": 30, "cot_rag.dev.jsonl": 6, "test_cot_rag.jsonl": 12}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*written, "split.json"])
    manifest = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert (manifest["seed"], manifest["dev"], manifest["test"]) == (5, 0.125, 0.25)
    assert {name: part["count"] for name, part in manifest["splits"].items()} == {"train": 30, "dev": 6, "test": 12}
    assert manifest["splits"]["test"]["labels"] == {"a": 3, "b": 3, "c": 3, "d": 3}
    assert manifest["splits"]["test"]["sources"] == {"会社法": 4, "刑法": 4, "民法": 4}

    excerpts: dict[str, set[str]] = {}
    for name, rows in written.items():
        part = "train" if ".train." in name else "dev" if ".dev." in name else "test"
        values = read(tmp_path / name)
        assert len(values) == rows
        assert [value["meta"]["id"] for value in values] == list(manifest["splits"][part]["ids"])
        assert {value["meta"]["mode"] for value in values} == {"cot" if "cot" in name else "direct"}
        assert {value["meta"]["rag"] for value in values} == {"_rag" in name}
        for value in values:
            found = set(re.findall(r"本文\d+。", value["input"]))
            assert len(found) == (3 if "_rag" in name else 0)
            excerpts.setdefault(part, set()).update(found)
    assert not excerpts["train"] & excerpts["test"]
    assert not excerpts["train"] & excerpts["dev"]
    assert not excerpts["dev"] & excerpts["test"]

    canonical = json.dumps(
        {key: getattr(given[0], key) for key in KEYS}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    ids = {key: value for part in manifest["splits"].values() for key, value in part["ids"].items()}
    assert ids["q-000"] == hashlib.sha256(canonical.encode()).hexdigest()


def test_a_second_run_gives_the_same_bytes(tmp_path):
    build_files(questions(48), tmp_path / "a", dev=0.125, test=0.25, seed=5)
    build_files(questions(48)[::-1], tmp_path / "b", dev=0.125, test=0.25, seed=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_files_load_as_training_data(tmp_path):
    build_files(questions(48), tmp_path, dev=0.125, test=0.25, seed=5)
    paths = [
        (str(tmp_path / f"{mode}_{rag}.train.jsonl"), 1.0) for mode in ("direct", "cot") for rag in ("norag", "rag")
    ]
    assert len(load_conversations(paths).conversations) == 4 * 30
    assert len(load_conversations(paths[:1], mode="direct").conversations) == 30


def test_faulty_questions_are_all_named(tmp_path):
    bare = Question("q-001", "民法", "", "本文", "問い", {"a": "甲", "b": "乙"}, "a", path="r.jsonl", line=2)
    with pytest.raises(SlimtuneError) as caught:
        build_files([*questions(8), bare], tmp_path, dev=0.1, test=0.2, seed=1)
    assert [problem.what for problem in caught.value.problems] == [
        "the id 'q-001' is used twice: q.jsonl:1 and r.jsonl:2",
        "the question 'q-001' has no reasoning, which the mode cot needs",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_files_are_what_the_command_builds(tmp_path, monkeypatch, capsys):
    """`python data/law/build.py`, run in a copy of its folder, gives the files that are in the tree."""
    law = ROOT / "data" / "law"
    copy = tmp_path / "data" / "law"
    (copy / "questions").mkdir(parents=True)
    for path in [law / "build.py", *(law / "questions").glob("*.jsonl")]:
        (copy / path.relative_to(law)).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(copy / "build.py"), run_name="__main__")
    assert done.value.code == 0
    assert "test_cot_rag.jsonl" in capsys.readouterr().out
    built = sorted(copy.glob("*.json*"))
    assert len(built) == 13
    for path in built:
        assert path.read_bytes() == (law / path.name).read_bytes(), f"{path.name}: run python data/law/build.py"


def test_the_command_names_what_is_wrong(tmp_path, monkeypatch, capsys):
    (tmp_path / "build.py").write_bytes((ROOT / "data" / "law" / "build.py").read_bytes())
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(tmp_path / "build.py"), run_name="__main__")
    assert done.value.code == 2
    assert "no question files" in capsys.readouterr().err
