"""Several training files to one: weighted, with a share of general data, capped and shuffled, all by one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from slimtune.data.loading import FileReport, load_conversations
from slimtune.data.types import Conversation


@dataclass(frozen=True, slots=True)
class Mixture:
    """files: the loader's reports. used: rows in the mixture by path. missing_general: rows short of the share."""

    conversations: tuple[Conversation, ...]
    files: tuple[FileReport, ...]
    used: dict[str, int]
    missing_general: int


def mix(
    paths: Sequence[tuple[str, float]], *, general: str | None, share: float, cap: int | None, seed: int
) -> Mixture:
    """The rows of all files in one seeded order, of which every limit takes the first.

    share: of the mixture's rows, from the file `general`. cap: the most rows of one `meta.source` (else file) of the
    other files. Weights up to 1: the loader refuses a file that repeats a row.
    Raises SlimtuneError with every problem of every file, duplicates across files among them.
    """
    loaded = load_conversations([*paths, *([(general, 1.0)] if general else [])], seed=seed)
    rows = list(loaded.conversations)
    random.Random(f"{seed}/mix").shuffle(rows)
    taken: Counter[str] = Counter()
    task, common = [], []
    for row in rows:
        if row.path == general:
            common.append(row)
            continue
        source = str(row.meta.get("source", row.path))
        taken[source] += 1
        if cap is None or taken[source] <= cap:
            task.append(row)
    wanted = round(share / (1 - share) * len(task)) if general else 0
    mixed = [*task, *common[:wanted]]
    random.Random(f"{seed}/order").shuffle(mixed)
    used = Counter(row.path for row in mixed)
    return Mixture(tuple(mixed), loaded.report.files, dict(used), max(0, wanted - len(common)))
