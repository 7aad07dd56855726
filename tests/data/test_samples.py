"""What data/README.md shows and what data/samples/ holds is what the loaders take, and its commands run."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.command_line import run
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data import split_manifest
from slimtune.data.loading import load_conversations
from slimtune.data.preferences import load_preferences
from slimtune.datatools.build import question_sources
from slimtune.datatools.retrieval import corpus
from slimtune.evaluate import items

SAMPLES = ROOT / "data/samples"
README = (ROOT / "data/README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LAYOUTS = ("input_output", "messages", "alpaca", "sharegpt")
ROWS = {
    **{f"{layout}.jsonl": (layout, layout) for layout in LAYOUTS},
    "multiple_choice.jsonl": ("input_output", "multiple_choice"),
    "multiple_choice_cot.jsonl": ("input_output", "multiple_choice"),
    "split/multiple_choice.train.jsonl": ("input_output", "multiple_choice"),
    "split/multiple_choice.test.jsonl": ("input_output", "multiple_choice"),
    "split/multiple_choice_cot.train.jsonl": ("input_output", "multiple_choice"),
    "split/multiple_choice_cot.test.jsonl": ("input_output", "multiple_choice"),
}
QUESTIONS = {"questions.jsonl": 8, "lawqa.json": 3, "lawqa.csv": 3}


def accept_rows(path, layout):
    """That the loader takes the file, and as this layout."""
    loaded = load_conversations([(str(path), 1.0)])
    (report,) = loaded.files
    file = report.file
    assert file.layout == layout and report.used == file.rows >= 1 and not file.ignored and not file.nfc_changed
    return loaded.conversations


def accept(kind, path):
    """That what takes this kind of file takes this one."""
    if kind in LAYOUTS:
        accept_rows(path, kind)
    elif kind in ("multiple_choice", "evaluation"):
        assert all(one.choices and one.gold for one in items.read(accept_rows(path, "input_output"), "multiple_choice"))
    elif kind == "preferences":
        assert load_preferences([(str(path), 1.0)]).conversations
        with pytest.raises(SlimtuneError, match="these are preferences"):
            load_conversations([(str(path), 1.0)])
    elif kind in ("questions", "lawqa"):
        assert question_sources.read([str(path)], layout=kind).questions == question_sources.read([str(path)]).questions
    elif kind == "passages":
        problems = []
        assert corpus.read(str(path), problems) and not problems
    else:
        assert kind == "split" and set(json.loads(path.read_text("utf-8"))) == set(
            json.loads((SAMPLES / "split/split.json").read_text("utf-8"))
        )


@pytest.mark.parametrize(("language", "kind", "text"), [block for block in BLOCKS if block[0] != "sh"])
def test_every_example_of_the_readme_is_accepted(language, kind, text, tmp_path):
    path = tmp_path / f"example.{ {'markdown': 'md'}.get(language, language) }"
    path.write_text(text, encoding="utf-8")
    accept(kind, path)


def test_every_kind_has_an_example():
    found = {kind for _, kind, _ in BLOCKS if kind}
    assert found == {
        *LAYOUTS,
        "preferences",
        "multiple_choice",
        "evaluation",
        "questions",
        "lawqa",
        "passages",
        "split",
    }


@pytest.mark.parametrize("name", ROWS)
def test_samples_of_training_rows(name):
    layout, kind = ROWS[name]
    assert len(accept_rows(SAMPLES / name, layout)) >= 2
    accept(kind, SAMPLES / name)


@pytest.mark.parametrize("name", QUESTIONS)
def test_samples_of_questions(name):
    accept(name.split(".")[0], SAMPLES / name)
    assert len(question_sources.read([str(SAMPLES / name)]).questions) == QUESTIONS[name]


def test_preferences_and_corpus():
    accept("preferences", SAMPLES / "preferences.jsonl")
    problems = []
    passages = corpus.read(str(SAMPLES / "corpus"), problems)
    assert not problems and len(passages) == 9
    assert {Path(passage.where.rpartition(":")[0]).suffix for passage in passages} == {".jsonl", ".md", ".xml"}


def test_the_sample_of_a_split_is_as_the_command_writes_it(tmp_path):
    shutil.copytree(SAMPLES, tmp_path / "samples")
    files = [tmp_path / "samples" / name for name in ("multiple_choice.jsonl", "multiple_choice_cot.jsonl")]
    out = run("data", "split", *files, "--test", 2, "--out", tmp_path / "samples/split")
    assert out.code == 0 and "split.json: unchanged" in out.stdout
    manifest = split_manifest.read(SAMPLES / "split/split.json")
    assert set(split_manifest.split_of(manifest)) == {f"toshokan-{n:03d}" for n in range(1, 9)}


def test_no_sample_is_without_a_test_and_all_are_in_the_readme():
    files = {path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file()}
    rest = files - ROWS.keys() - QUESTIONS.keys() - {"preferences.jsonl", "split/split.json"}
    assert rest == {"corpus/guide.md", "corpus/passages.jsonl", "corpus/rules.xml"}
    top = {name for name in files if "/" not in name} | {"corpus/", "split/split.json"}
    assert not [name for name in top if f"samples/{name}" not in README]


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch):
    shutil.copytree(SAMPLES, tmp_path / "data/samples")
    monkeypatch.chdir(tmp_path)
    (script,) = [text for language, _, text in BLOCKS if language == "sh"]
    commands = [shlex.split(line) for line in script.splitlines() if line and not line.startswith("#")]
    assert len(commands) == 6
    for words in commands:
        assert words[0] == "slimtune"
        out = run(*words[1:])
        assert out.code == 0, out.stderr
    assert (tmp_path / "work/back.jsonl").read_bytes() == (tmp_path / "work/direct.jsonl").read_bytes()
