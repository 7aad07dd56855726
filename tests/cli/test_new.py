"""`slimtune new`: what it shows, what it writes, and what it never does."""

import json
import re
from pathlib import Path

import pytest
import yaml
from support.command_line import run

TOPICS = re.findall(
    r"\w+",
    "registration tax opening moving closing inheritance sale gift import export production storage transport advertising "
    "hiring dismissal contract renewal cancellation lawsuit mediation arbitration bankruptcy merger division audit dividend",
)
ROWS = [
    (f"When must the {topic} be reported?", f"Report the {topic} within {n} days.") for n, topic in enumerate(TOPICS, 3)
]
TINY = ("--model", "builtin:tiny-qwen3")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("faq.csv", ("question", "answer"), *ROWS)
    return tmp_path


def write(name, *rows):
    lines = [",".join(f'"{cell}"' for cell in row) + "\n" for row in rows]
    Path(name).write_text("".join(lines), encoding="utf-8")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_table_becomes_a_recipe_its_data_and_the_next_command(folder):
    done = run("new", "faq.csv", *TINY)
    assert done.code == 0, done.stderr
    assert set(files(folder)) == {
        "faq.csv", "recipes/faq.yaml",
        *(f"data/faq/{name}" for name in ("train.jsonl", "dev.jsonl", "test.jsonl", "split.json")),
    }  # fmt: skip
    for said in ("Fits: ", "Time: ", "Download: none", "user: When must", "Next: python train_unsloth.py --recipe"):
        assert said in done.stdout
    recipe = yaml.safe_load((folder / "recipes/faq.yaml").read_text("utf-8"))
    assert recipe["evaluate"] == {"data": "data/faq/test.jsonl", "kind": "generation", "max_new_tokens": 64}
    command = re.search("Next: python train_unsloth.py (.*)", done.stdout)[1].split()
    planned = run("plan", command[1])
    assert planned.code == 0, planned.stderr
    written = files(folder)
    assert "Unchanged" in run("new", "faq.csv", *TINY).stdout
    assert files(folder) == written
    (folder / "recipes/faq.yaml").write_text("name: mine\n", encoding="utf-8")
    refused = run("new", "faq.csv", *TINY)
    assert refused.code == 2 and "--name" in refused.stderr
    assert (folder / "recipes/faq.yaml").read_text("utf-8") == "name: mine\n"
    assert run("new", "faq.csv", *TINY, "--overwrite").code == 0
    assert files(folder) == written


def test_a_dry_run_and_a_refusal_write_nothing(folder):
    before = files(folder)
    assert run("new", "faq.csv", "--vram-gb", "8", "--dry-run").code == 0
    for code, *arguments in (
        (2, "faq.csv", "--name", "Not A Name"), (2, "faq.csv", "--map", "x"), (2, "faq.csv", "--sheet", "x"),
        (2, "faq.csv", "--model", "nowhere"), (2, "no.csv"), (2, "."), (3, "faq.csv", "--vram-gb", "1.1"), (2, "faq.csv", "--vram-gb", "nan"),
        (2, "org/name"), (2, "faq.csv", "--model", "builtin:other"),
    ):  # fmt: skip
        done = run("new", *arguments)
        assert (done.code, done.stderr.count("error: ")) == (code, 1), (arguments, done.stderr)
    assert files(folder) == before and not (folder / "data").exists()


def test_foreign_files_are_told_all_at_once_and_kept(folder):
    for name in ("recipes/faq.yaml", "data/faq/train.jsonl", "data/faq/split.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine", encoding="utf-8")
    before = files(folder)
    done = run("new", "faq.csv", *TINY)
    assert done.code == 2 and done.stderr.count("the file exists already") == 3
    assert files(folder) == before


def test_a_file_is_never_its_own_output(folder):
    (folder / "data/faq").mkdir(parents=True)
    (folder / "faq.csv").rename(folder / "data/faq/test.jsonl")
    rows = "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ROWS)
    (folder / "data/faq/test.jsonl").write_text(rows, encoding="utf-8")
    done = run("new", "data/faq/test.jsonl", "--name", "faq", *TINY, "--overwrite")
    assert done.code == 2 and "is also an input" in done.stderr


@pytest.mark.parametrize("vram, size", [(24, "14B"), (10, "8B"), (6, "4B")])
def test_the_largest_model_that_fits_the_card_is_chosen(vram, size):
    done = run("new", "faq.csv", "--vram-gb", vram, "--dry-run")
    assert done.code == 0 and f"Qwen3-{size}-" in done.stdout


def test_code_gets_a_model_for_code():
    write("code.csv", ("question", "answer"), *((q, f"```python\n{a}\n```") for q, a in ROWS))
    assert "Coder-7B" in run("new", "code.csv", "--vram-gb", "10", "--dry-run").stdout


def test_the_goal_decides_how_replies_are_judged(folder):
    write("labels.csv", ("text", "label"), *((q, "even" if n % 2 else "odd") for n, (q, _) in enumerate(ROWS)))
    for name, goal, said in (("faq", "style", "kind: perplexity"), ("labels", "classify", "max_new_tokens: 64")):
        done = run("new", f"{name}.csv", "--goal", goal, *TINY)
        assert done.code == 0, done.stderr
        assert said in (folder / f"recipes/{name}.yaml").read_text("utf-8")


@pytest.mark.parametrize(("goal", "rate"), [(None, "1e-4"), ("classify", "1e-4"), ("answer", "2e-4"), ("chat", "2e-4")])
def test_few_answers_are_labels_unless_the_goal_says_that_they_are_texts(folder, goal, rate):
    write("labels.csv", ("question", "answer"), *((q, "even" if n % 2 else "odd") for n, (q, _) in enumerate(ROWS)))
    done = run("new", "labels.csv", *(("--goal", goal) if goal else ()), "--vram-gb", "10")
    assert done.code == 0, done.stderr
    recipe = (folder / "recipes/labels.yaml").read_text("utf-8")
    assert f"learning_rate: {rate}" in recipe


def test_rows_that_no_model_reads_are_left_out(folder):
    write("long.csv", ("question", "answer"), *ROWS, ("Long?", "word " * 9000))
    done = run("new", "long.csv", *TINY)
    assert done.code == 0 and "1 row of more than 2,048 tokens (line 29)" in done.stdout


def test_chats_of_several_answers_become_a_recipe(folder):
    again = [{"role": "user", "content": "And then?"}, {"role": "assistant", "content": "That is all."}]
    chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}, *again] for q, a in ROWS]
    lines = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
    (folder / "chats.jsonl").write_text(lines, encoding="utf-8")
    done = run("new", "chats.jsonl", *TINY)
    assert done.code == 0, done.stderr
    assert "27 conversations" in done.stdout and (folder / "data/chats/test.jsonl").exists()
