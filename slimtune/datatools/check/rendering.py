"""A report of `check` for a terminal and for a program."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from slimtune.core.findings import LEVELS, Finding
from slimtune.core.units import plural
from slimtune.data.preference_keys import NAMES
from slimtune.datatools.check.check import FileFigures, Report
from slimtune.plan import batching
from slimtune.plan.explain.suggestions import Suggestion

# Examples of the padded batch that packing is compared with.
_PADDED_BATCH = 8
# A sound file gets no finding: "ok" does not occur here.
_COUNTED = LEVELS[:3]
_KINDS_FOR_A_TABLE = 3


def lines(report: Report, *, limit: int, advice: Sequence[str] = ()) -> list[str]:
    """The figures of each file, and advice; then the findings, worst first, those of a kind together.

    limit: findings shown of each kind.
    """
    said: list[str] = []
    for file in report.files:
        said += [*_figures(file, report), ""]
    if advice:
        said += [advice[0], *(f"  {line}" for line in advice[1:]), ""]
    ordered = sorted(report.findings, key=lambda one: (LEVELS.index(one.level), one.code))
    kinds = [list(alike) for _, alike in groupby(ordered, key=lambda one: (one.level, one.code))]
    for alike in kinds:
        said += [*_kind(alike, limit), ""]
    if len(kinds) >= _KINDS_FOR_A_TABLE:
        said += [*_table(kinds), ""]
    said.append(closing(report))
    return [_one_line(line) for line in said]


def closing(report: Report) -> str:
    """ "3 files, 400 rows: 2 errors, 1 warning, 0 notes"."""
    counts = ", ".join(plural(report.count(level), level) for level in _COUNTED)
    rows = sum(file.rows for file in report.files)
    return f"{plural(len(report.files), 'file')}, {plural(rows, 'row')}: {counts}"


def as_json(report: Report, suggested: Sequence[Suggestion] = ()) -> dict[str, Any]:
    """Everything: each file's figures, every finding, how many there are of each level, what others train with."""
    return {
        "files": [_file_json(file, report) for file in report.files],
        "model": report.model or None,
        "max_seq_length": report.max_seq_length,
        "against": list(report.against),
        "counts": {level: report.count(level) for level in _COUNTED},
        "findings": [asdict(finding) for finding in report.findings],
        "suggestions": [asdict(one) for one in suggested],
    }


def label_shares(file: FileFigures) -> dict[str, float]:
    """Right label to its share of the labelled rows, in the labels' order."""
    total = sum(file.answers.labels.values())
    return {label: count / total for label, count in sorted(file.answers.labels.items())}


def _figures(file: FileFigures, report: Report) -> list[str]:
    modes = ", ".join(f"{count:,} {mode}" for mode, count in sorted(file.answers.modes.items()) if mode != "none")
    if file.other_mode:
        modes = f"{modes or 'none'}; {file.other_mode:,} of another mode, left out"
    refused = f", {file.rows - file.sound:,} of them refused" if file.rows > file.sound else ""
    layout = f", {name}" if (name := NAMES.get(file.format)) else f" in the layout {file.format}" if file.format else ""
    said = [f"{file.path}: {plural(file.rows, 'row')}{layout}{refused}" + (f" ({modes})" if modes else "")]
    spread = file.lengths.percentiles()
    if spread:
        counted = f"counted for {report.model}" if file.lengths.tokenizer else "estimated from characters"
        named = ", ".join(f"{name} {length:,}" for name, length in spread.items())
        said.append(f"  tokens   {named}; {sum(file.lengths.tokens):,} in all ({counted})")
        said.append(f"  length   {_cut(file)}")
        filled = batching.compare_packing(file.lengths.tokens, report.max_seq_length, _PADDED_BATCH)
        said += [f"  packing  {filled}"] if filled else []
    shares = label_shares(file)
    if shares:
        shown = ", ".join(f"{label} {share:.1%}" for label, share in list(shares.items())[:12])
        said.append(f"  answers  {shown}")
    return said


def _cut(file: FileFigures) -> str:
    """ "12 of 400 examples (3.0%) longer than 2,048, …", and what of the responses lies beyond."""
    lengths = file.lengths
    count, share = lengths.cut()
    if not count:
        return f"none of {len(lengths.tokens):,} examples longer than {lengths.max_seq_length:,}"
    responses = f"{lengths.cut_tokens / sum(lengths.supervised):.1%} of the response tokens beyond"
    lost = f", {lengths.lost_examples:,} of them with all of their response" if lengths.lost_examples else ""
    examples = f"{count:,} of {len(lengths.tokens):,} examples ({share:.1%})"
    return f"{examples} longer than {lengths.max_seq_length:,}, {responses}{lost}"


def _table(kinds: Sequence[Sequence[Finding]]) -> list[str]:
    """Kind by kind how many there are and where the first is: the end of a long report, which a screen shows."""
    rows: list[tuple[str, str, str, str]] = [("level", "kind", "count", "first")]
    rows += [(alike[0].level, alike[0].code, f"{len(alike):,}", alike[0].where) for alike in kinds]
    level, code, number = (max(len(row[column]) for row in rows) for column in range(3))
    return [f"{row[0]:{level}}  {row[1]:{code}}  {row[2]:>{number}}  {row[3]}" for row in rows]


def _one_line(text: str) -> str:
    """What a terminal would take for a command or a line break, such as an escape in a file's text, as its code."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _kind(alike: Sequence[Finding], limit: int) -> list[str]:
    level, code, shown = alike[0].level, alike[0].code, alike[:limit]
    one_fix = len({finding.fix for finding in alike}) == 1
    said = [f"{level}: {code}" + (f" ({len(alike):,})" if len(alike) > 1 else "")]
    for finding in shown:
        said.append(f"  {finding.where}: {finding.what}")
        said += [f"    → {finding.fix}"] if finding.fix and not one_fix else []
    if len(alike) > limit:
        said.append(f"  … and {len(alike) - limit:,} more: --limit {len(alike)} or --json shows them")
    return [*said, f"  → {shown[0].fix}"] if one_fix and shown[0].fix else said


def _file_json(file: FileFigures, report: Report) -> dict[str, Any]:
    count, share = file.lengths.cut()
    filled = batching.compare_packing(file.lengths.tokens, report.max_seq_length, _PADDED_BATCH)
    return {
        "path": file.path,
        "format": file.format or None,
        "rows": file.rows,
        "sound": file.sound,
        "other_mode": file.other_mode,
        "modes": dict(file.answers.modes),
        "tasks": dict(file.answers.tasks),
        "labels": dict(sorted(file.answers.labels.items())),
        "packing": asdict(filled) if filled else None,
        "tokens": {
            "exact": file.lengths.tokenizer is not None,
            "total": sum(file.lengths.tokens),
            "supervised": sum(file.lengths.supervised),
            **file.lengths.percentiles(),
            "longer_than_max_seq_length": count,
            "share_longer": round(share, 6),
            "supervised_beyond": file.lengths.cut_tokens,
            "examples_without_response": file.lengths.lost_examples,
            "histogram": [{"from": start, "examples": examples} for start, examples in file.lengths.histogram()],
        },
    }
