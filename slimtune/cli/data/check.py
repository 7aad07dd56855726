"""`slimtune data check`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from typer import Option

from slimtune.cli.data import recipes
from slimtune.cli.options import OptionalFilesArgument, OverwriteOption, picture_file
from slimtune.core.console import echo, echo_json
from slimtune.core.errors import BAD_INPUT, fail
from slimtune.recipe.names import FormatName

if TYPE_CHECKING:
    from slimtune.datatools.check.check import Report
    from slimtune.plan.explain.suggestions import PlanFacts
    from slimtune.recipe.schema import Recipe


def check(
    files: OptionalFilesArgument = None,
    recipe: Annotated[
        str | None, Option("--recipe", "-r", help="Recipe with the model, length, system prompt and evaluation files.")
    ] = None,
    model: Annotated[
        str | None, Option("--model", help="Model whose tokenizer counts: a folder, a hub id, builtin:tiny-qwen3.")
    ] = None,
    max_seq_length: Annotated[
        int | None,
        Option(
            "--max-seq-length", min=1, help="Report examples with more tokens. Default: the recipe's value, or 2048."
        ),
    ] = None,
    format: Annotated[str, Option("--format", help="Layout of the files. auto: detect it.")] = "auto",
    against: Annotated[
        list[str] | None,
        Option("--against", help="Evaluation file that must not be in the training files. Repeatable."),
    ] = None,
    secrets: Annotated[
        bool, Option("--secrets/--no-secrets", help="Search for keys, passwords, personal numbers.")
    ] = True,
    limit: Annotated[int, Option("--limit", min=1, help="Findings to show per kind.")] = 5,
    plot: Annotated[Path | None, Option("--plot", help="Draw lengths, answers and findings (PNG).")] = None,
    overwrite: OverwriteOption = False,
    as_json: Annotated[bool, Option("--json", help="Print everything as JSON.")] = False,
    strict: Annotated[bool, Option("--strict", help="Exit with 1 if there are warnings.")] = False,
) -> None:
    """Check training files before you train: rows that would be refused, and rows that would not train as you meant.

    Errors are rows that the loader refuses; they give exit code 2. Several files count as one training set. With a recipe,
    they are also compared with its evaluation: another kind, language, system prompt, style or form of question.
    """
    from slimtune.core import console
    from slimtune.data import formats
    from slimtune.data.text import tokens_of
    from slimtune.datatools.check import check as checking
    from slimtune.datatools.check import contamination, rendering
    from slimtune.plan.explain import suggestions
    from slimtune.run import suitability

    if format not in formats.FORMATS:
        raise fail(f"unknown format '{format}'", where="--format", fix=f"use one of {', '.join(formats.FORMATS)}")
    settings, paths = recipes.read(recipe, files, model, to="check")
    reads = recipes.inputs(recipe, settings, [*paths, *(against or [])], model)
    picture_path = picture_file(plot, reads, "data check", overwrite=overwrite) if plot else None
    name = model or (settings.model.base if recipe else "")
    tokenizer = recipes.tokenizer_of(name, settings) if name else None
    if name and not tokenizer:
        echo(f"{name} is not on this machine: tokens are estimated from characters", err=True)
    held_out = [settings.data.eval, settings.evaluate.data if settings.evaluate else None]
    with tokens_of(tokenizer.control_tokens if tokenizer else None):
        with console.stderr().bar("Reading evaluation files") as progress:
            compared = [*(against or []), *(path for path in held_out if path)]
            evaluation = contamination.read(compared, on_progress=progress)
            judges = suitability.judge_of(settings, tokenizer, known=evaluation.findings) if recipe else None
        wish = checking.CheckSettings(
            tokenizer=tokenizer,
            model=name if tokenizer else "",
            max_seq_length=max_seq_length or settings.model.max_seq_length,
            format=settings.data.format if format == "auto" else format,
            system=settings.data.system,
            mode=settings.data.mode,
            secrets=secrets,
            of_recipe=recipe is not None,
            evaluation=evaluation,
            judges=judges,
        )
        with console.stderr().bar("Checking (%)") as progress:
            report = checking.check(paths, wish, on_progress=progress)
    facts = _facts(report, settings, name or settings.model.base)
    suggested = suggestions.suggest(facts) if facts else ()
    if as_json:
        echo_json(rendering.as_json(report, suggested))
    else:
        advice = suggestions.lines(facts, suggested) if facts else []
        if advice and not recipe:
            advice[0] += f". Values: the defaults of a recipe. Model: {settings.model.base}"
        echo("\n".join(rendering.lines(report, limit=limit, advice=advice)))
    if picture_path is not None:
        from slimtune.datatools.check import picture

        picture.plot(report, picture_path, overwrite=overwrite)
        echo(f"Picture: {plot}", err=True)
    if report.count("error"):
        raise typer.Exit(BAD_INPUT)
    if strict and report.count("warning"):
        raise typer.Exit(1)


def _facts(report: Report, settings: Recipe, name: str) -> PlanFacts | None:
    """The basis of the advice; None without rows, or for an unknown model."""
    from slimtune.models import files as base_model
    from slimtune.models import shapes as models
    from slimtune.plan.explain import suggestions
    from slimtune.run.prepare import request_of

    weights = {source.path: source.weight for source in settings.data.train}
    tasks: Counter[suggestions.Task] = Counter()
    for file in report.files:
        for task, count in file.answers.tasks.items() if file.format in get_args(FormatName) else ():
            tasks[task] += round(count * weights.get(file.path, 1.0))
    folder = recipes.folder_of(name, settings)
    shape = models.from_config(base_model.read_config(folder), name) if folder else models.find(name)
    if shape is None or not tasks.total():
        return None
    supervised = sum(sum(file.lengths.supervised) for file in report.files)
    return suggestions.facts_of(request_of(settings), tasks, supervised, shape)
