"""Check that the batches of the trainer carry loss on exactly the responses.

A collator can overwrite labels, packing can shift them, truncation can cut an answer off. So the audit takes the collated
batches of the trainer's own data loader.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from slimtune.core.errors import Problem, SlimtuneError
from slimtune.data.chat_template import IGNORE_INDEX, ChatTokenizer, Example, as_key
from slimtune.train.token_batches import documents

_SHOWN = 5


@dataclass(frozen=True)
class MaskAudit:
    """What the audit saw.

    refined_rows: examples whose marker-based mask (Unsloth's train_on_responses_only) differs from the boundary, and
    which therefore train on the computed labels. preview: for a few examples, the decoded text in segments.
    """

    rows: int
    batches: int
    tokens: int
    supervised_tokens: int
    refined_rows: int
    preview: list[dict[str, Any]]

    @property
    def supervised_share(self) -> float:
        return self.supervised_tokens / self.tokens

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "supervised_share": self.supervised_share}


def audit(trainer: Any, examples: Sequence[Example], tokenizer: ChatTokenizer, *, refined_rows: int) -> MaskAudit:
    """Check one epoch of the trainer's collated batches against the computed boundary.

    Raises SlimtuneError where a label differs, an example has no supervised token, an example is cut, changed or
    missing. The random state is left as it was, so an audited run trains as an unaudited one.
    """
    # The same tokens may carry loss in different places: in one row a turn is excluded, in another it is not.
    expected: dict[bytes, list[Example]] = {}
    for example in examples:
        alike = expected.setdefault(as_key(example.input_ids), [])
        if example.labels not in [one.labels for one in alike]:
            alike.append(example)
    due = Counter(map(_keys, examples))
    problems = [
        Problem("no token of this example carries loss", example.where, "remove the example, whose answer is empty")
        for example in examples
        if example.supervised_tokens == 0
    ]
    batches = tokens = supervised = 0
    unknown: list[tuple[int, ...]] = []
    with torch.random.fork_rng(devices=[]):
        for batch in trainer.get_train_dataloader():
            batches += 1
            for ids, labels in documents(batch):
                alike = expected.get(as_key(ids), [])
                if not alike:
                    unknown.append(ids)
                    continue
                example = next((one for one in alike if labels == tuple(one.labels)), alike[0])
                due[_keys(example)] -= 1
                tokens += len(ids)
                supervised += sum(label != IGNORE_INDEX for label in labels)
                if labels != tuple(example.labels):
                    problems.append(_difference(example, labels, tokenizer))
    # accelerate must not count this loader among those of the run.
    trainer.accelerator._dataloaders.clear()

    missing = [one.where for alike in expected.values() for one in alike if due[_keys(one)] > 0]
    if unknown:
        text = tokenizer.decode(unknown[0])[:120]
        what = f"{len(unknown)} rows of the trainer's batches do not come from the data, the first being {text!r}"
        fix = "check what changes tokens between data and batches (truncation, a collator, packing)"
        problems.append(Problem(what, fix=fix))
    if missing:
        what = f"{len(missing)} examples never reach the trainer"
        problems.append(Problem(what, missing[0], "check what cuts or drops them on the way"))
    if problems:
        more = [Problem(f"… and {len(problems) - _SHOWN} more")] if len(problems) > _SHOWN else []
        raise SlimtuneError(
            problems[:_SHOWN] + more,
            summary="The labels that the trainer would learn from are wrong; nothing was trained",
        )
    preview = [_preview(example, tokenizer) for example in examples[:3]]
    return MaskAudit(len(examples), batches, tokens, supervised, refined_rows, preview)


def count_refined(examples: Sequence[Example], mask: Any) -> int:
    """How many examples a marker-based mask would label differently from the computed boundary.
    mask: {"input_ids": [[int]]} -> {"labels": [[int]]}, as backend.train_on_responses_only makes it."""
    labels = mask({"input_ids": [list(example.input_ids) for example in examples]})["labels"]
    return sum(list(row) != list(example.labels) for row, example in zip(labels, examples, strict=True))


def _keys(example: Example) -> tuple[bytes, bytes]:
    return as_key(example.input_ids), as_key(example.labels)


def _difference(example: Example, labels: Sequence[int], tokenizer: ChatTokenizer) -> Problem:
    pairs = list(zip(example.labels, labels, strict=False))
    at = next((index for index, (wanted, got) in enumerate(pairs) if wanted != got), len(pairs))
    if at >= len(example.labels):
        return Problem("padding carries loss", example.where, "check what overwrites the labels (a collator)")
    token = tokenizer.decode(example.input_ids[at : at + 1])
    carried = "carries loss but belongs to the prompt" if example.labels[at] == IGNORE_INDEX else "carries no loss"
    count = sum(wanted != got for wanted, got in pairs)
    return Problem(
        f"token {at} ({token!r}) {carried}; {count} of {len(pairs)} labels differ from the response mask",
        example.where,
        "check what overwrites the labels between data and batches (a collator, a second masking step)",
    )


def _preview(example: Example, tokenizer: ChatTokenizer) -> dict[str, Any]:
    pairs = zip(example.input_ids, example.labels, strict=True)
    segments = [
        {"text": tokenizer.decode([token for token, _ in group]), "supervised": supervised}
        for supervised, group in itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORE_INDEX)
    ]
    return {"where": example.where, "tokens": len(example.input_ids), "segments": segments}
