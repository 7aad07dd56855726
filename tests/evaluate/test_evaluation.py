"""`slimtune evaluate`: one command, one folder, and after a kill only what is missing."""

import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.paths import ROOT

from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import evaluation
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Loading, Opened
from slimtune.evaluate.targets.target import Facts, Letters, Reply
from slimtune.run import screen

TEST = str(ROOT / "data/quickstart/test.jsonl")
TRAIN = str(ROOT / "data/quickstart/train.jsonl")


class Reader:
    """Knows the right letter of all but every third question. `tuned` off: answers a."""

    batch_size = 10
    abilities = frozenset({"score", "generate"})

    def __init__(self, data=TEST, fatal=None):
        rows = [json.loads(line) for line in Path(data).read_text("utf-8").splitlines()]
        self.gold = {row["input"]: row["output"] if number % 3 else "a" for number, row in enumerate(rows)}
        self.tuned, self.asked, self.fatal = True, 0, fatal

    def facts(self):
        return Facts("reader", {"version": 1})

    def answer(self, prompt):
        self.asked += 1
        return self.gold[prompt.messages[-1].content] if self.tuned else "a"

    def expecting(self, prompts):
        return contextlib.nullcontext()

    def score(self, prompts):
        if self.fatal is not None and self.asked + len(prompts) > self.fatal:
            signal.raise_signal(signal.SIGKILL)
        return [
            Letters({one: math.log(0.9 if one == chosen else 0.02) for one in prompt.labels}, chosen)
            for prompt, chosen in ((prompt, self.answer(prompt)) for prompt in prompts)
        ]

    def generate(self, prompts, sampling):
        return [[Reply(f"答えは{self.answer(prompt)}です。", tokens=4)] for prompt in prompts]

    def close(self):
        self.closed = True


class Tuned(Opened):
    @contextlib.contextmanager
    def without_adapter(self):
        self.target.tuned = False
        yield self.target
        self.target.tuned = True


@pytest.fixture
def served(monkeypatch):
    """The target that every spec opens, as a model of its own or as a tuned one with its base."""

    def serve(target, *, tuned=False):
        @contextlib.contextmanager
        def opens(spec, loading):
            yield Tuned(target, adapted=True) if tuned else Opened(target)

        monkeypatch.setattr(opening, "open_target", opens)
        return target

    return serve


@pytest.fixture
def request_of(tmp_path):
    def request(**changes):
        spec = opening.Spec("api", "http://127.0.0.1:1", "reader")
        return replace(Request(spec, Settings(), data=TEST, out=tmp_path / "results"), **changes)

    return request


def run(request):
    console = Console(file=io.StringIO())
    folder = evaluation.evaluate(request, console)
    screen.evaluation(console, folder)
    return folder, console.out.file.getvalue()


def load(folder, name):
    return json.loads((folder / name).read_text("utf-8"))


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def test_a_model_of_its_own_gets_figures_and_no_verdict(served, request_of):
    served(Reader())
    folder, screen = run(request_of())
    answers = rows(folder, "answers.jsonl")
    correct = sum(row["correct"] for row in answers)
    assert load(folder, "figures.json")["correct"] == correct
    assert f"{correct} / 120" in screen
    assert not (folder / "verdict.json").exists()
    assert [row["id"] for row in answers] == [row["id"] for row in rows(folder, "items.jsonl")]
    record = load(folder, "evaluation.json")
    assert record["complete"] is True
    assert record["target"] == {"name": "reader", "version": 1}
    assert record["data"]["items"] == 120
    assert record["settings"]["mode"] == "direct"


def test_a_tuned_model_is_set_beside_its_base(served, request_of):
    served(Reader(), tuned=True)
    folder, screen = run(request_of(train=(TRAIN,)))
    verdict = load(folder, "verdict.json")
    assert verdict["verdict"] == "better"
    assert verdict["sentence"][:40] in " ".join(screen.split())
    assert verdict["contamination"]["items"] == 0
    assert {row["predicted"] for row in rows(folder, "base.jsonl")} == {"a"}


