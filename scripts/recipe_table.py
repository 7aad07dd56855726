"""Print the table of recipes in recipes/README.md from the recipes themselves.

    python -m scripts.recipe_table > recipes/README.md

Memory is the plan's prediction for the recipe's card. Lengths are estimated from characters, so the table is the same on
every machine, whatever models it has downloaded.
"""

import sys
from pathlib import Path

from slimtune.data import loading
from slimtune.data.records import Conversation
from slimtune.evaluate import items
from slimtune.models import hardware
from slimtune.models import shapes as models
from slimtune.plan import lengths, make
from slimtune.plan.request import Data
from slimtune.recipe import loading as recipes
from slimtune.recipe.schema import EvaluateSection, Recipe
from slimtune.run import prepare

_HEAD = """\
# Recipes

Each file opens with the command that runs it. You can override any value: add `section.key=value` to the command.
`budget.vram_gb` is the size of your card; `--dry-run` prints the plan for it.

| recipe | priority | pattern | purpose | model | training data | how it is evaluated | memory |
|---|---|---|---|---|---|---|---|
"""
_FOOT = """
Memory is the upper end of the plan's prediction for the recipe's card: weights, adapter, optimizer, the largest temporary peak and the CUDA
context. It stays below the budget; memory that a run does not need makes it faster. Base and tuned model get the same held-out
questions. "letters": log-probabilities of the letters decide. "reasoned answers": the models reason, and the answer is read
from the reply. "perplexity": of the answers in the file. A worse, collapsed or contaminated result is not exported.

This file is generated: `python -m scripts.recipe_table > recipes/README.md`.
"""


def render(folder: Path) -> str:
    """The Markdown for all recipes of a folder, by priority and then by name."""
    loaded = [recipes.load(path) for path in folder.glob("*.yaml")]
    loaded.sort(key=lambda recipe: (recipe.about.priority or 0, recipe.name))
    return _HEAD + "".join(_row(recipe) for recipe in loaded) + _FOOT


def _row(recipe: Recipe) -> str:
    files = ", ".join(
        f"`{source.path}`" + (f" × {source.weight:g}" if source.weight != 1 else "") for source in recipe.data.train
    )
    evaluation = f"held-out loss, `{recipe.data.eval}`"
    if recipe.evaluate:
        evaluation = f"{_measure(recipe.evaluate)}, `{recipe.evaluate.data}`"
    cells = [
        f"[`{recipe.name}`]({recipe.name}.yaml)",
        str(recipe.about.priority or "first"),
        recipe.about.pattern,
        recipe.about.purpose,
        f"`{recipe.model.base}`",
        files,
        evaluation,
        _memory(recipe),
    ]
    return f"| {' | '.join(cells)} |\n"


def _measure(evaluate: EvaluateSection) -> str:
    if evaluate.kind != "multiple_choice":
        return evaluate.kind
    return "letters" if evaluate.mode == "direct" else "reasoned answers"


def _memory(recipe: Recipe) -> str:
    shape = models.find(recipe.model.base)
    if shape is None or recipe.budget.vram_gb is None:
        return "no card needed"
    data = recipe.data

    def load(sources: list[tuple[str, float]], mode: loading.DataMode = "auto") -> loading.Loaded:
        return loading.load_conversations(
            sources, mode=mode, system=data.system, format=data.format, seed=recipe.run.seed
        )

    def read(sources: list[tuple[str, float]]) -> lengths.Lengths:
        return lengths.estimate(load(sources, data.mode).conversations)

    questions: tuple[Conversation, ...] = ()
    if evaluate := recipe.evaluate:
        questions = items.of_mode(load([(evaluate.data, 1.0)]), evaluate.kind, evaluate.mode).conversations
    known = Data(
        train=read([(source.path, source.weight) for source in data.train]),
        held_out=read([(data.eval, 1.0)]) if data.eval else None,
        prompts=lengths.estimate(questions).prompts,
    )
    plan = make.make(prepare.request_of(recipe), known, shape, hardware.card(recipe.budget.vram_gb))
    assert plan.least_bytes is not None  # a card has one
    card = f"{plan.upper_bytes / 2**30:.1f} GiB of a {recipe.budget.vram_gb:g} GB card"
    return f"{card}, {plan.least_bytes / 2**30:.1f} needed"


if __name__ == "__main__":
    sys.stdout.write(render(Path("recipes")))
