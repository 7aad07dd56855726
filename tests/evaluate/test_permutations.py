"""The choices in another order: each text behind another label, nothing else of the prompt changed."""

import itertools

import pytest
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data import loading
from slimtune.data.records import Message
from slimtune.evaluate import items
from slimtune.evaluate.kinds import permutations

CHOICES = {"a": "5年", "b": "5年以内", "c": "10年", "d": "期間の定めなし"}


def question(text, choices=CHOICES):
    return items.Item("q", (Message("system", "s"), Message("user", text)), "b", choices, "b", where="test.jsonl:1")


def test_each_choice_stands_once_in_each_place():
    orders = permutations.orders("abcd", 4)
    assert orders[0] == ("a", "b", "c", "d")
    for place in range(4):
        assert {order[place] for order in orders} == set("abcd")


@pytest.mark.parametrize(("labels", "count"), [("ab", 2), ("abc", 6), ("abcd", 24), ("abcdefghij", 24)])
def test_orders_are_distinct_and_the_same_every_time(labels, count):
    orders = permutations.orders(labels, count)
    assert len(set(orders)) == count
    assert all(sorted(order) == list(labels) for order in orders)
    assert orders == permutations.orders(labels, count)


def test_more_orders_than_there_are_is_an_error():
    with pytest.raises(SlimtuneError, match="2 choices have only 2 orders, not 3"):
        permutations.orders("ab", 3)


@pytest.mark.parametrize("form", ["{}. {}", "{}：{}", "{}  {}", "({}) {}", "{}）{}"])
def test_the_texts_change_places_and_nothing_else(form):
    def written(order):
        listed = "\n".join(form.format(label, CHOICES[shown]) for label, shown in zip("abcd", order, strict=True))
        return f"a. 5年は例である。\n\n【問題】期間は。\n{listed}\n\n記号で答えよ。"

    item = question(written("abcd"))
    for order in itertools.permutations("abcd"):
        *system, asked = permutations.reorder(item, order)
        assert asked.content == written(order)
        assert system == [item.prompt[0]]


def test_choices_that_the_prompt_does_not_show_are_all_named():
    hidden, shown = question("期間は。"), question("\n".join(f"{label}. {text}" for label, text in CHOICES.items()))
    with pytest.raises(
        SlimtuneError, match="The choices of these questions cannot be put into another order"
    ) as caught:
        permutations.check([hidden, shown, hidden])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    "file", ["law/test.jsonl", "law/test_rag.jsonl", "law/test_cot.jsonl", "quickstart/test.jsonl"]
)
def test_every_question_that_ships_can_be_permuted_and_put_back(file):
    read = items.read(loading.load_conversations([(str(ROOT / "data" / file), 1.0)]).conversations, "multiple_choice")
    permutations.check(read)
    for item in read:
        order = ("b", "c", "d", "a")
        moved = permutations.reorder(item, order)
        assert moved != item.prompt
        choices = {label: item.choices[shown] for label, shown in zip("abcd", order, strict=True)}
        back = items.Item(item.id, moved, "", choices)
        assert permutations.reorder(back, ("d", "a", "b", "c")) == item.prompt
