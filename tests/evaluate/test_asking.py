"""Asking every item: the same rows whatever the batch, whatever was done before, and in whatever order of choices."""

import contextlib
import math

import pytest

from slimtune.data.records import Message
from slimtune.evaluate import asking
from slimtune.evaluate.kinds.kind import Item, Settings
from slimtune.evaluate.targets.target import Facts, Letters, Likelihood, Reply

TEXTS = ("七日", "十日", "二十日", "三十日")


def item(number, gold="b", labels="abcd"):
    choices = dict(zip(labels, TEXTS, strict=False))
    listed = "\n".join(f"{label}. {text}" for label, text in choices.items())
    prompt = (Message("user", "期間は。" + "長" * number + f"\n{listed}"),)
    return Item(f"q-{number}", prompt, gold, choices, gold, "条例", where=f"test.jsonl:{number}")


ITEMS = [item(number, "abcd"[number % 4]) for number in range(10)]


class Scripted:
    """A target that answers by a function, and keeps what it was asked."""

    abilities = frozenset({"score", "generate", "likelihood"})

    def __init__(self, answer, batch_size=4):
        self.answer, self.batch_size, self.calls = answer, batch_size, []

    def facts(self):
        return Facts("scripted")

    def expecting(self, prompts):
        return contextlib.nullcontext()

    def score(self, prompts):
        self.calls.append(prompts)
        return [self.answer(prompt) for prompt in prompts]

    def generate(self, prompts, sampling):
        self.calls.append((prompts, sampling))
        return [self.answer(prompt) for prompt in prompts]

    def likelihood(self, prompts, references):
        return [Likelihood(2.5, len(reference)) for reference in references]

    def close(self):
        pass


def chooses(text, confidence=0.7):
    """Whoever reads: the label behind which the text stands."""

    def answer(prompt):
        lines = dict(line.split(". ") for line in prompt.messages[-1].content.splitlines()[1:])
        rest = (1 - confidence) / 3
        return Letters(
            {label: math.log(confidence if lines[label] == text else rest) for label in prompt.labels},
            next(label for label in lines if lines[label] == text),
        )

    return answer


def always(label):
    """Whoever answers by position."""

    def answer(prompt):
        return Letters({one: math.log(0.97 if one == label else 0.01) for one in prompt.labels}, label)

    return answer


def test_a_row_says_everything_of_its_item():
    (row,) = asking.ask(Scripted(chooses("十日")), ITEMS[1:2], Settings())
    assert (row["id"], row["gold"], row["predicted"], row["correct"]) == ("q-1", "b", "b", True)
    assert (row["kind"], row["mode"], row["rule"], row["status"]) == (
        "multiple_choice",
        "direct",
        "letters",
        "answered",
    )
    assert (row["where"], row["source"], row["labels"]) == ("test.jsonl:1", "条例", list("abcd"))
    assert row["logprobs"]["b"] == pytest.approx(math.log(0.7), abs=1e-6)
    assert row["label_mass"] == pytest.approx(1.0, abs=1e-5)
    assert row["greedy_agrees"] is True


def test_rows_come_in_the_files_order_whatever_the_batches():
    expected = asking.ask(Scripted(chooses("十日"), batch_size=1), ITEMS, Settings())
    for size in (3, 10, 64):
        assert asking.ask(Scripted(chooses("十日"), batch_size=size), ITEMS, Settings()) == expected


def test_prompts_of_similar_length_share_a_batch_and_the_longest_comes_first():
    target = Scripted(chooses("十日"))
    asking.ask(target, ITEMS, Settings())
    lengths = [len(prompt.messages[-1].content) for batch in target.calls for prompt in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in target.calls] == [4, 4, 2]


def test_what_is_done_is_not_asked_again():
    everything = asking.ask(Scripted(chooses("十日")), ITEMS, Settings())
    kept = []
    target = Scripted(chooses("十日"))
    done = {row["id"] for row in everything if row["id"] not in ("q-0", "q-1")}
    rest = asking.ask(target, ITEMS, Settings(), done=done, keep=kept.extend)
    assert [row["id"] for row in rest] == ["q-0", "q-1"]
    assert [row for row in everything if row["id"] in ("q-0", "q-1")] == rest
    assert sorted(row["id"] for row in kept) == ["q-0", "q-1"]
    assert sum(len(batch) for batch in target.calls) == 2


def test_progress_counts_items_that_were_done_before():
    seen = []
    asking.ask(Scripted(chooses("十日")), ITEMS, Settings(), done={"q-9", "q-8"}, advance=lambda *now: seen.append(now))
    assert seen[-1] == (10, 10)


