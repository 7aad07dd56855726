"""Constants of the predictions, from calibration.json, which names the source of each group.

`benchmarks/gpu_acceptance.py --write-calibration` measures the parts "card" and "speed" on a CUDA machine,
`benchmarks/cpu_memory.py --write-calibration` the part "computer".
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.core.run_folder import as_dict

FILE = Path(__file__).with_name("calibration.json")
ANY_CARD = "any card"


@dataclass(frozen=True)
class Calibration:
    """context_bytes: CUDA context, cuBLAS workspaces and loaded kernels, outside PyTorch's allocator.
    fragmentation: what the allocator reserves beyond what it hands out, as a share of the latter.
    activation_margin: by which share `vram.growing` may be larger than predicted. Until a card is measured, the difference
    to the last context lengths that Unsloth published (benchmarks/published_memory.py).
    efficiency: card -> the share of its arithmetic peak that a training step reaches; `ANY_CARD` for all others.
    host_bytes_per_second: between the computer's memory and the card.
    runtime_bytes: resident memory of Python with every library that training loads, without a model.
    heap_gaps: what freed tensors leave unusable in a CPU run's heap, as a multiple of what all layers save.
    """

    card_source: str
    context_bytes: int
    fragmentation: float
    activation_margin: float
    speed_source: str
    efficiency: dict[str, float]
    host_bytes_per_second: float
    computer_source: str
    runtime_bytes: int
    heap_gaps: float

    def efficiency_of(self, card: str) -> tuple[float, str]:
        """The share of the peak for a card (a key of `models.cards.CARDS`), and how it is known."""
        if card in self.efficiency:
            return self.efficiency[card], "measured on this card"
        return self.efficiency[ANY_CARD], "assumed, not measured on this card"


def read(path: Path = FILE) -> Calibration:
    """The constants of a calibration file. Raises SlimtuneError for one that lacks a value or has another type."""
    from pydantic import TypeAdapter, ValidationError

    values: dict[str, Any] = {}
    for part, content in inputs.json_object(path).items():
        known = as_dict(content)
        values |= {f"{part}_source" if key == "source" else key: value for key, value in known.items()}
    try:
        return TypeAdapter(Calibration).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise fail(what, where=str(path), fix="put the file back as it was installed") from None


@functools.cache
def current() -> Calibration:
    return read()


def update(part: str, values: dict[str, Any], path: Path = FILE) -> None:
    """Replace values in one part of the file, with their `source`; all others stay."""
    content = inputs.json_object(path)
    content[part] = {**as_dict(content.get(part)), **values}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    current.cache_clear()
