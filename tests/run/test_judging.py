"""The stages of a run that judge: what can be asked, what is asked again after a stop, every kind of evaluation."""

import contextlib
import io
import json

import pytest
from support.paths import ROOT

from slimtune.core import memory
from slimtune.core.console import Console
from slimtune.core.run_record import RunRecord
from slimtune.data.records import Conversation, Message
from slimtune.evaluate import items as reading
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.targets.target import Facts, Letters
from slimtune.recipe import loading as recipe
from slimtune.run import judging, pipeline, report

pytestmark = pytest.mark.unsloth

CHOICES = {"a": "七日", "b": "十日", "c": "二十日", "d": "三十日"}


def conversation(line, text):
    shown = "\n".join(f"{label}. {choice}" for label, choice in CHOICES.items())
    meta = {"id": f"q-{line}", "choices": CHOICES, "correct": "b"}
    return Conversation((Message("user", f"{text}\n{shown}"), Message("assistant", "b")), meta, "test.jsonl", line)


class Counting:
    batch_size = 2
    abilities = frozenset({"score"})

    def __init__(self):
        self.asked = 0

    def facts(self):
        return Facts("counting")

    def expecting(self, prompts):
        return contextlib.nullcontext()

    def score(self, prompts):
        self.asked += len(prompts)
        return [Letters(dict.fromkeys(prompt.labels, -1.4), "a") for prompt in prompts]


def test_what_was_answered_before_a_stop_is_not_asked_again(tmp_path):
    (tmp_path / "eval").mkdir()
    items = reading.read([conversation(n, f"{n}の期間は。") for n in range(5)], "multiple_choice")
    whole, record = Counting(), RunRecord(tmp_path, {}, memory.Meter())
    rows = judging.ask("base", whole, items, Settings(), record, Console(io.StringIO()))
    assert (whole.asked, len(rows)) == (5, 5)

    (tmp_path / "eval/base.jsonl").unlink()
    AnswerFile(tmp_path / "eval/base.jsonl").keep(rows[2:])
    rest, screen = Counting(), io.StringIO()
    assert judging.ask("base", rest, items, Settings(), record, Console(screen)) == rows
    assert rest.asked == 2
    assert "3 of them answered already" in screen.getvalue()
    nothing = Counting()
    assert judging.ask("base", nothing, items, Settings(), record, Console(io.StringIO())) == rows
    assert nothing.asked == 0


@pytest.fixture(scope="module")
def argued(tmp_path_factory):
    """The quickstart's questions as questions that ask for an argument."""
    path = tmp_path_factory.mktemp("argued") / "test.jsonl"
    lines = []
    for line in (ROOT / "data/quickstart/test.jsonl").read_text("utf-8").splitlines()[:4]:
        row = json.loads(line)
        row["output"] = f"届出が要る。\n回答: {row['output']}"
        lines.append(json.dumps(row | {"meta": row["meta"] | {"mode": "cot"}}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, argued):
    """A run of two steps with this evaluation."""
    folder = tmp_path_factory.mktemp("kinds")

    def run(name, *evaluate, max_seq_length=256):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            given = [f"name={name}", f"run.output_dir={folder}", "train.max_steps=2", "data.eval=null", "export=null"]
            given += [f"evaluate.{value}" for value in evaluate] + [f"model.max_seq_length={max_seq_length}"]
            screen = io.StringIO()
            done = pipeline.run(recipe.load("recipes/quickstart.yaml", given), Console(screen))
            return done, screen.getvalue()

    return run


def load(run, name):
    return json.loads((run / name).read_text("utf-8"))


def rows(run, name):
    return [json.loads(line) for line in (run / name).read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_free_replies_are_judged_and_shown_before_and_after(run_of):
    run, screen = run_of("free", "kind=generation", "max_items=6", "max_new_tokens=6")
    verdict = load(run, "eval/verdict.json")
    assert (verdict["kind"], verdict["n"]) == ("generation", 6)
    assert {"bleu", "chrf", "exact"} <= verdict["tuned"].keys()
    assert [row["reference"] for row in rows(run, "eval/tuned.jsonl")] == [
        item["reference"] for item in rows(run, "eval/items.jsonl")
    ]
    samples = rows(run, "eval/samples.jsonl")
    assert [set(sample) for sample in samples] == [{"where", "prompt", "reference", "base", "tuned"}] * 3
    assert verdict["sentence"][:20] in " ".join(screen.split())
    assert samples[0]["prompt"].split("\n")[1] in report.render(run)


@pytest.mark.slow
def test_perplexity_falls_with_training(run_of):
    run, _ = run_of("perplexity", "kind=perplexity", "max_items=20", "samples=0")
    verdict = load(run, "eval/verdict.json")
    assert verdict["kind"] == "perplexity"
    assert verdict["tuned"]["perplexity"] < verdict["base"]["perplexity"]
    assert verdict["tuned"]["tokens"] == verdict["base"]["tokens"] == 40  # the letter and the end of turn
    assert not (run / "eval/samples.jsonl").exists()


@pytest.mark.slow
def test_argued_answers_are_voted_on_in_every_order(run_of, argued):
    run, _ = run_of(
        "argued", f"data={argued}", "mode=cot", "votes=3", "permutations=2", "max_new_tokens=8", "samples=1"
    )
    for who in ("base", "tuned"):
        for row in rows(run, f"eval/{who}.jsonl"):
            assert (row["mode"], row["rule"], len(row["permutations"])) == ("cot", "majority vote", 2)
            assert row["status"] in ("answered", "unknown", "truncated", "ambiguous")
    assert len(rows(run, "eval/samples.jsonl")) == 1
    assert load(run, "eval/verdict.json")["mode"] == "cot"


@pytest.mark.slow
def test_samples_are_as_long_as_there_is_room_for(run_of):
    # The prompts have about 40 tokens of the 64 that the model is loaded for: no room for 256 more.
    run, _ = run_of("cramped", "kind=perplexity", "max_items=6", max_seq_length=64)
    assert len(rows(run, "eval/samples.jsonl")) == 3
