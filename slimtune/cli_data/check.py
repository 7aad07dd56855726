"""`slimtune data check`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimtune.errors import BAD_INPUT, fail

if TYPE_CHECKING:
    from slimtune.data.chat import ChatTokenizer
    from slimtune.data.types import Conversation
    from slimtune.recipe import Recipe

_DEFAULT_LENGTH = 2048


def check(
    files: Annotated[
        list[str] | None, typer.Argument(help="Training files of any format, or hub ids; else those of --recipe.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Gives model, length, system prompt and evaluation files.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose tokens count: a folder, a hub id, builtin:tiny-qwen3.")
    ] = None,
    max_seq_length: Annotated[
        int | None,
        typer.Option("--max-seq-length", min=1, help="Tokens; longer examples are named. 2048 unless given."),
    ] = None,
    format: Annotated[str, typer.Option("--format", help="The layout of the files; auto: what they show.")] = "auto",
    against: Annotated[
        list[str] | None, typer.Option("--against", help="An evaluation file to look for in them; may be repeated.")
    ] = None,
    secrets: Annotated[
        bool, typer.Option("--secrets/--no-secrets", help="Look for keys, passwords and personal numbers.")
    ] = True,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Findings shown of each kind.")] = 5,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw lengths, answers and findings (PNG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where there are warnings.")] = False,
) -> None:
    """Look a training file over before it is trained on: what would be refused, and what would train but not as meant.

    Errors are what the loader refuses, and end with exit code 2. Several files are taken as one training set.
    """
    from slimtune.data import formats
    from slimtune.data.checking import check as checking
    from slimtune.data.checking import rendering
    from slimtune.progress import Progress

    if format not in formats.FORMATS:
        raise fail(f"unknown format '{format}'", where="--format", fix=f"one of {', '.join(formats.FORMATS)}")
    own = _from_recipe(recipe) if recipe else _Own()
    paths = list(files or own.files)
    if not paths:
        raise fail("no file to check", fix="name a training file, or a recipe with --recipe")
    name = model or own.model
    tokenizer = _tokenizer(name, own) if name else None
    compared = tuple(dict.fromkeys([*(against or []), *own.against]))
    wish = checking.Wish(
        tokenizer=tokenizer,
        model=name if name and tokenizer else "",
        max_seq_length=max_seq_length or own.max_seq_length,
        format=own.format if format == "auto" else format,
        system=own.system,
        secrets=secrets,
        against=compared,
        items=_items([path for path in compared if path not in paths], own),
    )
    with Progress("Checking (bytes)") as progress:
        report = checking.check(paths, wish, on_progress=progress)
    if as_json:
        typer.echo(json.dumps(rendering.as_json(report), ensure_ascii=False, indent=2))
    else:
        typer.echo("\n".join(rendering.lines(report, limit=limit)))
    if plot is not None:
        from slimtune.data.checking import picture

        picture.plot(report, plot)
        typer.echo(f"Picture: {plot}", err=True)
    if report.count("error"):
        raise typer.Exit(BAD_INPUT)
    if strict and report.count("warning"):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Own:
    """What a recipe says of its data; the defaults are those without one."""

    files: tuple[str, ...] = ()
    model: str | None = None
    revision: str | None = None
    thinking: bool = False
    max_seq_length: int = _DEFAULT_LENGTH
    format: str = "auto"
    system: str | None = None
    against: tuple[str, ...] = ()


def _from_recipe(path: str) -> _Own:
    from slimtune import recipe as recipes

    loaded: Recipe = recipes.load(path)
    held_out = [loaded.data.eval, loaded.evaluate.data if loaded.evaluate else None]
    return _Own(
        files=tuple(source.path for source in loaded.data.train),
        model=loaded.model.base,
        revision=loaded.model.revision,
        thinking=loaded.model.thinking,
        max_seq_length=loaded.model.max_seq_length,
        format=loaded.data.format,
        system=loaded.data.system,
        against=tuple(held for held in held_out if held),
    )


def _tokenizer(name: str, own: _Own) -> ChatTokenizer | None:
    """Of a model on this machine; None, said once, for one on the hub that is not in the cache."""
    from slimtune import base_model
    from slimtune.data.chat import ChatTokenizer

    folder = base_model.locate(name, own.revision if name == own.model else None)
    if folder is not None and (folder / "tokenizer.json").is_file():
        return ChatTokenizer(folder, own.thinking)
    typer.echo(f"{name} is not on this machine: tokens are estimated from characters", err=True)
    return None


def _items(paths: list[str], own: _Own) -> tuple[Conversation, ...]:
    if not paths:
        return ()
    from slimtune.data.loading import load_conversations

    loaded = [load_conversations([(path, 1.0)], system=own.system, format=own.format) for path in paths]
    return tuple(conversation for one in loaded for conversation in one.conversations)
