"""Was the evaluation set trained on? Every training row against every test item. No torch.

How long it takes: benchmarks/contamination.py.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from slimtune.core.errors import fail
from slimtune.core.progress import Advance, ignore
from slimtune.data.duplicates import ngrams, overlap, question_text, similarity
from slimtune.data.duplicates.overlap import TestItem, TrainRow
from slimtune.data.records import Conversation
from slimtune.evaluate.judge.contenders import DUPLICATES, SHARED_CONTEXT

EXACT, NORMALISED, NEAR_DUPLICATE = DUPLICATES
# The strongest first.
KINDS = (*DUPLICATES, SHARED_CONTEXT)

_EXCERPT, _SHOWN_EXCERPT = 300, 120


def check(
    train: Sequence[Conversation],
    test: Sequence[Conversation],
    *,
    threshold: float = 0.8,
    on_progress: Advance = ignore,
) -> dict[str, Any]:
    """Which test items the training rows hold, for `eval/contamination.json`: plain data.

    train: rows that stand in it several times (by weight) count once. on_progress: rows done, rows in all.

    Returns `checked` (`train`: path and rows of each file; `test`: items), `threshold`, and `items`, the strongest
    match of each test item that has one, the strongest first: id (`meta.id`, else file:line), where, kind, similarity
    (0 to 1), train_where, and an excerpt of either question as test_text and train_text. The kinds:

    - exact: the prompt without system prompt is the same, in Unicode normalisation form C.
    - normalised: the same question once width, case, white space and punctuation are gone; also with its choices in
      another order or under other labels, with another instruction, or with passages before it (`question_text.read`).
    - near duplicate: at least `threshold` of the question's letters stand in the training row in runs of five or more.
      Letters that many rows have, such as a template's, weigh next to nothing; see `similarity.similarity` and
      `ngrams.index`. "5年" in place of "10年" is a near duplicate: the similarity is told, a person has to judge.
    - shared context: the same `meta.context`; or 200 letters in a row that few rows have, of the contexts, or of the
      prompts where `meta` names none. Told, but the item is not contaminated; similarity is that of the questions.

    Each user's turn of a training row is compared; where test prompts without choices are equal, the answers too.
    Not found: a question without its choices, a translation, a paraphrase.
    Raises SlimtuneError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        fix = "use a value above 0 and at most 1; the default is 0.8"
        raise fail(f"{threshold:g} is not a valid similarity threshold", fix=fix)
    rows = list({(row.path, row.line, row.messages): row for row in train}.values())
    items = overlap.read_items(test)
    entries: list[dict[str, Any]] = []
    if rows and items:
        questions = overlap.search(rows, items, on_progress=on_progress)
        entries = [entry for item in items if (entry := _strongest(item, questions, threshold))]
    entries.sort(key=lambda entry: (KINDS.index(entry["kind"]), -entry["similarity"]))
    return {
        "checked": {
            "train": [{"path": path, "rows": count} for path, count in Counter(row.path for row in rows).items()],
            "test": len(items),
        },
        "threshold": threshold,
        "items": entries,
    }


def contaminated_ids(found: dict[str, Any]) -> set[str]:
    """The items of a result of `check` that were trained on; a shared context alone does not make one."""
    return {entry["id"] for entry in found["items"] if entry["kind"] != SHARED_CONTEXT}


def lines(found: dict[str, Any], *, limit: int = 10) -> list[str]:
    """A result of `check` for a person: how much was found, then the first matches with both places and texts.

    Nothing if nothing was found.
    """
    checked, entries = found["checked"], found["items"]
    if not entries:
        return []
    by_kind = Counter(entry["kind"] for entry in entries)
    counts = ", ".join(f"{by_kind[kind]} {kind}" for kind in KINDS if by_kind[kind])
    rows = sum(file["rows"] for file in checked["train"])
    said = [
        f"{len(contaminated_ids(found))} of {checked['test']:,} test items were trained on "
        f"(compared with {rows:,} training rows: {counts})"
    ]
    for entry in entries[:limit]:
        said += [
            f"{entry['where']} and {entry['train_where']}: {entry['kind']}, similarity {entry['similarity']:.2f}",
            f"    test:  {question_text.cut(entry['test_text'], _SHOWN_EXCERPT)}",
            f"    train: {question_text.cut(entry['train_text'], _SHOWN_EXCERPT)}",
        ]
    if len(entries) > limit:
        said.append(f"… and {len(entries) - limit:,} more")
    return said


def _strongest(item: TestItem, questions: ngrams.Index, threshold: float) -> dict[str, Any] | None:
    if item.exact:
        return _entry(item, EXACT, 1.0, item.exact)
    if item.normalised:
        return _entry(item, NORMALISED, 1.0, item.normalised)
    sought = similarity.prepare(item.asked, questions)
    near = _nearest(sought, [row for _, _, row in item.candidates])
    if near and near[0] >= threshold:
        return _entry(item, NEAR_DUPLICATE, *near)
    neighbour = _nearest(sought, list(item.neighbours.values()))
    return _entry(item, SHARED_CONTEXT, *neighbour) if neighbour else None


def _nearest(sought: similarity.Sought, rows: Sequence[TrainRow]) -> tuple[float, TrainRow] | None:
    scored = [(similarity.similarity(sought, row.asked), row) for row in rows]
    return max(scored, key=lambda one: one[0], default=None)


def _entry(item: TestItem, kind: str, share: float, row: TrainRow) -> dict[str, Any]:
    return {
        "id": item.id,
        "where": item.where,
        "kind": kind,
        "similarity": round(share, 4),
        "train_where": row.where,
        "test_text": question_text.excerpt(item.asked.text, _EXCERPT),
        "train_text": question_text.excerpt(row.asked.text, _EXCERPT),
    }
