"""Asking a target every item, batch by batch: one answer an item, the same whatever runs the model. No torch.

A batch is what the target wants at once, of items of similar length. Answers are handed on as they come, so that an
evaluation that is killed continues where it was; the batches are always the same ones, whatever is done already.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from slimtune.core.progress import Advance, OnProgress, ignore
from slimtune.evaluate import kinds
from slimtune.evaluate.answer_file import AnswerFile
from slimtune.evaluate.kinds.kind import Answer, Item, Settings
from slimtune.evaluate.targets.target import Prompt, Target


def ask(
    target: Target,
    items: Sequence[Item],
    settings: Settings,
    *,
    done: Collection[str] = (),
    keep: Callable[[Sequence[Answer]], None] = lambda answers: None,
    advance: Advance = ignore,
) -> list[Answer]:
    """The answers to the items that are not `done`, in the order of `items`; each batch is handed to `keep` as it comes.

    done: ids of items that were answered before. Raises SlimtuneError where the target cannot do what is asked.
    """
    kind = kinds.named(settings.kind)
    # Longest first: what does not fit is known at once.
    by_length = sorted(items, key=lambda item: (-sum(len(message.content) for message in item.prompt), item.id))
    size = max(1, target.batch_size // settings.permutations)
    how = {"kind": settings.kind, "mode": settings.mode}
    answers: dict[str, Answer] = {}
    asked = sum(item.id in done for item in items)
    # Also those that are done: what is shared, and so every rounding, is then the same after a kill.
    scored = [Prompt(item.prompt, item.labels) for item in items] if kind.ability(settings) == "score" else []
    with target.expecting(scored):
        for start in range(0, len(by_length), size):
            batch = by_length[start : start + size]
            if all(item.id in done for item in batch):
                continue
            fresh = [
                {"id": item.id, "source": item.source, "where": item.where, **how, **answer}
                for item, answer in zip(batch, kind.ask(target, batch, settings), strict=True)
                if item.id not in done
            ]
            keep(fresh)
            answers |= {answer["id"]: answer for answer in fresh}
            asked += len(fresh)
            advance(asked, len(items))
    return [answers[item.id] for item in items if item.id in answers]


def complete(
    path: Path, who: str, target: Target, items: Sequence[Item], settings: Settings, on_progress: OnProgress
) -> list[Answer]:
    """Ask what the file at `path` does not hold yet; the answers to all items, in their order. who: "the base model"."""
    file, ids = AnswerFile(path), [item.id for item in items]
    done = sum(key in file.rows for key in ids)
    earlier = f", {done} of them answered already" if done else ""
    on_progress.step(f"Asking {who} {len(ids)} {kinds.named(settings.kind).noun}s{earlier}")
    if done < len(ids):
        with on_progress.bar("Answered") as advance:
            ask(target, items, settings, done=frozenset(file.rows), keep=file.keep, advance=advance)
    return file.finish(ids)
