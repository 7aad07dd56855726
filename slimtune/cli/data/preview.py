"""`slimtune data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from slimtune.cli.options import OptionalFilesArgument
from slimtune.core.errors import fail

if TYPE_CHECKING:
    from rich.text import Text

    from slimtune.core.console import Console
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.datatools.preview.preview import Preview, Previews
    from slimtune.recipe.schema import Recipe

_DEFAULT_LENGTH = 2048
_BUILT_IN = "builtin:tiny-qwen3"
LEARNED = ("⟦", "⟧")
"""Around supervised text if the console has no colour."""


def preview(
    files: OptionalFilesArgument = None,
    count: Annotated[int, Option("-n", min=1, help="Rows to show per file.")] = 5,
    at_random: Annotated[bool, Option("--random", help="Show random rows instead of the first.")] = False,
    seed: Annotated[int, Option("--seed", min=0, help="Random seed for --random.")] = 42,
    line: Annotated[int | None, Option("--line", min=1, help="Show only the row that starts at this line.")] = None,
    recipe: Annotated[
        str | None,
        Option("--recipe", "-r", help="Recipe with the model, thinking, system prompt, mode, format and length."),
    ] = None,
    model: Annotated[
        str | None,
        Option("--model", help="Model with the template and tokenizer: a folder, a hub id, builtin:tiny-qwen3."),
    ] = None,
    thinking: Annotated[
        bool | None,
        Option("--thinking/--no-thinking", help="Render with thinking on. Default: the recipe's value, or off."),
    ] = None,
    max_seq_length: Annotated[
        int | None,
        Option("--max-seq-length", min=1, help="Mark tokens beyond this length. Default: the recipe's value, or 2048."),
    ] = None,
    html: Annotated[Path | None, Option("--html", help="Write a page instead. It needs no network.")] = None,
) -> None:
    """Show training examples exactly as the model sees them: supervised text in green, the rest dim.

    Special tokens and line ends are visible, and tokens are counted. A conversation that gives several examples is shown
    as several.
    """
    from slimtune.core import console as consoles
    from slimtune.core.console import Console
    from slimtune.core.files import write_text
    from slimtune.datatools.preview import preview as previewing
    from slimtune.datatools.preview import text
    from slimtune.recipe import loading as recipes

    if at_random and line is not None:
        raise fail("--random and --line exclude each other", where="--line", fix="choose one")
    wish = recipes.load(recipe) if recipe else None
    paths = files or [source.path for source in wish.data.train] if wish else files
    if not paths:
        raise fail("no file to show", fix="give a training file, or a recipe with --recipe")
    if html is not None and not html.parent.is_dir():
        raise fail(f"the folder {html.parent} does not exist", where="--html", fix="create it first")
    if line is not None and len(paths) > 1:
        raise fail("--line needs a single file", where="--line", fix=f"give one of {', '.join(paths)}")
    tokenizer = _tokenizer(model, wish, thinking)
    length = max_seq_length or (wish.model.max_seq_length if wish else _DEFAULT_LENGTH)
    choice = previewing.Selection(count, seed if at_random else None, line)
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
            show(one, console)
    else:
        write_text(html, text.page(found))
        console.say(f"Page: {html}")
    for one in found:
        if one.unread:
            consoles.stderr().warn(text.unread(one))


def _tokenizer(model: str | None, wish: Recipe | None, thinking: bool | None) -> ChatTokenizer:
    """The tokenizer of the requested model. Without one: the default base if it is on this machine, else the built-in."""
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
            fix=f"download it:  hf download {name} --include '*.json' --include '*.jinja'\n"
            f"    → or use the built-in model's template, with other token counts: --model {_BUILT_IN}",
        )
    folder = base_model.locate(_BUILT_IN)
    assert folder is not None
    consoles.stderr().say(
        f"No model given: this is the template of {_BUILT_IN}, which has a small vocabulary. A real model needs fewer "
        "tokens for the same text. Choose yours with --recipe or --model."
    )
    return ChatTokenizer(folder, thinks)


def show(found: Previews, console: Console) -> None:
    """Print the examples of a file, in colour if the console has any."""
    from slimtune.datatools.preview import text

    coloured = console.out.color_system is not None and not console.out.no_color
    console.step(text.summary(found))
    learned = "Green" if coloured else f"{LEARNED[0]}…{LEARNED[1]}"
    special = " Special tokens are reversed." if coloured else ""
    console.say(
        f"{learned} text carries loss; the model only reads the rest.{special} {text.NEWLINE} marks the end of a line."
    )
    for one in found.examples:
        console.out.print()
        console.step(text.title(one))
        console.say(text.figures(one))
        if one.too_many:
            console.warn(text.overlong(one))
        console.out.print(body(one, coloured), soft_wrap=True)


def body(one: Preview, coloured: bool) -> Text:
    """The text of an example. coloured: with styles; otherwise ⟦…⟧ encloses supervised text."""
    from rich.text import Text

    from slimtune.datatools.preview import text

    shown, inside, within = Text(), False, True
    for segment in one.segments:
        if not coloured and segment.supervised != inside:
            inside = segment.supervised
            shown.append(LEARNED[0] if inside else LEARNED[1])
        if segment.beyond and within:
            within = False
            shown.append(f"⟨max_seq_length {one.max_seq_length:,} ends here⟩", style="bold red" if coloured else "")
        style = "bold green" if segment.supervised else "dim"
        shown.append(text.visible(segment.text), style=f"{style} reverse" if segment.special else style)
    if inside:
        shown.append(LEARNED[1])
    return shown
