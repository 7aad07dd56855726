"""`slimtune data preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from slimtune.cli.data import recipes
from slimtune.cli.options import OptionalFilesArgument, OverwriteOption
from slimtune.core import outputs
from slimtune.core.errors import fail

if TYPE_CHECKING:
    from rich.text import Text

    from slimtune.core.console import Console
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.datatools.preview import Preview, Previews
    from slimtune.recipe.schema import Recipe

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
    overwrite: OverwriteOption = False,
) -> None:
    """Show training examples exactly as the model sees them: supervised text in green, the rest dim.

    Special tokens and line ends are visible, and tokens are counted. A conversation that gives several examples is shown
    as several.
    """
    from slimtune.core import console as consoles
    from slimtune.core.console import Console
    from slimtune.data.text import tokens_of
    from slimtune.datatools import preview as previewing

    if at_random and line is not None:
        raise fail("--random and --line exclude each other", where="--line", fix="choose one")
    settings, paths = recipes.read(recipe, files, model, to="show")
    target = None
    if html is not None:
        reads = recipes.inputs(recipe, settings, paths, model)
        target = outputs.file(html, option="--html", reads=reads, overwrite=overwrite, ours=_is_ours)
    if line is not None and len(paths) > 1:
        raise fail("--line needs a single file", where="--line", fix=f"give one of {', '.join(paths)}")
    tokenizer = _tokenizer(model, recipe, settings, thinking)
    choice = previewing.Selection(count, seed if at_random else None, line)
    known = tokenizer.control_tokens if model or recipe else None
    with consoles.stderr().bar("Reading (bytes)") as progress, tokens_of(known):
        found = [
            previewing.preview(
                path,
                tokenizer,
                choice,
                max_seq_length=max_seq_length or settings.model.max_seq_length,
                mode=settings.data.mode,
                format=settings.data.format,
                system=settings.data.system,
                on_progress=progress,
            )
            for path in paths
        ]
    console = Console()
    if target is None:
        for one in found:
            show(one, console)
    else:
        outputs.write(target, previewing.page(found), overwrite=overwrite, ours=_is_ours)
        console.say(f"Page: {html}")
    for one in found:
        if one.refused:
            consoles.stderr().warn(f"{one.path}: {one.refused}")
        if one.unread:
            consoles.stderr().warn(one.unread)


def _is_ours(path: Path) -> bool:
    """Whether the file is such a page."""
    return outputs.made_here(path, "Training examples")


def _tokenizer(model: str | None, recipe: str | None, settings: Recipe, thinking: bool | None) -> ChatTokenizer:
    """The tokenizer of the requested model. Without one: the default base if it is on this machine, else the built-in."""
    from slimtune.core import console as consoles

    name = model or settings.model.base
    tokenizer = recipes.tokenizer_of(name, settings, thinking)
    if tokenizer is None and (model or recipe):
        raise fail(
            f"the tokenizer of {name} is not on this machine",
            where="--model" if model else "model.base",
            fix=f"download it:  hf download {name} --include '*.json' --include '*.jinja'\n"
            f"    → or use the built-in model's template, with other token counts: --model {_BUILT_IN}",
        )
    if tokenizer is None:
        consoles.stderr().say(
            f"No model given: this is the template of {_BUILT_IN}, which has a small vocabulary. A real model needs "
            "fewer tokens for the same text. Choose yours with --recipe or --model."
        )
        tokenizer = recipes.tokenizer_of(_BUILT_IN, settings, thinking)
        assert tokenizer is not None
    return tokenizer


def show(found: Previews, console: Console) -> None:
    """Print the examples of a file, in colour if the console has any."""
    from slimtune.datatools.preview import NEWLINE

    coloured = console.out.color_system is not None and not console.out.no_color
    console.step(found.summary)
    learned = "Green" if coloured else f"{LEARNED[0]}…{LEARNED[1]}"
    special = " Special tokens are reversed." if coloured else ""
    console.say(
        f"{learned} text carries loss; the model only reads the rest.{special} {NEWLINE} marks the end of a line."
    )
    for one in found.examples:
        console.out.print()
        console.step(one.title)
        console.say(one.figures)
        if one.overlong:
            console.warn(one.overlong)
        console.out.print(body(one, coloured), soft_wrap=True)


def body(one: Preview, coloured: bool) -> Text:
    """The text of an example. coloured: with styles; otherwise ⟦…⟧ encloses supervised text."""
    from rich.text import Text

    shown, inside, within = Text(), False, True
    for segment in one.segments:
        if not coloured and segment.supervised != inside:
            inside = segment.supervised
            shown.append(LEARNED[0] if inside else LEARNED[1])
        if segment.beyond and within:
            within = False
            shown.append(f"⟨max_seq_length {one.max_seq_length:,} ends here⟩", style="bold red" if coloured else "")
        style = "bold green" if segment.supervised else "dim"
        shown.append(segment.visible, style=f"{style} reverse" if segment.special else style)
    if inside:
        shown.append(LEARNED[1])
    return shown
