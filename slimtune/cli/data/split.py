"""`slimtune data split`."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from slimtune.cli.options import OverwriteOption
from slimtune.core.errors import Problem, SlimtuneError, fail

if TYPE_CHECKING:
    from slimtune.core.console import Console


def split(
    files: Annotated[list[str], Argument(help="Training files in any format. Several files are split together.")],
    test: Annotated[str, Option("--test", help="Questions in the test set: a number (40) or a share (0.25).")],
    dev: Annotated[str, Option("--dev", help="Questions in the dev set: a number or a share.")] = "0",
    out: Annotated[Path | None, Option("--out", help="Output folder. Default: that of the first file.")] = None,
    manifest: Annotated[str, Option("--manifest", help="Name of the manifest, split*.json.")] = "split.json",
    seed: Annotated[int, Option("--seed", min=0, help="Random seed for the split.")] = 42,
    threshold: Annotated[
        float, Option("--threshold", min=0.5, max=1, help="Questions at least this similar are near duplicates.")
    ] = 0.8,
    overwrite: OverwriteOption = False,
    extend: Annotated[
        bool, Option("--extend", help="Keep the manifest's questions in place and add new ones.")
    ] = False,
    again: Annotated[bool, Option("--again", help="Split again and ignore the manifest.")] = False,
) -> None:
    """Split training files into train, dev and test, balanced by label and source. No question is in two of them.

    Questions on one context, equal questions and near duplicates stay together. split.json records which question went
    where. Runs record it, and it is never replaced silently.
    """
    from slimtune.core import console as consoles
    from slimtune.core.console import Console
    from slimtune.datatools.split.split_files import split_files

    if extend and again:
        raise fail("--extend and --again exclude each other", where="--extend", fix="choose one")
    if not (manifest.startswith("split") and manifest.endswith(".json") and "/" not in manifest):
        raise fail(
            f"'{manifest}' is not a valid manifest name",
            where="--manifest",
            fix="use split*.json, for example split-law.json",
        )
    problems: list[Problem] = []
    sizes = {"test": _size(test, "--test", problems), "dev": _size(dev, "--dev", problems)}
    if problems:
        raise SlimtuneError(problems)
    if not any(sizes.values()):
        raise fail("nothing is held out", where="--test", fix="use for example --test 40 or --test 0.25")
    with consoles.stderr().bar("Reading and comparing") as progress:
        outcome = split_files(
            files,
            **sizes,
            out=out,
            manifest_name=manifest,
            seed=seed,
            threshold=threshold,
            overwrite=overwrite,
            redo="extend" if extend else "again" if again else "no",
            on_progress=progress,
        )
    console = Console()
    _show(console, outcome.manifest)
    for note in outcome.notes:
        console.warn(note)
    console.say(f"{outcome.path}: {'unchanged' if outcome.unchanged else 'written'}")


def _size(text: str, option: str, problems: list[Problem]) -> int | float:
    """A number of questions as int, or a share as float; anything else is added to `problems`."""
    if re.fullmatch(r"\d{1,9}", text):
        return int(text)
    with contextlib.suppress(ValueError):
        if 0 <= (share := float(text)) < 1:
            return share
    fix = "give a number of questions (40) or a share (0.25)"
    problems.append(Problem(f"'{text}' is not a valid size", option, fix))
    return 0


def _show(console: Console, manifest: dict[str, Any]) -> None:
    splits = {name: part for name, part in manifest["splits"].items() if part["count"]}
    whole = sum((Counter(part["labels"]) for part in splits.values()), Counter[str]())
    rows = Counter[str]()
    for entry in manifest["files"]:
        rows[entry["split"]] += entry["rows"]
    everything = sum(part["count"] for part in splits.values())
    all_shares = _shares(whole, everything)
    table = [("split", "questions", "rows", "labels", "largest difference")]
    table.append(("all", str(everything), str(rows.total()), _shown(all_shares), ""))
    for name, part in splits.items():
        shares = _shares(part["labels"], part["count"])
        largest = max((abs(shares.get(label, 0.0) - share) for label, share in all_shares.items()), default=0.0)
        difference = f"{100 * largest:.1f} points" if whole else ""
        table.append((name, str(part["count"]), str(rows[name]), _shown(shares), difference))
    console.table("Split", table)
    groups = manifest["groups"]
    if groups["count"] < everything:
        what = f"{everything:,} questions form {groups['count']:,} groups that stay together"
        console.say(f"{what}. The largest has {groups['largest']:,}.")


def _shares(counts: Mapping[str, int], of: int) -> dict[str, float]:
    return {label: count / of for label, count in sorted(counts.items())}


def _shown(shares: dict[str, float]) -> str:
    return "  ".join(f"{label[:12]} {100 * share:.1f} %" for label, share in shares.items()) or "none"
