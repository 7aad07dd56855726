"""Usual ranges beside a recipe's values, worked by hand."""

import dataclasses
import io
import json
from pathlib import Path

import pytest

from slimtune.core.console import Console
from slimtune.data.records import Conversation, Message
from slimtune.models import shapes as models
from slimtune.plan.explain import suggestions
from slimtune.plan.explain.suggestions import PlanFacts, suggest, task_of, task_of_all
from slimtune.recipe import loading as recipes
from slimtune.run import prepare, screen

RECIPES = sorted(Path("recipes").glob("*.yaml"))
# 140 questions answered with a letter and the end of the turn; Qwen3-8B, rank 16 on every linear layer.
LETTERS = PlanFacts(
    rows=140, supervised_tokens=280, task="direct", parameters=8_190_735_360, adapter_parameters=43_646_976, rank=16,
    learning_rate=1e-4, passes=3, batch=8, steps=54,
)  # fmt: skip


def outside(**changes):
    """Name and usual range of what is outside it."""
    facts = dataclasses.replace(LETTERS, **changes)
    return {one.name: one.usual for one in suggest(facts) if not one.inside}


def test_a_moderate_recipe_is_inside_everywhere():
    assert outside() == {}
    assert len(suggest(LETTERS)) == 6


@pytest.mark.parametrize(
    ("rate", "passes", "limit"),
    # 3 passes at 2e-4 collapsed: 6e-4 over the rate.
    [(2e-4, 3, "3"), (1e-4, 6, "6"), (5e-5, 12, "12"), (2e-4, 2.9, None), (1e-4, 5, None)],
)
def test_few_letters_collapse_where_passes_times_rate_reach_what_collapsed(rate, passes, limit):
    found = outside(learning_rate=rate, passes=passes)
    name = f"passes at {suggestions.number(rate)}:"
    assert found.get(name) == (f"fewer than {limit}" if limit else None)


@pytest.mark.parametrize("other", [{"rows": 201}, {"task": "cot"}, {"task": "mixed"}])
def test_collapse_is_expected_of_few_letters_alone(other):
    assert outside(learning_rate=2e-4, **other) == {}


@pytest.mark.parametrize(
    ("changes", "name", "usual"),
    [
        ({"rows": 49}, "examples", "50 or more"),
        ({"passes": 4, "learning_rate": 1e-5}, "passes over the data", "1 to 3"),
        ({"passes": 0.5}, "passes over the data", "1 to 3"),
        ({"learning_rate": 2.1e-4, "passes": 1}, "learning rate", "5e-6 to 2e-4"),
        ({"learning_rate": 4e-6}, "learning rate", "5e-6 to 2e-4"),
        ({"parameters": 32_762_123_264, "learning_rate": 2e-4, "task": "cot"}, "learning rate", "5e-6 to 1e-4"),
        ({"rank": 4}, "rank", "8 to 128"),
        ({"rank": 256}, "rank", "8 to 128"),
        ({"batch": 32}, "examples a step", "fewer than 32"),
        # 16 · 100e6 / 43,646,976 = 36.66
        ({"supervised_tokens": 100_000_000, "task": "cot"}, "rank", "37 or more"),
    ],
)
def test_each_range(changes, name, usual):
    assert outside(**changes) == {name: usual}


def test_the_largest_that_is_trained_as_a_small_one():
    assert outside(parameters=13_000_000_000, learning_rate=2e-4, task="cot") == {}


def test_a_tiny_model_has_no_published_rate_or_rank():
    found = suggest(dataclasses.replace(LETTERS, parameters=947_072, learning_rate=5e-3))
    assert [one.name for one in found] == ["examples", "passes over the data"]


def test_every_suggestion_has_a_source_to_look_up():
    extremes = [LETTERS, dataclasses.replace(LETTERS, learning_rate=1e-6, supervised_tokens=10**9)]
    for one in (one for facts in extremes for one in suggest(facts)):
        assert one.sources
        for source in one.sources:
            assert source.title and source.where.startswith(("arXiv:", "https://"))
            assert source.where in str(one)


def test_what_is_outside_has_a_line_and_the_rest_shares_one():
    facts = dataclasses.replace(LETTERS, learning_rate=2e-4)
    heading, out, inside = suggestions.lines(facts, suggest(facts))
    assert heading.startswith(
        "Your settings are partly outside the usual range for 140 direct answers (280 supervised tokens, 54 steps)"
    )
    assert out.startswith(
        "unusual: passes at 2e-4: 3, usual is fewer than 3. With so few letters to learn from, expect"
    )
    assert "140 questions read 3 times at 2e-4" in out and "https://github.com/12080718/statutes-rags-FT" in out
    assert inside.startswith("usual: examples 140 (50 or more); passes over the data 3 (1 to 3); learning rate 2e-4 (")
    assert inside.endswith("[OpenAI's guide; Unsloth's guide; QLoRA; LoRA Without Regret]")


@pytest.mark.parametrize(
    ("value", "text"), [(2e-4, "2e-4"), (1.5e-5, "1.5e-5"), (3.0, "3"), (2.94, "2.9"), (43_646_976, "43,646,976")]
)
def test_numbers(value, text):
    assert suggestions.number(value) == text


@pytest.mark.parametrize(
    ("answer", "meta", "task"),
    [
        ("b", {}, "direct"),
        ("b", {"mode": "cot"}, "cot"),
        ("理由は次のとおり。答えは b", {"mode": "direct"}, "direct"),
        ("```python\nx\n```", {}, "code"),
        ("It opens at nine.", {}, "chat"),
    ],
)
def test_what_an_example_teaches(answer, meta, task):
    assert task_of(Conversation((Message("user", "?"), Message("assistant", answer)), meta)) == task


def test_nine_in_ten_give_the_set_its_task():
    assert task_of_all({"code": 54, "chat": 6}) == "code"
    assert task_of_all({"code": 53, "chat": 7}) == "mixed"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_plan_of_every_shipped_recipe_shows_the_ranges(path):
    out = io.StringIO()
    prepared = prepare.prepare(recipes.load(path), assume_card=True)
    screen.plan(Console(out), prepared)
    said = " ".join(out.getvalue().split())
    assert f"in the usual range for {len(prepared.train)} " in said and "usual: examples" in said
    assert "unusual:" not in said
    assert json.loads(json.dumps(prepared.as_json()))["suggestions"][0]["sources"][0]["where"].startswith("https://")


def test_passes_count_weights_and_steps():
    def passes(*overrides):
        recipe = recipes.load("recipes/mixed.yaml", overrides)
        facts = prepare.prepare(recipe, assume_card=True).facts
        assert facts is not None and facts.task == "mixed" and facts.rows == 294
        return facts.passes

    # One and a half epochs of a file with weight 2; and 10 steps of 16 of the 294 examples.
    assert passes() == 3
    assert passes("train.max_steps=10") == pytest.approx(2 * 160 / 294)


def test_facts_without_a_plan():
    recipe = recipes.load("recipes/direct.yaml")
    shape = models.find(recipe.model.base)
    facts = suggestions.facts_of(prepare.request_of(recipe), {"direct": 140}, 280, shape)
    # 140 examples, 3 times, 8 a step: 52.5. 43,646,976 is the memory model's worked figure for rank 16.
    assert facts == dataclasses.replace(LETTERS, steps=53)
