"""What `data check` and `data preview` take from a recipe, or from the defaults of recipes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from slimtune.core.errors import fail

if TYPE_CHECKING:
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.recipe.schema import Recipe


def read(recipe: str | None, files: list[str] | None, model: str | None, *, to: str) -> tuple[Recipe, list[str]]:
    """The recipe, or one with these files, this model and only defaults; and the files to read."""
    from slimtune.recipe import loading

    if recipe:
        loaded = loading.load(recipe)
        return loaded, files or [source.path for source in loaded.data.train]
    if not files:
        raise fail(f"no file to {to}", fix="give a training file, or a recipe with --recipe")
    return loading.of_files(files, model), files


def inputs(recipe: str | None, settings: Recipe, paths: Iterable[str], model: str | None) -> list[str]:
    """What such a command reads: no output may be one of these."""
    from slimtune.recipe import places

    named = places.files_of(settings, recipe) if recipe else []
    return [*paths, *named, model or settings.model.base]


def folder_of(model: str, settings: Recipe) -> Path | None:
    """The model's folder; None for a hub model that is not on this machine."""
    from slimtune.models import files

    return files.locate(model, settings.model.revision if model == settings.model.base else None)


def tokenizer_of(model: str, settings: Recipe, thinking: bool | None = None) -> ChatTokenizer | None:
    """The model's tokenizer; None if it is not on this machine. thinking: None for the recipe's value."""
    from slimtune.data.chat_template import ChatTokenizer

    folder = folder_of(model, settings)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return None
    return ChatTokenizer(folder, settings.model.thinking if thinking is None else thinking)