def test_without_training_files_contamination_is_not_claimed_to_be_absent(served, request_of):
    served(Reader(), tuned=True)
    folder, _ = run(request_of())
    assert load(folder, "verdict.json")["contamination"] is None


def test_questions_from_the_training_file_are_found(served, request_of, tmp_path):
    mixed = tmp_path / "mixed.jsonl"
    test, train = (Path(name).read_text("utf-8").splitlines() for name in (TEST, TRAIN))
    mixed.write_text("\n".join([*test[:60], *train[:12]]) + "\n", encoding="utf-8")
    served(Reader(mixed), tuned=True)
    folder, screen = run(request_of(data=str(mixed), train=(TRAIN,)))
    verdict = load(folder, "verdict.json")
    assert verdict["verdict"] == "contaminated"
    assert verdict["contamination"]["items"] == 12
    assert verdict["contamination"]["clean"]["n"] == 60
    assert "train.jsonl:1" in " ".join(screen.split())
    assert len(load(folder, "contamination.json")["items"]) == 12


def test_a_finished_evaluation_is_not_repeated(served, request_of):
    served(Reader())
    folder, _ = run(request_of())
    before = (folder / "answers.jsonl").read_bytes()
    again = served(Reader())
    _, screen = run(request_of())
    assert again.asked == 0
    assert "is complete already" in screen
    assert (folder / "answers.jsonl").read_bytes() == before
    run(request_of(fresh=True))
    assert again.asked == 120


def test_a_folder_of_another_evaluation_is_refused(served, request_of):
    served(Reader())
    run(request_of())
    with pytest.raises(SlimtuneError, match="holds another evaluation: settings differ"):
        run(request_of(settings=Settings(permutations=2)))
    with pytest.raises(SlimtuneError, match="another evaluation: data differ"):
        run(request_of(max_items=10))


def test_what_somebody_else_put_into_the_folder_stays_and_ours_is_replaced(served, request_of):
    served(Reader())
    folder, _ = run(request_of())
    (folder / "notes.jsonl").write_text("mine\n", encoding="utf-8")
    run(request_of(fresh=True, max_items=10))
    assert (folder / "notes.jsonl").read_text("utf-8") == "mine\n"
    assert len(rows(folder, "answers.jsonl")) == 10
    assert load(folder, "evaluation.json")["files"] == ["answers.jsonl", "figures.json", "items.jsonl"]


RECORD = {"target": {}, "data": {}, "settings": {}, "started": "2026-12-01", "complete": True}
FOREIGN = {
    "a name of ours": ("answers.jsonl", "{}\n"),
    "another file": ("thesis.txt", "mine"),
    "an empty record": ("evaluation.json", "{}"),
    "another program's record": ("evaluation.json", '{"model": "x"}'),
    "a list": ("evaluation.json", "[]"),
    "garbage": ("evaluation.json", "\0\xff"),
    "a record that lists what lies elsewhere": ("evaluation.json", json.dumps(RECORD | {"files": ["../x.jsonl"]})),
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("case", FOREIGN)
def test_a_folder_that_is_not_ours_is_refused_before_anything_is_opened(request_of, tmp_path, monkeypatch, case, fresh):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("opened"))
    name, content = FOREIGN[case]
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(SlimtuneError, match=r"--out .*results: the folder holds files that Slimtune did not write"):
        run(request_of(fresh=fresh, max_items=2))
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text("utf-8") == content


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["tuned.jsonl", "verdict.json"])
def test_a_name_of_ours_that_somebody_else_took_is_refused(served, request_of, name, fresh):
    served(Reader())
    folder, _ = run(request_of(max_items=2))
    (folder / name).write_text("mine", encoding="utf-8")
    with pytest.raises(SlimtuneError, match=f"{name}: Slimtune needs this name"):
        run(request_of(max_items=2, fresh=fresh))
    assert (folder / name).read_text("utf-8") == "mine"