def test_who_reads_is_right_in_every_order_and_who_answers_by_position_is_not():
    four = Settings(permutations=4)
    (reader,) = asking.ask(Scripted(chooses("十日")), [item(1)], four)
    assert [(one["order"], one["gold"], one["predicted"]) for one in reader["permutations"]] == [
        ("abcd", "b", "b"),
        ("bcda", "a", "a"),
        ("cdab", "d", "d"),
        ("dabc", "c", "c"),
    ]
    assert (reader["predicted"], reader["correct"]) == ("b", True)
    assert math.exp(reader["logprobs"]["b"]) == pytest.approx(0.7, abs=1e-5)

    (stubborn,) = asking.ask(Scripted(always("b")), [item(1)], four)
    assert [one["predicted"] for one in stubborn["permutations"]] == ["b"] * 4
    assert [one["predicted"] == one["gold"] for one in stubborn["permutations"]] == [True, False, False, False]
    # Every choice stood behind "b" once: in the mean nothing is left of the preference.
    assert len({round(value, 5) for value in stubborn["logprobs"].values()}) == 1


def test_a_batch_counts_every_order_as_a_prompt():
    target = Scripted(chooses("十日"), batch_size=8)
    asking.ask(target, ITEMS, Settings(permutations=4))
    assert {len(batch) for batch in target.calls} == {8}


def replies(*texts, **more):
    return lambda prompt: [Reply(text, tokens=3, **more) for text in texts]


def argued(target, settings=None, items=None):
    return asking.ask(target, items or [item(1)], settings or Settings(mode="cot"))[0]


def test_an_argued_reply_is_read():
    target = Scripted(replies("選択肢aは短い。\n回答: b"))
    row = argued(target)
    assert (row["predicted"], row["status"], row["correct"], row["mode"]) == ("b", "answered", True, "cot")
    assert row["text"] == "選択肢aは短い。\n回答: b"
    ((_, sampling),) = target.calls
    assert (sampling.replies, sampling.temperature, sampling.stop_at_answer) == (1, 0.0, True)


def test_a_truncated_reply_is_counted_as_such():
    row = argued(Scripted(replies("選択肢aは", truncated=True)))
    assert (row["predicted"], row["status"], row["correct"], row["truncated"]) == (None, "truncated", False, True)


def test_a_servers_error_is_no_answer():
    row = argued(Scripted(lambda prompt: [Reply("", error="429 too many requests")]))
    assert (row["predicted"], row["status"], row["error"]) == (None, "error", "429 too many requests")


def test_the_majority_answers_and_invalid_votes_do_not_vote():
    target = Scripted(replies("回答: c", "わからない。", "回答: b", "回答: b", "いいえ。"))
    row = argued(target, Settings(mode="cot", votes=5))
    assert (row["predicted"], row["votes"], row["tied"], row["rule"]) == ("b", {"c": 1, "b": 2}, False, "majority vote")
    assert [one["answer"] for one in row["replies"]] == ["c", None, "b", "b", None]
    assert row["tokens"] == 15
    ((_, sampling),) = target.calls
    assert (sampling.replies, sampling.temperature) == (5, 0.7)


def test_a_tie_is_declared_and_goes_to_the_first_vote():
    row = argued(Scripted(replies("回答: c", "回答: b")), Settings(mode="cot", votes=2))
    assert (row["predicted"], row["tied"]) == ("c", True)


def test_without_a_valid_vote_the_commonest_reason_is_told():
    row = argued(Scripted(replies("…", "…", "…", truncated=True)), Settings(mode="cot", votes=3))
    assert (row["predicted"], row["status"], row["votes"]) == (None, "truncated", {})


def test_votes_of_every_order_are_counted_in_the_files_labels():
    target = Scripted(replies("回答: b"))  # by position, whatever stands there
    row = argued(target, Settings(mode="cot", permutations=4), [item(1)])
    assert row["votes"] == {"b": 1, "c": 1, "d": 1, "a": 1}
    assert (row["tied"], [one["predicted"] for one in row["permutations"]]) == (True, ["b"] * 4)


def test_a_server_without_probabilities_is_read():
    target = Scripted(replies("答えはｃです。"))
    (row,) = asking.ask(target, [item(2, "c")], Settings(by="text"))
    assert (row["predicted"], row["correct"], row["mode"]) == ("c", True, "direct")
    assert "logprobs" not in row


def test_perplexity_rows_hold_what_a_token_weighted_mean_needs():
    (row,) = asking.ask(Scripted(None), [item(1)], Settings(kind="perplexity"))
    assert (row["kind"], row["nll"], row["tokens"]) == ("perplexity", 2.5, 1)


def test_a_free_reply_is_compared_with_its_reference():
    free = Item("q", (Message("user", "名は。"),), "在庫を数える。", where="test.jsonl:1")
    (row,) = asking.ask(Scripted(replies("在庫を数える。 ")), [free], Settings(kind="generation"))
    assert (row["exact"], row["status"], row["reference"]) == (True, "answered", "在庫を数える。")
    assert row["chrf"] == pytest.approx(100.0)
    (row,) = asking.ask(Scripted(replies("売上")), [free], Settings(kind="generation"))
    assert (row["exact"], row["chrf"]) == (False, 0.0)
