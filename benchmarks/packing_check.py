"""Do packed examples see each other, and do their labels survive packing? Asked of the trainer's own collator and model.

Several examples go through the model in one packed row, and each alone. In exact arithmetic the logits would be equal; in
bf16 they differ by rounding. How much rounding does is measured by running each example alone in a row as long as the
packed one, filled up on the right, where causal attention does not look. A control without boundaries between the
examples shows how large a leak would be.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from slimtune.models import backend  # noqa: F401  before torch: Unsloth patches what follows

import torch  # isort: skip

from slimtune.data.chat_template import IGNORE_INDEX, Example

NOISE_FACTOR = 4  # a difference up to so many times the rounding noise counts as rounding,
LEAK_SHARE = 1 / 20  # and so does one this much smaller than the control's: other kernels round differently
_COMPARED = 32  # last positions of each example: enough to see, and little memory for their logits

Logits = list[torch.Tensor]


def check(model: Any, trainer: Any, examples: Sequence[Example], precision: torch.dtype) -> dict[str, Any]:
    """What was found, ready for JSON.

    examples: three or more; they are packed in this order. apart: whether packed examples are kept apart (None where
    the control differs from the rest no more than rounding does, so that nothing can be said). labels_survive: whether
    the collated labels are the examples' own, one after the other, with nothing else supervised.
    """
    batch, how = packed_batch(trainer, examples)
    was_training = model.training
    model.eval()
    try:
        alone = [_logits(model, [list(example.input_ids)], [_span(example)], precision)[0] for example in examples]
        width = batch["input_ids"].shape[-1]
        filled_up = [
            _logits(model, [_filled_up(example.input_ids, width)], [_span(example)], precision)[0]
            for example in examples
        ]
        spans = _spans(examples)
        boundaries = {name: batch[name] for name in ("position_ids", "packed_seq_lengths") if name in batch}
        together = _logits(model, batch["input_ids"].tolist(), spans, precision, **boundaries)
        run_on = _logits(model, batch["input_ids"].tolist(), spans, precision)
    finally:
        model.train(was_training)
    packed, noise, leaking = (differences(alone, other) for other in (together, filled_up, run_on))
    return {
        "packed_by": how,
        "examples": len(examples),
        "row_tokens": int(batch["input_ids"].shape[-1]),
        "packed": packed,
        "noise": noise,
        "control": leaking,
        "apart": verdict(packed, noise, leaking),
        "labels_survive": labels_survive(batch, examples),
    }


def packed_batch(trainer: Any, examples: Sequence[Example]) -> tuple[dict[str, Any], str]:
    """One packed row of these examples, and who made it.

    The trainer's collator gets what TRL's packing hands it: a row of concatenated ids and labels with the lengths. Where
    the trainer does not pack (a CPU), a row is made by hand, positions restarting at each example.
    """
    ids = [token for example in examples for token in example.input_ids]
    labels = [label for example in examples for label in example.labels]
    lengths = [len(example.input_ids) for example in examples]
    if trainer.args.packing:
        row = {"input_ids": ids, "labels": labels, "seq_lengths": lengths}
        return dict(trainer.data_collator([row])), "the trainer's collator"
    positions = [position for length in lengths for position in range(length)]
    columns = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {name: torch.tensor([values]) for name, values in columns.items()}, "hand: this trainer does not pack"


def labels_survive(batch: Mapping[str, Any], examples: Sequence[Example]) -> bool:
    """Whether the collated labels, and what Unsloth's loss makes of them, are exactly the examples' own."""
    expected: list[int] = []
    for example in examples:
        # No token stands before an example's first one to predict it from: it is never a target.
        expected += [IGNORE_INDEX, *example.labels[1:]]
    collated = batch["labels"].reshape(-1)
    # Unsloth masks the boundaries once more when it computes the loss.
    mask = getattr(sys.modules.get("unsloth.utils.packing"), "mask_packed_boundary_labels", None)
    lengths = batch.get("packed_seq_lengths")
    in_loss = mask(collated, lengths) if mask is not None and lengths is not None else collated
    padding = [IGNORE_INDEX] * (len(collated) - len(expected))
    return collated.tolist() == in_loss.tolist() == expected + padding


def differences(one: Logits, other: Logits) -> dict[str, float]:
    """Largest and mean absolute difference of logits, and the share of positions with the same likeliest token.

    The first example is left out: nothing stands before it in a packed row.
    """
    gaps = [(a - b).abs() for a, b in zip(one[1:], other[1:], strict=True)]
    same = [a.argmax(-1) == b.argmax(-1) for a, b in zip(one[1:], other[1:], strict=True)]
    return {
        "largest": max(float(gap.max()) for gap in gaps),
        "mean": float(torch.cat([gap.mean(-1) for gap in gaps]).mean()),
        "same_argmax": float(torch.cat(same).float().mean()),
    }


def verdict(packed: Mapping[str, float], noise: Mapping[str, float], control: Mapping[str, float]) -> bool | None:
    """Whether packing changed no more than rounding does; None where even a leak would not show."""
    rounding = NOISE_FACTOR * noise["mean"]
    if control["mean"] <= 2 * rounding:
        return None
    return packed["mean"] <= max(rounding, LEAK_SHARE * control["mean"])


def _spans(examples: Sequence[Example]) -> list[slice]:
    """Where in a row of these examples the compared positions of each lie."""
    spans, end = [], 0
    for example in examples:
        end += len(example.input_ids)
        spans.append(slice(end - min(_COMPARED, len(example.input_ids)), end))
    return spans


def _span(example: Example) -> slice:
    return _spans([example])[0]


def _filled_up(ids: Sequence[int], width: int) -> list[int]:
    return [*ids, *[ids[0]] * (width - len(ids))]


@torch.no_grad()
def _logits(
    model: Any, row: Sequence[Sequence[int]], spans: Sequence[slice], precision: torch.dtype, **boundaries: torch.Tensor
) -> Logits:
    """For each span of positions in the one row its logits, (positions, vocabulary) in fp32 on the CPU.

    boundaries: what the collator says of where examples begin.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = inner.lm_head.weight.device
    given = {name: value.to(device) for name, value in boundaries.items()}
    with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
        ids = torch.tensor(row, device=device)
        hidden = inner.model(input_ids=ids, use_cache=False, **given).last_hidden_state[0]
        return [inner.lm_head(hidden[span]).float().cpu() for span in spans]
