"""Training rows against an evaluation: what differs, what cannot be judged, and silence where nothing is wrong."""

import time

import pytest

from slimtune.data.records import Conversation, Message
from slimtune.evaluate import mismatch
from slimtune.evaluate.mismatch import traits
from slimtune.models import families  # noqa: F401 — its rows tell the tags of reasoning
from slimtune.plan.lengths import Lengths
from slimtune.recipe.schema import EvaluateSection

CHOICES = {"a": "届出", "b": "許可", "c": "登録", "d": "免許"}
LISTED = "\n".join(f"{label}. {text}" for label, text in CHOICES.items())
WORDS = ("川", "森", "海", "山", "星", "橋", "駅", "畑", "滝", "島")


def row(prompt, answer, *, line=1, system="", path="train.jsonl", **meta):
    head = (Message("system", system),) if system else ()
    return Conversation((*head, Message("user", prompt), Message("assistant", answer)), meta, path, line)


def rows(prompt, answer, *, path="train.jsonl", count=10, system="", **meta):
    """Rows about a word each; a callable `answer` takes the number of the row."""
    return [
        row(
            prompt.format(word),
            answer(number) if callable(answer) else answer.format(word),
            line=number + 1,
            path=path,
            system=system,
            **meta,
        )
        for number, word in enumerate((WORDS * (count // len(WORDS) + 1))[:count])
    ]


def questions(answer=lambda number: "abcd"[number % 4], *, listed=LISTED, path="train.jsonl", count=40, **meta):
    """Multiple-choice questions, whose right answers are a, b, c, d in turn."""
    prompt = "「{}」の事業を始める前に何が要るか。\n" + listed + "\n記号一文字で答えよ。"
    given = {"choices": CHOICES, "mode": "direct"} | meta
    return [
        Conversation(one.messages, given | {"correct": meta.get("correct", "abcd"[number % 4])}, path, number + 1)
        for number, one in enumerate(rows(prompt, answer, count=count))
    ]


def text(**values):
    values = {"prompt": "{}の様子を一文で書いてください。", "answer": "{}はとても静かで、光に輝いています。"} | values
    return rows(values.pop("prompt"), values.pop("answer"), **values)


def found(train, test, held_out=(), **values):
    evaluate = EvaluateSection(data="test.jsonl", **{"kind": "generation"} | values)
    setup = mismatch.Setup(
        evaluate, train=("train.jsonl",), thinking=False, held_out="dev.jsonl" if held_out else None, length=2048
    )
    return {one.code: one for one in mismatch.find(train, test, held_out, setup)}  # fmt: skip


LETTERS = {"kind": "multiple_choice"}


@pytest.mark.parametrize(
    ("train", "test", "codes", "values"),
    [
        (text(), text(), [], {}),
        (questions(), questions(), [], LETTERS),
        (questions() + text(), questions(), [], LETTERS),  # one of several tasks
        (text() + text(answer="The river is very quiet and it shines in the light."), text(), [], {}),
        (text(), questions(), ["other-task"], LETTERS),
        (questions(), text(), ["other-task"], {}),
        (text(), text(prompt="Describe what the {} is like, and say it in one sentence."), ["other-language"], {}),
        (text(), text(answer="The {} is very quiet and it shines in the light."), ["other-answer-language"], {}),
        (text(answer="Der {} ist sehr ruhig und das Licht ist auf dem Wasser."), text(answer="The {} is very quiet and it shines in the light."), ["other-answer-language"], {}),
        (text(system="一文で。"), text(), ["other-system-prompt"], {}),
        (text(), text(system="一文で。"), ["other-system-prompt"], {}),
        (text(system="一文で。"), text(system="短く。"), ["other-system-prompt"], {}),
        (text(answer='{{"名": "{}"}}'), text(), ["other-answers"], {}),
        (text(), text(answer="<think>\n考える。\n</think>\n\n{}はとても静かで、光に輝いています。"), ["other-reasoning"], {}),
        (text(), text(answer="{}はとても静かで、光に輝いています"), ["other-ending"], {}),
        (text(), text(answer="- {}はとても静かです。\n- 光に輝いています。"), ["other-markdown"], {}),
        (text(), text(answer="{}は静かです。" + "光に輝いています。" * 40), ["other-length"], {}),
        (text(), text(prompt="【条文】\n第一条\n{}の様子を一文で書いてください。"), ["other-prompt"], {}),
        (text(prompt="質問：{}の様子を書いてください。"), text(prompt="問い：{}の様子を書いてください。"), ["other-prompt"], {}),
        (questions(), questions(listed=LISTED.replace(". ", "：")), ["other-layout"], LETTERS),
        (questions(), questions(listed=LISTED.upper()), ["other-layout"], LETTERS),
        (questions(lambda n: "1234"[n % 4], choices={}, listed="1. 甲\n2. 乙\n3. 丙\n4. 丁"), questions(), ["other-labels", "other-layout"], LETTERS),
        (questions(lambda n: list(CHOICES.values())[n % 4]), questions(), ["answers-are-not-labels"], LETTERS),
        (questions(lambda n: f"{n}番については、わかりません、とは言えないのです。"), questions(), ["answers-are-not-labels"], LETTERS),
        (questions(), questions(mode="cot"), ["other-mode"], LETTERS | {"mode": "cot"}),
        (questions(lambda n: f"条例による。\n回答: {'abcd'[n % 4]}", mode="cot"), questions(), ["other-mode"], LETTERS),
        (questions(), questions(), ["labels-as-text"], {}),
        (questions(), questions(), ["labels-as-text"], {"kind": "perplexity"}),
        (questions(), questions(correct="a"), ["one-right-answer"], LETTERS),
        (questions(), questions(correct="a"), [], LETTERS | {"permutations": 4}),
        (text(), text(answer="それは分かりません。"), ["one-right-answer"], {}),
        (questions("a"), questions(), ["one-trained-answer"], LETTERS),
        (text(answer="分かりません。"), text(answer="{}は静かです。"), ["one-trained-answer"], {}),
        (questions(), questions(count=12), ["few-questions"], LETTERS),
        (text(), text(count=5), ["few-questions"], {}),
    ],
)  # fmt: skip
def test_what_is_said_of_two_files(train, test, codes, values):
    said = found(train, test, **values)
    assert list(said) == codes, [one.what for one in said.values()]
    assert all(one.fix and one.where.partition(".")[0] in ("data", "evaluate") for one in said.values())


def test_counts_and_lines_are_told():
    (one,) = found(
        text(), text(path="t.jsonl", prompt="Describe what the {} is like, and say it in one sentence.")
    ).values()
    assert one.what == (
        "another language: 10 of 10 evaluation rows ask in English (at t.jsonl:1, 2, 3, …), but no training row does; "
        "10 of 10 training rows ask in Japanese"
    )


def test_what_makes_every_verdict_meaningless_is_an_error():
    assert found(questions(), questions(correct="a"), **LETTERS)["one-right-answer"].level == "error"
    chosen = questions(lambda number: list(CHOICES.values())[number % 4])
    assert found(chosen, questions(), **LETTERS)["answers-are-not-labels"].level == "error"
    assert found(chosen + questions()[:1], questions(), **LETTERS)["answers-are-not-labels"].level == "warning"


def test_held_out_rows_are_compared_too_and_offered_only_where_they_fit():
    english = text(prompt="Describe what the {} is like, and say it in one sentence.")
    said = found(text(), english, held_out=text(path="dev.jsonl"))
    assert said["other-language"].fix == "set evaluate.data: dev.jsonl"
    evaluate = EvaluateSection(data="test.jsonl", kind="generation")
    setup = mismatch.Setup(evaluate, train=("a.jsonl", "b.jsonl"), thinking=False, held_out="dev.jsonl", length=2048)
    both = mismatch.find(text(), english, english, setup)
    assert [(one.where, one.code) for one in both] == [
        ("evaluate.data", "other-language"),
        ("data.eval", "other-language"),
    ]
    assert "slimtune data split a.jsonl b.jsonl --test 0.2" in both[0].fix and "held-out rows ask in" in both[1].what


def test_thinking_that_no_row_trains():
    setup = mismatch.Setup(
        EvaluateSection(data="t", kind="generation"), ("a",), thinking=True, held_out=None, length=2048
    )
    (one,) = mismatch.find(text(), text(), (), setup)
    assert (one.code, one.fix) == ("no-reasoning", "set model.thinking: false")
    thought = text(answer="<think>\n考える。\n</think>\n\n{}は静かです。")
    assert mismatch.find(thought, thought, (), setup) == []


def lengths(*supervised):
    return Lengths(tuple(100 + one for one in supervised), supervised, exact=True)


def test_replies_that_would_be_cut_off():
    evaluate = EvaluateSection(data="t", kind="generation", max_new_tokens=100)
    test = text(path="t.jsonl", count=3)
    assert mismatch.cut_replies(lengths(10, 20, 100), lengths(*[50] * 40), test, evaluate, 2048) == []
    (one,) = mismatch.cut_replies(lengths(10, 120, 20), lengths(*[50] * 40), test, evaluate, 2048)
    assert one.what.startswith("1 of 3 reference answers (at t.jsonl:2) have more than 100 tokens, 120 at most")
    assert one.fix == "set evaluate.max_new_tokens: 128"
    (one,) = mismatch.cut_replies(lengths(10, 10, 20), lengths(*[500] * 40), test, evaluate, 512)
    assert one.fix == "set evaluate.max_new_tokens: 512 and model.max_seq_length: 640"
    for settings in ({"kind": "perplexity"}, {"kind": "multiple_choice"}):
        unasked = EvaluateSection(data="t", max_new_tokens=100, **settings)
        assert mismatch.cut_replies(lengths(10, 120, 20), None, test, unasked, 2048) == []


@pytest.mark.parametrize(
    ("answer", "meta", "kind"),
    [
        ("c", {"choices": CHOICES, "correct": "c"}, traits.LABEL),
        ("（Ｃ）", {"choices": CHOICES, "correct": "c"}, traits.LABEL),
        ("c", {}, traits.LABEL),
        ("届出", {"choices": CHOICES, "correct": "a"}, traits.CHOICE),
        ("条例による。\n回答: c", {"choices": CHOICES, "correct": "c"}, traits.ARGUED),
        ("7", {}, traits.TEXT),  # a sum
        ("[1, 2]", {}, traits.JSON),
        ('```json\n{"a": 1}\n```', {}, traits.JSON),
        ("静かです。", {}, traits.TEXT),
        ("", {}, traits.TEXT),
    ],
)
def test_what_an_answer_is(answer, meta, kind):
    assert traits.of(row("何が要るか。", answer, **meta)).answer == kind


def test_an_excluded_turn_is_no_answer():
    turns = (
        *row("何が要るか。", "届出です。").messages,
        Message("user", "では？"),
        Message("assistant", "c", excluded=True),
    )
    seen = traits.of(Conversation(turns, {}, "t.jsonl", 1))
    assert (seen.answer, seen.turns) == (traits.TEXT, "single questions")


def test_many_rows_take_no_longer_than_some():
    many = text(count=20_000)
    started = time.process_time()
    assert found(many, text()) == {}
    assert time.process_time() - started < 1


def test_a_sample_is_the_same_every_time_and_of_all_rows():
    many = text(count=5000)
    one, other = mismatch.Sample(), mismatch.Sample()
    one.add(many)
    for start in range(0, len(many), 7):
        other.add(many[start : start + 7])
    assert one.in_order() == other.in_order() and len(one.rows) == mismatch.MOST_ROWS
    middle = [row.line for row in one.in_order()][mismatch.MOST_ROWS // 2]
    assert 2000 < middle < 3000