def test_a_record_of_an_earlier_version_continues(served, request_of):
    served(Reader())
    folder, _ = run(request_of(max_items=20))
    record = load(folder, "evaluation.json")
    del record["files"], record["finished"]
    (folder / "evaluation.json").write_text(json.dumps(record | {"complete": False}), encoding="utf-8")
    kept = (folder / "answers.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "answers.jsonl").write_text("".join(kept[:10]), encoding="utf-8")
    _, screen = run(request_of(max_items=20))
    assert "10 of them answered already" in " ".join(screen.split())
    assert rows(folder, "answers.jsonl") == [json.loads(line) for line in kept]


def test_a_record_that_appears_while_the_model_is_loaded_stays(request_of, monkeypatch, tmp_path):
    @contextlib.contextmanager
    def opens(spec, loading):
        (tmp_path / "results").mkdir()
        (tmp_path / "results/evaluation.json").write_text("mine", encoding="utf-8")
        yield Opened(Reader())

    monkeypatch.setattr(opening, "open_target", opens)
    with pytest.raises(SlimtuneError, match=r"evaluation\.json: another command has begun"):
        run(request_of(max_items=2))
    assert (tmp_path / "results/evaluation.json").read_text("utf-8") == "mine"
    assert len(list((tmp_path / "results").iterdir())) == 1


def test_another_evaluation_is_refused_before_anything_is_opened(served, request_of, monkeypatch):
    served(Reader())
    run(request_of(max_items=4))
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("opened"))
    with pytest.raises(SlimtuneError, match="holds another evaluation: data differ"):
        run(request_of(max_items=3))


@pytest.mark.parametrize(
    ("place", "change", "settings", "told"),
    [
        ("api", {"meta": {"correct": "e"}}, Settings(), "meta.correct is 'e'"),
        ("api", {"meta": {"id": "one"}}, Settings(), "id 'one' is used twice"),
        ("api", {}, Settings(permutations=24), "only 2 orders, not 24"),
        ("model", {"input": "長い。" * 300}, Settings(), "max_seq_length is 256"),
        ("model", {"meta": {"choices": {"one": "甲", "two": "乙"}, "correct": "one"}}, Settings(), "no single token"),
        ("model", {"output": "はい。" * 300}, Settings(kind="perplexity"), "max_seq_length is 256"),
    ],
)
def test_questions_that_cannot_be_asked_are_told_before_anything_is_opened(
    request_of, tmp_path, monkeypatch, place, change, settings, told
):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("opened"))
    lines = []
    for id, changed in (("one", {}), ("two", change)):
        meta = {"id": id, "choices": {"a": "甲", "b": "乙"}, "correct": "a", **changed.get("meta", {})}
        lines.append(
            json.dumps({"input": f"{id}\na. 甲\nb. 乙", "output": "a", **changed, "meta": meta}, ensure_ascii=False)
        )
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(lines), encoding="utf-8")
    spec = request_of().spec if place == "api" else opening.Spec("model", "builtin:tiny-qwen3")
    asked = request_of(
        spec=spec, settings=settings, data=str(data), loading=Loading(max_length=256), train=("none.jsonl",)
    )
    with pytest.raises(SlimtuneError) as caught:
        run(asked)
    assert told in str(caught.value) and f"{data}:2" in str(caught.value)
    assert "none.jsonl: this training file does not exist" in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_who_does_not_look_for_an_overlap_needs_no_training_file(request_of):
    request = request_of(train=("gone.jsonl",))
    read = evaluation.questions(request, overlap=False)
    assert (len(read.items), read.overlap) == (120, None)
    with pytest.raises(SlimtuneError, match=r"gone\.jsonl: this training file does not exist"):
        evaluation.questions(request, overlap=True)


