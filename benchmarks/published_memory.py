"""The plan's memory predictions beside peaks that others have published: where do they agree, and what explains the rest?

    python benchmarks/published_memory.py                           # the tables
    python benchmarks/published_memory.py --output published.json   # and all figures

Pure arithmetic, a second, on any machine. The published figures, their conditions and their sources are in
published_memory.json. They are of other releases, other stacks and other cards, so nothing is fitted to them: a row that is
off by more than 10 % names the terms of the prediction that the difference can come from.

Three comparisons. Loaded: weights and adapter before the first step. Peak: for rows whose micro-batch is known; where only
the longest allowed row is known, the peak must lie between what is loaded and the peak with rows of that length. Context:
the longest row that fits a card of some size.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(ROOT)

PUBLISHED = Path(__file__).with_suffix(".json")


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks import published_rows as rows

    parser = argparse.ArgumentParser(prog="published_memory.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, help="all figures, as JSON")
    options = parser.parse_args(arguments)
    result = rows.compare(json.loads(PUBLISHED.read_text(encoding="utf-8")))
    print(table(result))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def table(result: Mapping[str, Any]) -> str:
    """What was compared, for a terminal of 80 columns."""
    from benchmarks import published_rows as rows

    expressed = [row for row in result["rows"] if "why" not in row]
    lines = [
        f"{len(expressed)} of {len(result['rows'])} published peaks can be expressed. GiB, published / predicted:",
        "",
    ]
    lines.append(f"{'':3} {'stack':12} {'model':21} {'tokens':>7} {'loaded':>15} {'peak':>16}")
    reasons: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(expressed, start=1):
        loaded, peak = row.get("loaded"), row["peak"]
        tokens = f"{row['tokens']:,}" if row["tokens"] else f"≤{row['tokens_at_most']:,}"
        shown = f"{loaded['published']:.2f} / {loaded['predicted']:.2f}" if loaded else ""
        most = f"{'' if 'off' in peak else '≤'}{peak['predicted']:.2f}"
        lines.append(
            f"{number:>2}{' ' if rows.agrees(row) else '*'} {row['stack'].removeprefix('Unsloth ')[:12]:12} "
            f"{row['model'].split('/')[-1][:21]:21} {tokens:>7} {shown:>15} {peak['published']:>6.2f} / {most:>6}"
        )
        for reason in row.get("may_explain", {}).items():
            reasons.setdefault(reason, []).append(number)
    lines += ["", f"* off by more than {result['agrees_within']:.0%}, or out of bounds. What may explain it:"]
    for (term, why), numbers in reasons.items():
        lines += textwrap.wrap(
            f"{term}: {why} ({_ranges(numbers)})", 78, initial_indent="  ", subsequent_indent="      "
        )
    lines += ["", "Not expressed, as the plan has no such setting or the sizes are not known:"]
    lines += [
        f"  {count:>2} {why}" for why, count in Counter(row["why"] for row in result["rows"] if "why" in row).items()
    ]
    found = result["longest_context"]
    lines += ["", f"The longest row of {found['shape']}, {found['stack']}:"]
    for one in found["rows"]:
        lines.append(
            f"  {one['card_gb']:>3} GB {one['published']:>8,} / {one['predicted']:>8,} tokens  {one['off']:+.0%}"
        )
    slopes = found["bytes_a_token"]
    lines.append(f"  {slopes['published']:,} / {slopes['predicted']:,} bytes a token")
    return "\n".join(lines)


def _ranges(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 7] as "1 to 3, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


if __name__ == "__main__":
    raise SystemExit(main())
