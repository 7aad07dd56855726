"""`slimtune data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slimtune.core.errors import fail

if TYPE_CHECKING:
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.recipe.schema import Recipe

_DEFAULT_LENGTH = 2048
_BUILT_IN = "builtin:tiny-qwen3"


def preview(
    files: Annotated[
        list[str] | None, typer.Argument(help="Training files of any format, or hub ids; else those of --recipe.")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Rows to show of each file.")] = 5,
    at_random: Annotated[bool, typer.Option("--random", help="Draw the rows instead of taking the first.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawing.")] = 42,
    line: Annotated[int | None, typer.Option("--line", min=1, help="Only the row that begins at this line.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Gives model, thinking, system prompt, mode, format and length."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose template and tokens: a folder, a hub id, builtin:tiny-qwen3.")
    ] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Qwen3's <think> block; as the recipe says, or not.")
    ] = None,
    max_seq_length: Annotated[
        int | None, typer.Option("--max-seq-length", min=1, help="Tokens; what is beyond is marked. 2048 unless given.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page to share instead; needs no network.")
    ] = None,
) -> None:
    """Show training examples exactly as the model sees them: what is learned in green, what is only read dim.

    Special tokens and line ends are visible, tokens are counted. A conversation that is trained on as several
    examples is shown as several.
    """
    from slimtune.core import console as consoles
    from slimtune.core.console import Console
    from slimtune.datatools.preview import preview as previewing
    from slimtune.datatools.preview import preview_text
    from slimtune.recipe import schema as recipes

    if at_random and line is not None:
        raise fail("--random and --line exclude each other", where="--line", fix="choose one of the two")
    wish = recipes.load(recipe) if recipe else None
    paths = files or [source.path for source in wish.data.train] if wish else files
    if not paths:
        raise fail("no file to show", fix="name a training file, or a recipe with --recipe")
    if line is not None and len(paths) > 1:
        raise fail("--line is of one file", where="--line", fix=f"name one of {', '.join(paths)}")
    tokenizer = _tokenizer(model, wish, thinking)
    length = max_seq_length or (wish.model.max_seq_length if wish else _DEFAULT_LENGTH)
    choice = previewing.Choice(count, seed if at_random else None, line)
    with consoles.stderr().bar("Reading (bytes)") as progress:
        found = [
            previewing.preview(
                path,
                tokenizer,
                choice,
                max_seq_length=length,
                mode=wish.data.mode if wish else "auto",
                format=wish.data.format if wish else "auto",
                system=wish.data.system if wish else None,
                on_progress=progress,
            )
            for path in paths
        ]
    console = Console()
    if html is None:
        for one in found:
            preview_text.show(one, console)
    else:
        from slimtune.datatools.preview import preview_html

        preview_html.write(html, found)
        console.say(f"Page: {html}")
    for one in found:
        if one.unread:
            consoles.stderr().warn(preview_text.unread(one))


def _tokenizer(model: str | None, wish: Recipe | None, thinking: bool | None) -> ChatTokenizer:
    """Of the model that is asked for; where none is, the recipes' usual one if it is here, else the built-in one."""
    from slimtune.core import console as consoles
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.models import files as base_model
    from slimtune.recipe.schema import ModelSection

    settings = wish.model if wish else ModelSection()
    name, thinks = model or settings.base, settings.thinking if thinking is None else thinking
    folder = base_model.locate(name, settings.revision if name == settings.base else None)
    if folder is not None and (folder / "tokenizer.json").is_file():
        return ChatTokenizer(folder, thinks)
    if model or wish:
        raise fail(
            f"the tokenizer of {name} is not on this machine",
            where="--model" if model else "model.base",
            fix=f"fetch it:  hf download {name} --include '*.json' --include '*.jinja'\n"
            f"    → or see Qwen3's template, with other token counts: --model {_BUILT_IN}",
        )
    folder = base_model.locate(_BUILT_IN)
    assert folder is not None
    consoles.stderr().say(
        f"No model is named: this is Qwen3's template with the few tokens of {_BUILT_IN}; a real model needs fewer for "
        "the same text. Name yours with --recipe or --model."
    )
    return ChatTokenizer(folder, thinks)
