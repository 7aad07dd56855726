"""A report of `check` for a terminal and for a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from slimtune.data.checking.check import FileFigures, Report
from slimtune.data.checking.findings import Finding
from slimtune.plan import packing

_PADDED_BATCH = 8
"""Examples of the padded batch that packing is compared with."""
LEVELS = ("error", "warning", "note")


def lines(report: Report, *, limit: int) -> list[str]:
    """The figures of each file; then the findings, worst first, those of a kind together, at most `limit` of each."""
    said: list[str] = []
    for file in report.files:
        said += [*_figures(file, report), ""]
    for level in LEVELS:
        ordered = sorted((one for one in report.findings if one.level == level), key=lambda one: one.code)
        for code, alike in groupby(ordered, key=lambda one: one.code):
            said += [*_kind(level, code, list(alike), limit), ""]
    said.append(closing(report))
    return said


def closing(report: Report) -> str:
    """ "3 files, 400 rows: 2 errors, 1 warning, 0 notes"."""
    counts = ", ".join(plural(report.count(level), level) for level in LEVELS)
    rows = sum(file.rows for file in report.files)
    return f"{plural(len(report.files), 'file')}, {plural(rows, 'row')}: {counts}"


def as_json(report: Report) -> dict[str, Any]:
    """Everything: each file's figures, every finding, how many there are of each level."""
    return {
        "files": [_file_json(file, report) for file in report.files],
        "model": report.model or None,
        "max_seq_length": report.max_seq_length,
        "against": list(report.against),
        "counts": {level: report.count(level) for level in LEVELS},
        "findings": [asdict(finding) for finding in report.findings],
    }


def plural(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def label_shares(file: FileFigures) -> dict[str, float]:
    """Right label to its share of the labelled rows, in the labels' order."""
    total = sum(file.answers.labels.values())
    return {label: count / total for label, count in sorted(file.answers.labels.items())}


def _figures(file: FileFigures, report: Report) -> list[str]:
    modes = ", ".join(f"{count:,} {mode}" for mode, count in sorted(file.answers.modes.items()) if mode != "none")
    refused = f", {file.rows - file.sound:,} of them refused" if file.rows > file.sound else ""
    layout = f" in the layout {file.format}" if file.format else ""
    said = [f"{file.path}: {plural(file.rows, 'row')}{layout}{refused}" + (f" ({modes})" if modes else "")]
    spread = file.lengths.percentiles()
    if spread:
        counted = f"counted for {report.model}" if file.lengths.tokenizer else "estimated from characters"
        named = ", ".join(f"{name} {length:,}" for name, length in spread.items())
        said.append(f"  tokens   {named}; {sum(file.lengths.tokens):,} in all ({counted})")
        count, share = file.lengths.cut()
        said.append(
            f"  length   {count:,} of {len(file.lengths.tokens):,} ({share:.1%}) longer than {report.max_seq_length:,}"
        )
        filled = packing.pack(file.lengths.tokens, report.max_seq_length, _PADDED_BATCH)
        said += [f"  packing  {filled}"] if filled else []
    shares = label_shares(file)
    if shares:
        shown = ", ".join(f"{label} {share:.1%}" for label, share in list(shares.items())[:12])
        said.append(f"  answers  {shown}")
    return said


def _kind(level: str, code: str, alike: Sequence[Finding], limit: int) -> list[str]:
    shown = alike[:limit]
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
    filled = packing.pack(file.lengths.tokens, report.max_seq_length, _PADDED_BATCH)
    return {
        "path": file.path,
        "format": file.format or None,
        "rows": file.rows,
        "sound": file.sound,
        "modes": dict(file.answers.modes),
        "labels": dict(sorted(file.answers.labels.items())),
        "packing": asdict(filled) if filled else None,
        "tokens": {
            "exact": file.lengths.tokenizer is not None,
            "total": sum(file.lengths.tokens),
            "supervised": sum(file.lengths.supervised),
            **file.lengths.percentiles(),
            "longer_than_max_seq_length": count,
            "share_longer": round(share, 6),
            "histogram": [{"from": start, "examples": examples} for start, examples in file.lengths.histogram()],
        },
    }
