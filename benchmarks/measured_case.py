"""A case's model, loaded once and trained at each of its lengths. Heavy: imports Unsloth and torch."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slimtune.models import load as models  # first: Unsloth patches what follows

from benchmarks import machine, measured_training, packing_check  # isort: skip
from benchmarks.acceptance_cases import Case
from benchmarks.failures import failure
from slimtune.core.memory import Meter
from slimtune.run.prepare import Prepared

_PACKED_TOGETHER = 5


def measure(
    case: Case,
    runs: Sequence[Prepared],
    folder: Path,
    *,
    used_before_bytes: int,
    result: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Fill `result`, calling `save` after each part of it. A run that fails is recorded, and the next one begins."""
    result["machine"] = machine.facts()
    begun = time.monotonic()
    meter = Meter(used_before_bytes=used_before_bytes)
    plan = runs[-1].plan
    with meter.phase("load"):
        model, hf_tokenizer = models.load(folder, plan)
        weights = machine.allocated()
        model = models.add_lora(model, plan)
    result["load"] = {
        "seconds": round(time.monotonic() - begun, 1),
        "predicted_bytes": plan.phases.get("load"),
        "bytes": models.memory_bytes(model),
        "allocated": {"weights": weights, "with_adapter": machine.allocated()},
        **meter.phases["load"],
    }
    save()
    for prepared in runs:
        trainer = None
        try:
            trainer, entry = measured_training.measure(
                model,
                hf_tokenizer,
                prepared,
                case,
                used_before_bytes=used_before_bytes,
                # The shortest shows the terms that do not grow with the tokens, the longest those that do.
                look_closer=prepared is runs[0] or prepared is runs[-1],
            )
        except Exception as error:  # noqa: BLE001  the other lengths go on
            entry = {"tokens": prepared.plan.micro_batch_tokens, **failure(error)}
        result["measurements"].append(entry)
        save()
        if case.check_packing and prepared is runs[-1] and trainer is not None:
            result["packing_check"] = _check_packing(model, trainer, prepared)
            save()
        del trainer
        machine.release()


def _check_packing(model: Any, trainer: Any, prepared: Prepared) -> dict[str, Any]:
    """What happens to packed examples; of the shortest ones, so that it takes little memory."""
    tokenizer = prepared.tokenizer
    assert tokenizer is not None  # `measured_training` has used it
    examples = [example for conversation in prepared.train for example in tokenizer.examples(conversation)]
    shortest = sorted(examples, key=lambda example: len(example.input_ids))[:_PACKED_TOGETHER]
    try:
        found = packing_check.check(model, trainer, shortest, models.DTYPES[prepared.plan.precision])
    except Exception as error:  # noqa: BLE001  the memory figures are worth keeping without it
        return failure(error)
    return {"status": "complete", **found}
