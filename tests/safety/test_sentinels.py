"""Every command among other people's files: nothing is lost, whatever its outputs are pointed at.

Each output option is pointed at a file and a folder that exist, the command's own inputs and links to them, places that
cannot be written, and a full disk. Everything below the working directory and the home folder is compared before and after.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import unprivileged
from support.answer_rows import answers, items
from support.api_server import ApiServer, chat, models
from support.command_line import run
from support.disks import full_disk
from support.paths import ROOT
from support.sentinels import PLACES, WORK, changed, ends, plant, refused, tree

NOBODY = "http://127.0.0.1:1"
"""A server that nobody runs: whoever is refused before it is asked is not told so."""
GOLD = "abcd" * 3
RECIPE = """\
name: sentinels
model: {base: "builtin:tiny-qwen3", max_seq_length: 256}
data: {train: [{path: train.jsonl}], eval: other.jsonl}
"""


@dataclass(frozen=True)
class Command:
    """arguments: without its output. inputs: files that it reads. forced: what allows it to replace. makes: files beside
    the named one that it writes."""

    arguments: tuple[str, ...]
    option: str
    inputs: tuple[str, ...]
    suffix: str = ""
    forced: tuple[str, ...] = ("--overwrite",)
    makes: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        return not self.suffix

    def to(self, output: Path | str, *more: str, server: str = NOBODY) -> tuple[str, ...]:
        return (*(part.replace(NOBODY, server) for part in self.arguments), self.option, str(output), *more)


def _data(name: str, *arguments: str, inputs: tuple[str, ...] = ("train.jsonl",), **more: tuple[str, ...]) -> Command:
    return Command(("data", name, *arguments), "-o", inputs, ".jsonl", **more)


TEACHER = ("--mode", "cot", "--reasoning", "teacher", "--teacher", f"{NOBODY}#m")
EVALUATED = ("evaluate", f"{NOBODY}#m", "--data", "test.jsonl", "--max-items", "4")
COMPARED = ("compare", "kept/first.jsonl", "kept/second.jsonl")
COMMANDS = {
    "data build": _data("build", "q.csv", "--mode", "direct", inputs=("q.csv",)),
    "data build, corpus": _data(
        *("build", "q.csv", "--mode", "direct", "--context", "retrieved", "--corpus", "corpus", "--no-cache"),
        inputs=("q.csv", "corpus/law.md"),
    ),
    "data build, teacher": _data("build", "q.csv", *TEACHER, inputs=("q.csv",), makes=(".teacher.jsonl",)),
    "data mix": _data("mix", "train.jsonl=0.5", "--general", "other.jsonl", inputs=("train.jsonl", "other.jsonl")),
    "data export": _data("export", "train.jsonl", "--to", "sharegpt"),
    "data import": _data("import", "train.jsonl"),
    "data preview": Command(
        ("data", "preview", "-r", "recipe.yaml", "-n", "1"), "--html", ("train.jsonl", "recipe.yaml"), ".html"
    ),
    "data check": Command(
        ("data", "check", "train.jsonl", "--against", "other.jsonl"), "--plot", ("train.jsonl", "other.jsonl"), ".png"
    ),
    "plan": Command(("plan", "recipe.yaml", "--vram-gb", "10"), "--plot", ("recipe.yaml", "train.jsonl"), ".png"),
    "rescore": Command(("rescore", "replies.jsonl"), "--output", ("replies.jsonl",), ".jsonl"),
    "evaluate": Command(EVALUATED, "--out", ("test.jsonl",), forced=("--fresh",)),
    "compare": Command(COMPARED, "--out", ("kept/first.jsonl", "kept/second.jsonl"), forced=()),
    "compare, judge": Command(
        (*COMPARED, "--judge", f"{NOBODY}#m"), "--out", ("kept/first.jsonl", "kept/second.jsonl"), forced=()
    ),
    "compare, data": Command(
        ("compare", f"{NOBODY}#m", f"{NOBODY}#n", "--data", "test.jsonl"), "--out", ("test.jsonl",), forced=()
    ),
    "ensemble": Command(
        ("ensemble", "one", "two", "--data", "test.jsonl"), "--out", ("test.jsonl",), forced=("--fresh",)
    ),
}
FILES = [name for name, command in COMMANDS.items() if not command.is_folder]
FOLDERS = [name for name, command in COMMANDS.items() if command.is_folder]


OFTEN = ("data mix", "evaluate")


def often(names, also=()):
    """The parameters; `make test` takes a file's and a folder's command, `make test-all` every one."""
    return [name if name in (*OFTEN, *also) else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The working directory: inputs of every kind, and sentinels beside them and in the folder `place`."""
    root = tmp_path_factory.mktemp("world")
    work = root / "work"
    plant(work)
    plant(work / "place")
    (work / "full").mkdir()
    lines = (ROOT / "data/quickstart/train.jsonl").read_text("utf-8").splitlines(keepends=True)
    for name, own in (("train", lines[:24]), ("other", lines[24:36]), ("test", lines[36:48])):
        (work / f"{name}.jsonl").write_text("".join(own), encoding="utf-8")
    (work / "q.csv").write_text(
        "question,A,B,answer,context\n日本の首都は,京都,東京,B,首都は東京。\n", encoding="utf-8"
    )
    (work / "corpus").mkdir()
    (work / "corpus/law.md").write_text("# 首都法\n\n首都は東京とする。\n", encoding="utf-8")
    (work / "replies.jsonl").write_text('{"text": "答えはb"}\n', encoding="utf-8")
    (work / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (work / "kept").mkdir()
    for name, right in (("first", range(6)), ("second", range(4, 12))):
        rows = items(GOLD, answers(GOLD, right), labels=list("abcd"), text="x")
        (work / f"kept/{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    asked = [{"id": f"q{number}", "messages": [{"role": "user", "content": "x"}]} for number in range(len(GOLD))]
    (work / "kept/items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked), encoding="utf-8")
    for name in ("one", "two"):
        (work / name).mkdir()
        config = {"base_model_name_or_path": "builtin:tiny-qwen3", "peft_type": "LORA", "r": 4, "lora_alpha": 8}
        config |= {"target_modules": ["q_proj"]}
        (work / name / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        parts = {"lora_A": (4, 128), "lora_B": (128, 4)}
        tensors = {
            f"base_model.model.model.layers.{layer}.self_attn.q_proj.{part}.weight": np.zeros(shape, np.float32)
            for layer in range(4)
            for part, shape in parts.items()
        }
        save_file(tensors, work / name / "adapter_model.safetensors")
    (root / "home").mkdir()
    return work


@pytest.fixture
def box(world, monkeypatch):
    """The world, left as it was found, with a folder `case` for this test."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(world.parent / "home"))
    monkeypatch.chdir(world)
    (world / "case").mkdir()
    before = tree(world.parent)
    yield world
    after = tree(world.parent)
    shutil.rmtree(world / "case")
    mine = {path: what for path, what in after.items() if not path.startswith(("work/case", "work/outputs", "home/"))}
    assert mine == {path: before.get(path) for path in mine}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", often(COMMANDS))
def test_a_place_that_is_not_free_is_refused_and_nothing_changes(box, name, place):
    command = COMMANDS[name]
    output, said = PLACES[place](box / "case", command.suffix)
    told = refused(box, *command.to(output))
    assert any(one in told for one in said.split("|")), told
    if place != "a file" or command.is_folder:  # a file may be replaced where that was asked for
        refused(box, *command.to(output, *command.forced))


def test_a_foreign_file_is_refused_by_every_command(box):
    for command in COMMANDS.values():
        if command.option != "-o":  # `data` commands read their input first: the rows may be the same
            output, _ = PLACES["a file"](box / "case", command.suffix)
            refused(box, *command.to(output))


LINKS = {"itself": None, "a hard link": os.link, "a symbolic link": os.symlink}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", often(FILES, ["rescore", "data preview"]))
def test_an_input_is_never_written_not_even_with_overwrite(box, name, link):
    command = COMMANDS[name]
    for number, read in enumerate(command.inputs):
        output = box / read
        if LINKS[link]:
            output = box / f"case/linked-{number}{command.suffix}"
            LINKS[link](box / read, output)
        elif command.suffix == ".png":
            continue
        for forced in ((), command.forced):
            assert "is also an input of this command" in refused(box, *command.to(output, *forced))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", often(FOLDERS))
def test_an_input_in_the_results_place_is_never_written(box, name, link):
    command = COMMANDS[name]
    for number, read in enumerate(command.inputs):
        output = box / f"case/results-{number}"
        if LINKS[link]:
            output.mkdir()
            LINKS[link](box / read, output / "answers.jsonl")
        else:
            output = box / read
        for forced in ((), command.forced):
            refused(box, *command.to(output, *forced))
        refused(box, *command.to(box))  # the folder of its inputs


@pytest.mark.parametrize("name", often(COMMANDS))
def test_a_read_only_place_is_refused_before_the_work(box, name):
    command = COMMANDS[name]
    protected = box / f"case/protected{command.suffix}"
    protected.write_bytes(WORK)
    protected.chmod(0o444)
    shut = box / "case/shut"
    shut.mkdir(mode=0o555)

    def body():
        for output in (shut / f"out{command.suffix}", shut / f"new/out{command.suffix}"):
            assert "you may not write here" in refused(box, *command.to(output))
        if not command.is_folder:
            assert "write-protected" in refused(box, *command.to(protected, *command.forced))

    unprivileged.run(body)


# What is allowed ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    def answer(body):
        text = body["messages"][-1]["content"]
        if "[answer A" in text:
            return chat("Both say the same.\nWinner: tie")
        if "首都" in text:
            return chat("首都は東京である。\n回答: b")
        return chat("a", top={"a": -0.1, "b": -3.0, "c": -4.0, "d": -5.0})

    with ApiServer(answer, models("m", "n")) as running:
        yield running


WORKING = [name for name in COMMANDS if name != "ensemble"]


@pytest.mark.parametrize("name", often(WORKING, ["data build, teacher", "compare"]))
def test_only_what_was_named_is_written(box, server, name):
    command, url = COMMANDS[name], server.url
    plant(box / "case")
    output = box / f"case/new/out{command.suffix}"
    before = tree(box)
    ends(run(*command.to(output, server=url)), 0)
    written = changed(before, tree(box))
    others = {path for path in written if not path.startswith("case/new/out")}
    assert all(path.startswith("outputs/evaluations/") and path not in before for path in others)
    assert len(others) == len(written) - (len(command.makes) + 1 if command.suffix else len(written - others))
    if command.is_folder:
        (output / "notes.jsonl").write_bytes(WORK)
    before = tree(box)
    ends(run(*command.to(output, *command.forced, server=url)), 0)  # ours is replaced
    assert all(path.startswith("case/new/out") for path in changed(before, tree(box)))
    if command.is_folder:
        assert (output / "notes.jsonl").read_bytes() == WORK


@pytest.mark.parametrize("name", often(FILES))
def test_overwrite_replaces_the_named_file_alone(box, server, name):
    command = COMMANDS[name]
    plant(box / "case")
    output = box / f"case/mine{command.suffix}"
    output.write_bytes(WORK)
    before = tree(box)
    ends(run(*command.to(output, *command.forced, server=server.url)), 0)
    beside = {f"{output.relative_to(box)}{end}" for end in command.makes}
    assert changed(before, tree(box)) == {str(output.relative_to(box))} | beside


@pytest.mark.parametrize("name", often(WORKING, ["data build, teacher", "compare"]))
def test_a_full_disk_is_one_sentence_and_leaves_nothing(box, server, name):
    command = COMMANDS[name]

    def body():
        full = box / "full"
        with full_disk(full) as is_full:
            before = tree(box)
            done = run(*command.to(full / f"out{command.suffix}", server=server.url))
            ends(done, 2)
            assert ("the disk is full" if is_full else "File too large") in done.stderr
            assert str(full) in done.stderr
            left = {path for path in changed(before, tree(box)) if not path.startswith("outputs/evaluations/")}
            assert left == set()

    body()


# Outputs with names of their own ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [WORK, b"", b"[]", b'{"id": "q"}\n', b'{"id": "q"}'])
def test_a_foreign_file_of_replies_is_not_touched(box, content):
    replies = box / "case/out.jsonl.teacher.jsonl"
    replies.write_bytes(content)
    if content:
        refused(box, *COMMANDS["data build, teacher"].to(box / "case/out.jsonl", "--overwrite"))


def test_rescore_writes_beside_its_input_and_never_over_it(box):
    shutil.copy(box / "replies.jsonl", box / "case")
    before = tree(box)
    ends(run("rescore", "case/replies.jsonl"), 0)
    assert changed(before, tree(box)) == {"case/replies.rescored.jsonl"}
    (box / "case/replies.rescored.jsonl").write_bytes(WORK)
    assert "the file exists already" in refused(box, "rescore", "case/replies.jsonl")


SPLIT = ("data", "split", "train.jsonl", "--test", "4", "--out")


def test_a_split_writes_its_files_and_no_others(box):
    plant(box / "case")
    (box / "case/split.json").unlink()
    before = tree(box)
    ends(run(*SPLIT, "case"), 0)
    written = {"case/split.json", "case/train.train.jsonl", "case/train.test.jsonl"}
    assert changed(before, tree(box)) == written
    ends(run(*SPLIT, "case"), 0)
    for name in sorted(written):
        kept = (box / name).read_bytes()
        (box / name).write_bytes(WORK)
        refused(box, *SPLIT, "case")
        refused(box, *SPLIT, "case", "--again")
        (box / name).write_bytes(kept)


@pytest.mark.slow
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_split_never_writes_its_input(box, link):
    plant(box / "case")
    (box / "case/split.json").unlink()
    for name in ("split.json", "train.test.jsonl"):
        link(box / "train.jsonl", box / "case" / name)
        for forced in ((), ("--overwrite",), ("--again", "--overwrite")):
            refused(box, *SPLIT, "case", *forced)
        (box / "case" / name).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("place", [place for place in PLACES if place != "a folder"])
def test_a_split_into_a_place_that_cannot_be_written_is_refused(box, place):
    refused(box, *SPLIT, str(PLACES[place](box / "case", "")[0]))


def test_a_split_on_a_full_disk_writes_none_of_its_files(box):
    with full_disk(box / "full"):
        before = tree(box)
        ends(run(*SPLIT, "full/new"), 2)
        assert changed(before, tree(box)) == set()


NEW = ("new", "../train.jsonl", "--model", "builtin:tiny-qwen3")


def test_new_writes_its_files_and_no_others(box, monkeypatch):
    plant(box / "case")
    monkeypatch.chdir(box / "case")
    before = tree(box)
    ends(run(*NEW), 0)
    names = ("train.jsonl", "dev.jsonl", "test.jsonl", "split.json")
    assert changed(before, tree(box)) == {"case/recipes/train.yaml", *(f"case/data/train/{name}" for name in names)}
    (box / "case/data/train/dev.jsonl").write_bytes(WORK)
    assert "the file exists already" in refused(box, *NEW)


def test_new_on_a_full_disk_writes_none_of_its_files(box, monkeypatch):
    with full_disk(box / "full"):
        monkeypatch.chdir(box / "full")
        before = tree(box)
        ends(run(*NEW), 2)
        assert changed(before, tree(box)) == set()
