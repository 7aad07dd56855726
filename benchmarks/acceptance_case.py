"""One case of the GPU acceptance, in a process of its own: a fresh CUDA context, one model, one set of knobs.

    python -m benchmarks.acceptance_case ORDER.json RESULT.json

The result is written after every measurement, so that a killed process leaves what it had.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import acceptance_cases, acceptance_recipe
from benchmarks.acceptance_cases import Case
from benchmarks.failures import failure
from slimtune.core.errors import DOES_NOT_FIT, SlimtuneError
from slimtune.core.files import write_json
from slimtune.models import cards, hardware
from slimtune.run.prepare import Prepared


@dataclass(frozen=True)
class Order:
    """What a case is told: which one, the model's folder, a folder to work in, and for which card to plan.

    stand_in: a key of `plan.cards.CARDS`: the machine's card is capped so that it stands for that one. None: it is
    measured as what it is.
    """

    case: Case
    folder: str
    work: str
    vram_gb: float
    on_card: bool
    stand_in: str | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "case": self.case.as_json()}


def read_order(path: Path) -> Order:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Order(**{**content, "case": acceptance_cases.from_json(content["case"])})


def main(order_file: Path, result_file: Path) -> int:
    """Run the ordered case; 0 where nothing failed."""
    order = read_order(order_file)
    started = time.monotonic()
    result: dict[str, Any] = {"case": order.case.as_json(), "status": "running", "measurements": []}

    def save() -> None:
        result["seconds"] = round(time.monotonic() - started, 1)
        write_json(result_file, result)

    save()
    try:
        used_before = hardware.detect().used_bytes
        runs = list(_fitting(order, result))
        if runs:
            # Heavy from here on: a mistake in a case shows before that.
            from benchmarks import measured_case

            measured_case.measure(
                order.case, runs, Path(order.folder), used_before_bytes=used_before, result=result, save=save
            )
        result["status"] = "failed" if any(part["status"] == "failed" for part in parts_of(result)) else "complete"
    except Exception as error:  # noqa: BLE001  a case that fails is a result
        result |= failure(error)
    save()
    return 0 if result["status"] == "complete" else 1


def parts_of(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything in a case's result that may have failed by itself."""
    for entry in result["measurements"]:
        yield entry
        if "evaluation" in entry:
            yield entry["evaluation"]
    if "packing_check" in result:
        yield result["packing_check"]


def _fitting(order: Order, result: dict[str, Any]) -> Iterator[Prepared]:
    """The case's runs, planned; one that the plan finds too large for the card is recorded as left out."""
    work = Path(order.work)
    work.mkdir(parents=True, exist_ok=True)
    for tokens in order.case.tokens or (None,):
        try:
            yield acceptance_recipe.prepared(
                order.case,
                tokens,
                folder=Path(order.folder),
                work=work,
                vram_gb=order.vram_gb,
                on_card=order.on_card,
                stand_in=cards.CARDS[order.stand_in] if order.stand_in else None,
            )
        except SlimtuneError as error:
            if error.exit_code != DOES_NOT_FIT:
                raise
            result["measurements"].append({"tokens": tokens, "status": "left out", "reason": str(error)})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
