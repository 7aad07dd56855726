"""BM25 over a corpus of passages, kept on disk between runs.

The scores are those of the bm25s library (Lù, "BM25S: Orders of magnitude faster lexical search via eager sparse
scoring", arXiv:2407.03618) with its variant "lucene", k1 = 1.5 and b = 0.75.
"""

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs, output_folders
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.files import sha256_file, write_json
from slimtune.core.progress import Advance, ignore
from slimtune.datatools.retrieval import gold as golden
from slimtune.datatools.retrieval.corpus import Passage
from slimtune.datatools.retrieval.terms import TermKind, Terms, terms_of, version_of

log = logging.getLogger(__name__)

_FORMAT = 2
_CHECKSUMS = "sha256.json"
_BM25 = {"k1": 1.5, "b": 0.75, "method": "lucene", "backend": "numpy"}


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found. score: BM25, larger is nearer; 0 if it shares no term with the query."""

    passage: Passage
    score: float


@dataclass(frozen=True, eq=False)
class PassageIndex:
    """passages: what is searched, in the order that breaks ties. from_cache: whether the scores were on disk."""

    passages: tuple[Passage, ...]
    from_cache: bool
    _terms: Terms
    _bm25: Any

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """For each query the k best passages (all, if there are fewer), best first, equal scores in passage order."""
        found = []
        for query in queries:
            scores = self._bm25.get_scores_from_ids(self._bm25.get_tokens_ids(self._terms(query)))
            # bm25s's own choice of the best leaves the order of equal scores open.
            best = (-scores).argsort(kind="stable")[: max(k, 0)]
            found.append([Hit(self.passages[place], float(scores[place])) for place in best])
        return found


def build(
    passages: Sequence[Passage], *, terms: TermKind = "ngram", cache: Path | None = None, on_progress: Advance = ignore
) -> PassageIndex:
    """The index of the passages' titles and texts.

    cache: a folder with one index per set of passages, kind of terms and library versions; a damaged index is rebuilt
    with a warning in the log, and so is one that cannot be kept. Raises SlimtuneError if no passage has a term, or if packages for the terms are missing.
    """
    if not passages:
        raise fail("the corpus has no passages", fix="name a corpus that holds text")
    split = terms_of(terms)
    folder = cache / _cache_name(passages, terms) if cache else None
    kept = _load(folder) if folder else None
    bm25 = kept or _count(passages, split, on_progress)
    if folder and not kept:
        _save(bm25, folder)
    return PassageIndex(tuple(passages), bool(kept), split, bm25)


def recall(hits: Sequence[Sequence[Hit]], gold: Sequence[str], ks: Iterable[int]) -> dict[int, float]:
    """For each k, the share (0 to 1) of questions whose gold context is among their first k hits.

    A passage counts if it equals, contains or lies within the context, see `gold.matcher`. Questions without a context are
    left out. Raises SlimtuneError if no question has one.
    """
    is_gold = golden.matcher()
    ranks: list[float] = []
    for found, wanted in zip(hits, gold, strict=True):
        if wanted.strip():
            passages = (hit.passage for hit in found)
            matching = (rank for rank, one in enumerate(passages, 1) if is_gold(one.title, one.text, wanted))
            ranks.append(next(matching, float("inf")))
    if not ranks:
        raise fail("no question has a context, so recall cannot be measured", fix="take questions with a context")
    return {k: sum(rank <= k for rank in ranks) / len(ranks) for k in ks}


def _count(passages: Sequence[Passage], split: Terms, on_progress: Advance) -> Any:
    import bm25s

    vocabulary: dict[str, int] = {}
    documents: list[list[int]] = []
    for passage in passages:
        # Ids in the order of appearance: a set's order, which bm25s would take, changes from run to run.
        words = split(passage.headed_text)
        documents.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
        on_progress(len(documents), len(passages))
    if not vocabulary:
        raise fail("no passage of the corpus has a letter or a digit", fix="name a corpus that holds text")
    # On import the library sets its own log to DEBUG.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    bm25 = bm25s.BM25(**_BM25)
    bm25.index((documents, vocabulary), show_progress=False)
    return bm25


def _cache_name(passages: Iterable[Passage], terms: TermKind) -> str:
    versions = [_FORMAT, f"bm25s {importlib.metadata.version('bm25s')}", version_of(terms), _BM25]
    digest = hashlib.sha256(json.dumps(versions).encode())
    for passage in passages:
        digest.update(json.dumps([passage.id, passage.title, passage.text]).encode() + b"\n")
    return digest.hexdigest()


def _save(bm25: Any, folder: Path) -> None:
    """Keep the index for the next run. Where that is not possible, or somebody else's files are in the way, say so in the log."""
    if _is_whole(folder):  # another run has put it there in the meantime
        return
    try:
        with output_folders.staged_folder(folder, what="search index") as partial:
            bm25.save(partial, allow_pickle=False, show_progress=False)
            kept = [file for file in sorted(partial.iterdir()) if file.name != output_folders.MARKER]
            write_json(partial / _CHECKSUMS, {file.name: sha256_file(file) for file in kept})
    except SlimtuneError as error:
        log.warning("The index is not kept for the next run: %s", error.problems[0])


def _load(folder: Path) -> Any | None:
    """The index in `folder`, or None if there is none, or a damaged one."""
    try:
        folder.lstat()
    except OSError:
        return None
    if _is_whole(folder):
        import bm25s

        try:
            return bm25s.BM25.load(folder, load_corpus=False, allow_pickle=False, show_progress=False)
        except (OSError, ValueError, KeyError, EOFError):
            pass  # what bm25s and numpy raise for files that are not theirs
    log.warning("The index in %s is damaged; it is rebuilt.", folder)
    return None


def _is_whole(folder: Path) -> bool:
    try:
        sums = inputs.json_object(folder / _CHECKSUMS)
        return bool(sums) and all(
            (folder / name).is_file() and sha256_file(folder / name) == sums[name] for name in sums
        )
    except (SlimtuneError, OSError, ValueError):
        return False
