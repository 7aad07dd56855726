"""Every shipped recipe loads through the real loader, opens with its command and makes a plan."""

import re
from pathlib import Path

import pytest
from support.paths import ROOT

from scripts import recipe_table
from slimtune.recipe import loading as recipe
from slimtune.run.prepare import prepare

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_the_recipes_are_all_here():
    names = {path.stem for path in RECIPES}
    assert {"quickstart", "direct", "cot", "mixed", "rag_direct", "rag_cot", "direct_4b", "code_1_5b"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_opens_with_its_command(path):
    loaded = recipe.load(path)
    assert loaded.name == path.stem
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# python train_unsloth.py --recipe recipes/{path.name}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_makes_a_plan_from_the_shipped_data(path):
    prepared = prepare(recipe.load(path), assume_card=True)
    assert len(prepared.train) >= 60
    assert prepared.plan.total_steps >= 6
    if prepared.plan.memory is not None:
        assert 0 < prepared.plan.memory.total_bytes <= prepared.plan.budget_bytes


def test_every_recipe_writes_to_a_folder_of_its_own():
    loaded = [recipe.load(path) for path in RECIPES]
    assert len({(item.run.output_dir, item.name) for item in loaded}) == len(loaded) >= 8
    names = [item.export.ollama_name for item in loaded if item.export]
    assert len(set(names)) == len(names)


def test_comments_do_not_repeat_values():
    """A comment that states a default rots; comments give trade-offs."""
    for path in RECIPES:
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            assert not re.search(r"#.*\b\w+: ?[\d.]+", line), f"{path.name}: {line}"


def test_the_table_of_recipes_is_up_to_date():
    written = (ROOT / "recipes/README.md").read_text(encoding="utf-8")
    assert written == recipe_table.render(Path("recipes")), "run: python -m scripts.recipe_table > recipes/README.md"
    assert written.count("\n| [`") == len(RECIPES)
