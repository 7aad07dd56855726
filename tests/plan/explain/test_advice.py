"""What is offered where nothing fits: three changes, each of which makes it fit, the cheapest first."""

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.models import hardware
from slimtune.models import shapes as models
from slimtune.plan import make
from slimtune.plan.lengths import Lengths
from slimtune.plan.request import Data
from slimtune.recipe.schema import Recipe
from slimtune.run.prepare import request_of

DATA = Data(Lengths((220,) * 98, (2,) * 98, exact=True), prompts=(200,) * 40)


def recipe(gb=10, base="unsloth/Qwen3-8B-bnb-4bit", **sections):
    sections = {"budget": {"vram_gb": gb}, **sections}
    sections["model"] = {"base": base, **sections.get("model", {})}
    return Recipe.model_validate({"name": "t", "data": {"train": [{"path": "t"}]}, **sections})


def refused(made, data=DATA):
    with pytest.raises(SlimtuneError) as caught:
        make.make(request_of(made), data, models.find(made.model.base), hardware.card(made.budget.vram_gb))
    return caught.value


def applied(made, override):
    """The recipe with overrides as the command line would apply them."""
    values = made.model_dump()
    for part in override.split():
        key, _, text = part.partition("=")
        section, name = key.split(".")
        values[section][name] = {"null": None, "true": True}.get(text, text)
        if text.replace(".", "").isdigit():
            values[section][name] = float(text) if "." in text else int(text)
    return Recipe.model_validate(values)


@pytest.mark.parametrize(
    "made",
    [
        recipe(4),
        pytest.param(recipe(6), marks=pytest.mark.slow),
        pytest.param(recipe(3), marks=pytest.mark.slow),
        recipe(10, "unsloth/Qwen3-14B-bnb-4bit"),
        pytest.param(
            recipe(8, "unsloth/Qwen2.5-7B-Instruct-bnb-4bit", model={"load_in_4bit": False}), marks=pytest.mark.slow
        ),
        recipe(8, "Qwen/Qwen3-8B", train={"per_device_train_batch_size": 64, "gradient_checkpointing": False}),
        pytest.param(recipe(7, lora={"rank": 128}), marks=pytest.mark.slow),
        recipe(8, "unsloth/Qwen3-8B-unsloth-bnb-4bit", model={"offload_embedding": False}, train={"row_length": 2048}),
    ],
    ids=lambda made: f"{made.model.base.split('/')[-1]} on {made.budget.vram_gb:g}",
)
def test_each_of_three_changes_makes_it_fit(made):
    error = refused(made)
    assert error.exit_code == 3
    assert len(error.problems) == 3
    assert " missing" in error.summary
    for problem in error.problems:
        changed = applied(made, problem.where)
        plan = make.make(
            request_of(changed), DATA, models.find(changed.model.base), hardware.card(changed.budget.vram_gb)
        )
        assert plan.peak_bytes <= plan.budget_bytes
        total = float(problem.what.split(" GiB in all")[0].split()[-1])
        assert total * 2**30 <= plan.budget_bytes * 1.001
        if "saves" in problem.what:
            assert float(problem.what.split("saves ")[1].split()[0]) > 0


def test_what_costs_nothing_comes_first():
    error = refused(recipe(8, "unsloth/Qwen2.5-7B-Instruct-bnb-4bit", model={"load_in_4bit": False}))
    assert error.problems[0].where == "model.load_in_4bit=true"
    error = refused(
        recipe(10, train={"row_length": 2048, "per_device_train_batch_size": 16, "checkpoint_skip_layers": 36})
    )
    assert error.problems[0].where.startswith("train.per_device_train_batch_size=null train.row_length=null")


def test_smaller_models_are_of_the_same_kind():
    error = refused(recipe(4, "unsloth/Qwen2.5-Coder-7B-Instruct-bnb-4bit"))
    offered = [problem.where for problem in error.problems if problem.where.startswith("model.base")]
    assert offered == [
        "model.base=unsloth/Qwen2.5-Coder-3B-Instruct-bnb-4bit",
        "model.base=unsloth/Qwen2.5-Coder-1.5B-Instruct-bnb-4bit",
    ]


def test_where_no_single_change_helps_it_says_so():
    error = refused(recipe(1.2, "/models/Llama-3.1-8B", budget={"vram_gb": 1.2, "last_resorts": True}))
    assert [problem.where for problem in error.problems][:1] in (["model.base"], ["budget.vram_gb=6"])
