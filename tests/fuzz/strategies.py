"""Cases of a scene as Hypothesis draws them: one to four changes of valid files and of the command line."""

from __future__ import annotations

import functools
from typing import Any

from fuzz.cases import Case
from fuzz.changes import BYTES, NOT_FILES, TEXTS, VALUES, WHOLE, Change, Path, nodes, structure
from fuzz.scenes import SCENES
from hypothesis import strategies as st

_HOW_BYTES = ("truncate", "flip", "splice", "overwrite", "drop line", "repeat line")
OVERRIDES = (
    "name", "model.base", "model.max_seq_length", "model.revision", "lora.rank", "lora.alpha", "lora.dropout", "lora.target",
    "data.train", "data.train.0.path", "data.eval", "data.system", "data.mode", "train.epochs", "train.max_steps",
    "train.learning_rate", "train.effective_batch_size", "train.warmup_ratio", "train.method", "budget.vram_gb",
    "evaluate.kind", "evaluate.data", "export.gguf", "export.ollama_name", "run.output_dir", "run.seed", "run.report_to", "nonsense", "",
)  # fmt: skip


@functools.cache
def _paths(scene: str, file: str) -> tuple[Path, ...]:
    value = structure(file, SCENES[scene].files()[file])
    return () if value is None else tuple(nodes(value))


def cases(scene: str) -> st.SearchStrategy[Case]:
    files = sorted(name for name in SCENES[scene].files() if name not in ("elsewhere/precious.txt", "home/bin/ollama"))
    own = [name for name in files if name not in ("work/own.txt", "work/own/notes.txt")]
    drawn = [_of_command(scene)]
    if own:
        drawn = [st.sampled_from(own).flatmap(lambda file: _of_file(scene, file))] * 5 + drawn
    one = st.one_of(drawn)
    # Most cases change one thing: a second one hides what the first would have led to.
    changes = st.one_of(st.tuples(one), st.tuples(one), st.tuples(one, one), st.tuples(one, one, one))
    return st.builds(Case, st.just(scene), changes)


def _of_file(scene: str, file: str) -> st.SearchStrategy[Change]:
    places = st.integers(0, 1000)
    whole: list[st.SearchStrategy[Any]] = [
        st.builds(Change, st.just(file), st.just("whole"), st.just(()), st.sampled_from(list(WHOLE)))
    ]
    if not file.startswith("http/"):
        whole.append(st.builds(Change, st.just(file), st.just("instead"), st.just(()), st.sampled_from(NOT_FILES)))
    raw = st.builds(Change, st.just(file), st.sampled_from(_HOW_BYTES), places, st.sampled_from(list(BYTES)))
    paths = _paths(scene, file)
    if not paths:
        return st.one_of(raw, raw, raw, *whole)
    how = st.sampled_from(("set", "set", "set", "set", "drop", "add", "wrap", "repeat"))
    node = st.builds(Change, st.just(file), how, st.sampled_from(paths), st.sampled_from(list(VALUES)))
    return st.one_of(node, node, node, node, node, node, raw, *whole)


def _of_command(scene: str) -> st.SearchStrategy[Change]:
    texts, places = st.sampled_from(list(TEXTS)), st.integers(0, 9)
    drawn = [
        st.builds(Change, st.just(""), st.just("argument"), places, texts),
        st.builds(Change, st.just(""), st.just("leave out"), places),
    ]
    if options := list(SCENES[scene].options):
        named = st.sampled_from(options)
        drawn += [st.builds(Change, named, st.just("option"), st.just(()), texts)] * 2
        drawn.append(st.builds(Change, named, st.just("option"), st.just(()), st.just("good")))
    if "plan" in scene or "train" in scene:
        drawn.append(st.builds(Change, st.sampled_from(OVERRIDES), st.just("override"), st.just(()), texts))
    return st.one_of(drawn)
