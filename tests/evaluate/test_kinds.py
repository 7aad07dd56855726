"""A kind of evaluation is one file: a toy kind goes from its items to a verdict and a page, and no other file names it."""

import dataclasses

import pytest

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data.records import Conversation, Message
from slimtune.evaluate import asking, items, kinds
from slimtune.evaluate.judge import verdict
from slimtune.evaluate.judge.compare import compare
from slimtune.evaluate.judge.comparison_text import as_markdown
from slimtune.evaluate.judge.contenders import Contender
from slimtune.evaluate.kinds.kind import Change, Kind, Metric, Settings
from slimtune.evaluate.targets.target import Reply
from slimtune.run.report.comparison import as_html

from .test_asking import Scripted


def mean_length(answers):
    return sum(answer["length"] for answer in answers) / len(answers)


class Length(Kind):
    """Who answers in fewer characters?"""

    name = "length"
    noun, unit, higher_is_better = "request", "characters", False
    needed = ("length",)
    same = ("reference", "different references", "ask the same file")
    score, score_name = "length", "length "
    metrics = (Metric("length", "mean length", mean_length, "{:.1f}".format),)

    def check(self, item):
        return None if item.reference else Problem("a request without an answer", item.where)

    def ask(self, target, batch, settings):
        replies = target.generate([item.prompt for item in batch], settings)
        return [
            {"length": len(reply.text), "reference": item.reference} for item, reply in zip(batch, replies, strict=True)
        ]

    def figures(self, answers, labels):
        return {}

    def table(self, frame, sides):
        return self.metric_rows(sides)

    def change(self, reference, contender):
        return Change([other["length"] - one["length"] for one, other in zip(reference, contender, strict=True)])

    def shown(self, figures, side=""):
        return f"{figures[f'{side}_length' if side else 'length']:.1f}"

    def spread(self, answers):
        return max(answer["length"] for answer in answers) - min(answer["length"] for answer in answers)

    def told(self, answer):
        return {"length": answer["length"]}

    def in_a_word(self, told):
        return str(told["length"])


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "length", Length())


def conversations(answer="はい。"):
    return [
        Conversation((Message("user", f"問{n}"), Message("assistant", answer)), meta={}, path="t.jsonl", line=n)
        for n in range(1, 13)
    ]


@pytest.fixture
def answered():
    asked = items.read(conversations(), "length")
    settings = dataclasses.replace(Settings(), kind="length")
    short = asking.ask(Scripted(lambda prompt: Reply("はい")), asked, settings)
    long = asking.ask(Scripted(lambda prompt: Reply("はい" * int(prompt[-1].content[1:]))), asked, settings)
    return long, short


def test_its_items_are_checked():
    with pytest.raises(SlimtuneError, match="a request without an answer"):
        items.read(conversations(answer=""), "length")


def test_it_has_a_verdict(answered):
    result = verdict.judge(*answered)
    # Mean lengths 2 · 6.5 and 2.
    assert result["difference"] == pytest.approx(-11)
    assert result["verdict"] == "better"
    assert result["sentence"].startswith("better: length 13.0 → 2.0 on 12 requests (-11.0 characters, 95 % interval -")
    assert kinds.table(result) == [("mean length", "13.0", "2.0")]


def test_what_the_training_data_gave_away_is_scored_apart(answered):
    found = {"items": [{"id": answered[0][11]["id"], "kind": "exact"}]}
    assert (
        "on the other 11: length 12.0 → 2.0 (Wilcoxon p = " in verdict.judge(*answered, contamination=found)["sentence"]
    )


def test_it_can_be_compared_and_shown(answered):
    result = compare([Contender("long", answered[0]), Contender("short", answered[1])])
    assert "long length 13.0 → short length 2.0" in result["pairs"][0]["sentence"]
    assert "The 11 requests on which they differ most, in characters" in as_markdown(result)
    assert "characters" in as_html(result)
