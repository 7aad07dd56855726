"""The report's section on the response mask: what carries loss, in colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimtune.core.run_folder import as_dict, as_list


def section(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of mask_audit.json, and its previews with line ends that carry loss made visible."""
    previews = []
    for preview in map(as_dict, as_list(audit.get("preview"))):
        segments = []
        for segment in map(as_dict, as_list(preview.get("segments"))):
            text, supervised = str(segment.get("text", "")), bool(segment.get("supervised"))
            segments.append({"text": text.replace("\n", "⏎\n") if supervised else text, "supervised": supervised})
        previews.append({"where": str(preview.get("where", "")), "segments": segments})
    figures = []
    if isinstance(audit.get("supervised_tokens"), int) and isinstance(audit.get("tokens"), int) and audit["tokens"]:
        share = 100 * audit["supervised_tokens"] / audit["tokens"]
        figures.append(f"{audit['supervised_tokens']:,} of {audit['tokens']:,} tokens ({share:.2f} %) carry loss")
    if isinstance(audit.get("rows"), int):
        figures.append(f"{audit['rows']:,} rows in {audit.get('batches', '?')} batches looked at")
    if audit.get("refined_rows"):
        figures.append(f"markers corrected to the computed boundary in {audit['refined_rows']:,} rows")
    return {"figures": "; ".join(figures), "previews": previews}
