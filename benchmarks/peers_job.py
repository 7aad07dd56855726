"""What a contender is told: one JSON file, read in its own process. No torch."""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimtune.core.files import write_json


@dataclass(frozen=True)
class Job:
    """The same for all contenders but for `contender`, `data` and `context`.

    work: folder of this process alone. model: folder of the base model, in NF4 or to be quantised while loading.
    data: the sets to train on, one after the other, by name; rows: their files. context: look for the longest context,
    too. context_most: no longer than this. toy_lengths: on a CPU, the only ones tried.
    batch: examples of an optimizer step. skip_steps: first optimizer steps that the speed leaves out.
    limit_bytes: what PyTorch's allocator may reserve; None on a CPU. used_before_bytes: what others had on the card
    before. seconds: from the start of the process.
    """

    contender: str
    work: str
    model: str
    rows: dict[str, str]
    data: tuple[str, ...]
    context: bool
    cuda: bool
    bf16: bool
    vram_gb: float
    limit_bytes: int | None
    used_before_bytes: int
    seconds: float
    batch: int
    epochs: int
    skip_steps: int
    rank: int
    alpha: int
    learning_rate: float
    max_length: int
    context_most: int
    toy_lengths: tuple[int, ...]
    trl_micro_batch: int
    seed: int
    started: float = field(default_factory=time.monotonic, compare=False)

    @property
    def folder(self) -> Path:
        return Path(self.work)

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    def out_of_time(self) -> bool:
        return time.monotonic() - self.started > self.seconds

    def write(self) -> Path:
        """Write job.json into the work folder; returns its path."""
        values = dataclasses.asdict(self)
        del values["started"]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "job.json", values)
        return self.folder / "job.json"


def read(path: Path) -> Job:
    """The job of a file; its clock starts now."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Job(**values)
