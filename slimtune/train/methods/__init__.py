"""The ways to train. Each is one file in this folder that defines `METHOD`; nothing else in the package names it.

A method has its own kind of record (a row of data) and of example (what the trainer is fed). Everything outside of its
file handles both through the functions of `Method`; of an example it knows `where`, the "path:line" of its row. No torch:
import what is heavy inside the functions.
"""

import importlib
import pkgutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slimtune.core.errors import fail
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.plan.lengths import Lengths
from slimtune.plan.request import StepCost

Batch = Mapping[str, Any]
Counted = Callable[[int, int | None], None]


class Batches(Protocol):
    """How the collated batches of a method's trainer are read and divided.

    key: what an example is found again by in a batch. keys: of a batch's examples, in order. size: how many examples a
    batch holds, and how many tokens, padding included. split: the batch in pieces of at most `limit` tokens, whole
    examples in order, and each piece's share of its loss. One example may be longer than the limit. Rows are padded to a
    multiple of `multiple` tokens. A batch within the limit is returned as it is, and SlimtuneError is raised for one that
    cannot be divided.
    """

    def key(self, example: Any) -> Hashable: ...

    def keys(self, batch: Batch) -> Iterable[Hashable]: ...

    def size(self, batch: Batch) -> tuple[int, int]: ...

    def split(self, batch: Batch, limit: int | None, multiple: int) -> list[tuple[Batch, float]]: ...


@dataclass(frozen=True)
class Method:
    """A way to train.

    cost: what a step costs, for the plan. read: as `loading.load_conversations`, a method's records in place of
    conversations. as_conversation: what of a record is compared with the test set and described in the plan.
    encode: (records, tokenizer, on_progress) → examples, in order. lengths: of examples. estimate: lengths of records, as
    long as there is no tokenizer. build_trainer: (model, tokenizer, examples, held-out examples, plan, directory,
    callbacks) → a trainer of Transformers' that follows the plan; see `trainer.arguments` and `trainer.construct`.
    audit: (trainer, examples, chat tokenizer, Hugging Face tokenizer) → what its batches teach, as `audit.MaskAudit`;
    raises SlimtuneError where that is not what the examples say. batches: how its batches are read, on demand since that
    takes torch. logged: metrics of its own that go to metrics.jsonl.
    """

    name: str
    cost: StepCost
    read: Callable[..., Any]
    as_conversation: Callable[[Any], Conversation]
    encode: Callable[[Sequence[Any], ChatTokenizer, Counted], list[Any]]
    lengths: Callable[[Sequence[Any]], Lengths]
    estimate: Callable[[Sequence[Any]], Lengths]
    build_trainer: Callable[..., Any]
    audit: Callable[[Any, Sequence[Any], ChatTokenizer, Any], Any]
    batches: Callable[[], Batches]
    logged: tuple[str, ...] = ()


_registered: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make known a method that is no file of this folder."""
    _registered[method.name] = method


def names() -> list[str]:
    """Every method that a recipe can name."""
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} | _registered.keys())


def find(name: str) -> Method:
    """The method of a name. Raises SlimtuneError for one that there is not."""
    if name in _registered:
        return _registered[name]
    if name not in names():
        raise fail(f"'{name}' is not a way to train", where="train.method", fix=f"use one of: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").METHOD
