"""From a case to a prepared run, the project's own way: data on disk, a recipe, a plan. No torch."""

from pathlib import Path
from typing import Any

from benchmarks import random_data
from benchmarks.acceptance_cases import Case
from slimtune.data.chat_template import ChatTokenizer
from slimtune.models import cards
from slimtune.recipe.schema import Recipe
from slimtune.run import prepare

QUESTIONS, QUESTION_TOKENS = 16, 200
_ROWS_A_STEP_AS_PLANNED = 4  # rows of the longest length: about the 16 examples of a default step


def prepared(
    case: Case,
    tokens: int | None,
    *,
    folder: Path,
    work: Path,
    vram_gb: float,
    on_card: bool,
    stand_in: cards.Card | None,
) -> prepare.Prepared:
    """The run that measures `tokens` tokens a micro-batch (None: as many as the plan chooses), planned.

    folder: the model's. work: for data and run folders. stand_in: plan for this card, whatever the machine has.
    Raises SlimtuneError, with exit code 3 where the card is too small.
    """
    tokenizer = ChatTokenizer(folder)
    name = f"{tokens or 'planned'}"
    data = work / f"{name}.jsonl"
    random_data.write_examples(data, _lengths(case, tokens, on_card), tokenizer)
    questions = work / f"{name}.questions.jsonl"
    random_data.write_questions(questions, QUESTIONS, QUESTION_TOKENS, tokenizer)
    recipe = Recipe.model_validate(_recipe(case, tokens, folder, data, questions, work, vram_gb, on_card))
    return prepare.prepare(recipe, card=stand_in)


def _lengths(case: Case, tokens: int | None, on_card: bool) -> list[int]:
    """Lengths of the examples: as many rows as the case has steps, so that every row, the fullest too, is trained on."""
    if tokens is None:
        return random_data.lengths_for_rows(case.steps * _ROWS_A_STEP_AS_PLANNED, case.settings["model.max_seq_length"])
    if on_card:
        return random_data.lengths_for_rows(case.steps, tokens)
    # Padded: a micro-batch holds that many examples, each at most its share of the tokens.
    rows = case.settings["train.per_device_train_batch_size"]
    return random_data.lengths_for_rows(case.steps * rows, tokens // rows)[: case.steps * rows]


def _recipe(
    case: Case, tokens: int | None, folder: Path, data: Path, questions: Path, work: Path, vram_gb: float, on_card: bool
) -> dict[str, Any]:
    steps: dict[str, Any] = {"max_steps": case.steps, "epochs": 1, "logging_steps": 1, "save_steps": case.steps}
    values: dict[str, Any] = {
        "name": "acceptance",
        "model": {"base": str(folder)},
        "lora": {"rank": 16, "alpha": 32, "target": "full"},
        "data": {"train": [{"path": str(data)}]},
        "train": steps,
        "budget": {"vram_gb": vram_gb},
        "evaluate": {"data": str(questions)},
        "run": {"output_dir": str(work / "outputs")},
    }
    if tokens is not None:
        # One load serves every length of the case.
        values["model"]["max_seq_length"] = max(case.tokens)
        if on_card:
            values["train"]["row_length"] = tokens
    for key, value in case.settings.items():
        section, _, name = key.partition(".")
        values[section][name] = value
    return values
