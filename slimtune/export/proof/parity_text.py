"""parity.json in words, for the screen and the report. No torch."""

from collections.abc import Mapping
from typing import Any

from slimtune.core.run_folder import as_dict, as_list

TITLE = "Parity: prompts on which each file agrees with the merged model"
HEADING = ("", "prompt ids", "template", "answers", "stops", "KL", "verdict's questions")


def rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row of HEADING's columns for each GGUF; [] where none was compared."""
    return [_row(name, as_dict(check)) for name, check in as_dict(content.get("files")).items()]


def sentences(content: Mapping[str, Any]) -> list[str]:
    """What stands below the table: the merged model and the adapter, and the chat template."""
    told = []
    merged, rendering = as_dict(content.get("merged")), as_dict(content.get("rendering"))
    if merged:
        told.append(_merged(merged))
    if rendering:
        total = rendering.get("conversations")
        counts = {f"think {name}": count for name, count in as_dict(rendering.get("think")).items()}
        counts["tokens"] = rendering.get("ids_equal")
        equal = f"{total}" if set(counts.values()) == {total} else ", ".join(f"{one} {n}" for one, n in counts.items())
        told.append(f"Chat template: {equal} of {total} generated conversations match training")
    return told


def problems(content: Mapping[str, Any]) -> list[str]:
    """What forbids the export."""
    return [str(problem) for problem in as_list(content.get("problems"))]


def _row(name: str, check: Mapping[str, Any]) -> tuple[str, ...]:
    ties = check.get("near_ties")
    answers = _of(check.get("answers_equal"), check.get("prompts")) + (f", {ties} near ties" if ties else "")
    divergence = check.get("kl_mean")
    return (
        str(name),
        _of(check.get("ids_equal"), check.get("prompts")),
        _of(check.get("templates_equal"), check.get("templates")),
        answers,
        _of(check.get("ends_equal"), check.get("ended")),
        f"{divergence:.2g}" if isinstance(divergence, int | float) else "–",
        _questions(as_dict(check.get("verdict_questions"))),
    )


def _of(equal: Any, total: Any) -> str:
    return f"{equal} of {total}" if total else "–"


def _questions(found: Mapping[str, Any]) -> str:
    return f"{found.get('correct')} of {found.get('asked')} right, {found.get('flipped')} flipped" if found else "–"


def _merged(merged: Mapping[str, Any]) -> str:
    if not merged.get("compared"):
        return f"The merged model was not compared with the adapter: {merged.get('reason')}"
    told = f"Merged model and adapter: {merged.get('first_tokens_equal')} of {merged['compared']} first tokens equal"
    letters, likelihood = as_dict(merged.get("letters")), as_dict(merged.get("nll_per_token"))
    if letters:
        told += f", letters {letters['mean']:.2g} nats apart (at most {letters['max']:.2g})"
    if likelihood:
        told += f", answers {likelihood['mean']:.2g} nats a token apart"
    return told