@pytest.mark.parametrize(("place", "refused"), [("model", ["<|im_end|>"]), ("api", ["<|im_end|>", "<|note|>"])])
def test_the_control_tokens_of_the_model_that_is_asked_are_refused(request_of, tmp_path, monkeypatch, place, refused):
    monkeypatch.setattr(opening, "open_target", lambda *_: pytest.fail("opened"))
    data = tmp_path / "questions.jsonl"
    texts = ("What does <|note|> mean?", "What does <|im_end|> mean?")
    data.write_text("".join(json.dumps({"input": one, "output": "Nothing."}) + "\n" for one in texts), encoding="utf-8")
    spec = request_of().spec if place == "api" else opening.Spec("model", "builtin:tiny-qwen3")
    with pytest.raises(SlimtuneError) as caught:
        run(request_of(spec=spec, settings=Settings(kind="generation"), data=str(data)))
    assert [token for token in ("<|im_end|>", "<|note|>") if f"token {token}" in str(caught.value)] == refused


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_questions_are_never_written_over(served, request_of, tmp_path, link):
    data = tmp_path / "questions.jsonl"
    data.write_bytes(Path(TEST).read_bytes())
    served(Reader())
    folder, _ = run(request_of(data=str(data), max_items=2))
    (folder / "answers.jsonl").unlink()
    link(data, folder / "answers.jsonl")
    with pytest.raises(SlimtuneError, match="also an input of this command"):
        run(request_of(data=str(data), max_items=2, fresh=True))
    assert data.read_bytes() == Path(TEST).read_bytes()


def test_a_server_that_tells_no_probabilities_is_read_and_it_is_said(served, request_of):
    target = served(Reader())
    target.abilities = frozenset({"generate"})
    folder, screen = run(request_of())
    assert "returns no log-probabilities" in " ".join(screen.split())
    assert load(folder, "evaluation.json")["settings"]["by"] == "text"
    assert {row["rule"] for row in rows(folder, "answers.jsonl")} != {"letters"}
    assert load(folder, "figures.json")["correct"] > 70


def test_rows_of_another_mode_are_left_out(served, request_of):
    served(Reader())
    with pytest.raises(SlimtuneError, match="no row of mode cot"):
        run(request_of(settings=Settings(mode="cot")))


def test_what_is_needed_is_asked_for(request_of):
    with pytest.raises(SlimtuneError, match="the questions are missing"):
        run(request_of(data=None))


KILLED = """
import contextlib, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests", {tests!r}]
from slimtune.evaluate import evaluation
from slimtune.evaluate.targets import opening
import test_evaluation
from slimtune.core.console import Console

@contextlib.contextmanager
def opens(spec, loading):
    target = test_evaluation.Reader({data!r}, fatal={fatal})
    yield opening.Opened(target)
    print("asked", target.asked)

opening.open_target = opens
spec = test_evaluation.opening.Spec("api", "http://127.0.0.1:1", "reader")
evaluation.evaluate(evaluation.Request(spec, test_evaluation.Settings(), data={data!r}, out=test_evaluation.Path({out!r})), Console())
"""


@pytest.mark.fault
def test_killed_at_item_90_of_140_only_the_rest_is_asked_and_the_totals_are_the_same(tmp_path):
    data = tmp_path / "questions.jsonl"
    lines = [(ROOT / f"data/quickstart/{name}.jsonl").read_text("utf-8").splitlines() for name in ("test", "dev")]
    data.write_text("\n".join([*lines[0], *lines[1][:20]]) + "\n", encoding="utf-8")

    def start(out, fatal=None):
        code = KILLED.format(
            root=str(ROOT), tests=str(Path(__file__).parent), fatal=fatal, data=str(data), out=str(tmp_path / out)
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines()

    assert start("killed", fatal=90)[0] == -signal.SIGKILL
    first = (tmp_path / "killed/answers.jsonl").read_text("utf-8").splitlines()
    assert len(first) == 90
    code, said = start("killed")
    assert (code, "asked 50" in said) == (0, True), said
    assert "90 of them answered already" in " ".join(said)
    assert "asked 140" in start("straight")[1]
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    assert load(killed, "figures.json") == load(straight, "figures.json")
    assert (killed / "answers.jsonl").read_bytes() == (straight / "answers.jsonl").read_bytes()
    assert set(first) <= set((killed / "answers.jsonl").read_text("utf-8").splitlines())
