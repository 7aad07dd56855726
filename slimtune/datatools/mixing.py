"""Several training files to one: weighted, with a share of general data, capped and shuffled, all by one seed."""

import difflib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.progress import Advance, ignore
from slimtune.data.loading import FileReport, load_conversations
from slimtune.data.records import Conversation


@dataclass(frozen=True, slots=True)
class Mixture:
    """files: the loader's reports. used: rows in the mixture by path. capped: rows that a cap leaves out, by source.

    missing_general: rows that the general file is short of its share.
    """

    conversations: list[Conversation]
    files: tuple[FileReport, ...]
    used: Counter[str]
    capped: Counter[str]
    missing_general: int


def mix(
    paths: Sequence[tuple[str, float]],
    *,
    seed: int,
    general: str | None = None,
    share: float = 0.15,
    rows: int | None = None,
    cap: int | None = None,
    caps: Mapping[str, int] | None = None,
    on_progress: Advance = ignore,
) -> Mixture:
    """The rows of all files in one random order; every limit takes the first of them.

    paths: files with weights up to 1, since the loader refuses repeated rows. share: share of the mixture from
    `general`. rows: size of the mixture, None for all. cap: most rows of one `meta.source` (or file) outside `general`;
    caps: the same for single sources.

    Raises SlimtuneError with every problem of every file, for a cap of an unknown source, and for too few rows. Without
    `rows`, a lack of general data is only reported.
    """
    everything = [*paths, *([(general, 1.0)] if general else [])]
    loaded = load_conversations(everything, seed=seed, on_progress=on_progress)
    shuffled = list(loaded.conversations)
    random.Random(f"{seed}/mix").shuffle(shuffled)
    common = [row for row in shuffled if row.path == general]
    task, capped = _capped([row for row in shuffled if row.path != general], cap, caps or {})
    if not general:
        share = 0.0
    if rows is None:
        wanted = round(share / (1 - share) * len(task))
    else:
        wanted = round(share * rows)
        _check_enough(rows - wanted, len(task), wanted, len(common), general)
        task = task[: rows - wanted]
    mixed = [*task, *common[:wanted]]
    random.Random(f"{seed}/order").shuffle(mixed)
    used = Counter(row.path for row in mixed)
    return Mixture(mixed, loaded.files, used, capped, max(0, wanted - len(common)))


def _capped(
    rows: Sequence[Conversation], cap: int | None, caps: Mapping[str, int]
) -> tuple[list[Conversation], Counter[str]]:
    """The rows within the caps, and how many are left out of each source. Raises SlimtuneError for unknown sources."""
    sources = [str(row.meta.get("source", row.path)) for row in rows]
    known = sorted(set(sources))
    problems = []
    for name in caps:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            fix = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known[:5])} …"
            problems.append(Problem(f"no row has the source '{name}'", "--cap", fix))
    if problems:
        raise SlimtuneError(problems)
    taken, left_out = Counter[str](), Counter[str]()
    kept = []
    for row, source in zip(rows, sources, strict=True):
        most = caps.get(source, cap)
        if most is None or taken[source] < most:
            taken[source] += 1
            kept.append(row)
        else:
            left_out[source] += 1
    return kept, left_out


def _check_enough(of_task: int, task: int, of_general: int, common: int, general: str | None) -> None:
    """Raise SlimtuneError if there are fewer rows than the mixture needs."""
    problems = []
    if task < of_task:
        what = f"{of_task:,} rows must come from the files, but weights and caps leave {task:,}"
        problems.append(Problem(what, "--rows", "ask for fewer rows, or add files"))
    if common < of_general:
        what = f"{of_general:,} rows must come from {general}, but it has {common:,}"
        problems.append(Problem(what, "--rows", "ask for fewer rows, or for a smaller --general-share"))
    if problems:
        raise SlimtuneError(problems)
