"""A trainer callback that times every step, and looks closely at the first and the last one."""

import functools
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from benchmarks import peak_contents, what_ran
from slimtune.core.memory import cuda_in_use
from slimtune.models import backend  # noqa: F401  before transformers: Unsloth patches it

import torch  # isort: skip
from transformers import TrainerCallback  # isort: skip


class StepWatch(TrainerCallback):
    """What the steps took, filled while they run; `close` it whatever happened.

    seconds: of each step, the card's work finished at either end. tokens: real tokens of each step. losses: of each.
    attention, loss_path: which kernels the first step took. allocated: bytes on the card before the first step, after it
    and at the end; empty without a card. contents: of the last step's peak where `look_closer` asks for it
    (`peak_contents.recorded`); that step is then too slow to be timed.
    """

    def __init__(self, steps: int, *, look_closer: bool = False):
        self.steps, self.look_closer = steps, look_closer
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.attention: Counter[str] = Counter()
        self.loss_path = ""
        self.allocated: dict[str, int] = {}
        self.contents: dict[str, Any] = {}
        self._first, self._last = ExitStack(), ExitStack()
        self._counters: Counter[str] = Counter()
        self._started = 0.0
        self._tokens = 0

    def count_tokens_of(self, trainer: Any) -> None:
        """Count the real tokens of every batch that the trainer takes: on CUDA nobody else does.

        (Unsloth's `compute_loss` replaces the one in which TRL counts; `models/rl_replacements.py`, 2026.10.9.)
        """
        original = trainer.training_step

        @functools.wraps(original)
        def training_step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self._tokens += real_tokens(inputs)
            return original(model, inputs, *args, **kwargs)

        trainer.training_step = training_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._note_allocated("before")
        self.attention = self._first.enter_context(what_ran.attention_calls())
        self._counters = what_ran.loss_counters()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.look_closer and state.global_step == self.steps - 1 and cuda_in_use() is not None:
            try:
                self.contents = self._last.enter_context(peak_contents.recorded(torch))
            except Exception as error:  # noqa: BLE001  a closer look that fails must not cost the measurement
                self.contents = {"error": repr(error)}
        self._tokens = 0
        self._started = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(_now() - self._started)
        self.tokens.append(self._tokens)
        if state.global_step == 1:
            self._first.close()
            self.loss_path = what_ran.loss_path(self._counters, what_ran.loss_counters())
            self._note_allocated("after_first_step")
        if state.global_step == self.steps:
            self._stop_recording()
            self._note_allocated("after_training")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def close(self) -> None:
        """Take every watch off again, also those that a failed step left on."""
        self._first.close()
        self._stop_recording()

    def _stop_recording(self) -> None:
        try:
            self._last.close()
        except Exception as error:  # noqa: BLE001  as above
            self.contents["error"] = repr(error)

    def _note_allocated(self, when: str) -> None:
        card = cuda_in_use()
        if card is not None:
            self.allocated[when] = card.memory_allocated()


def real_tokens(batch: Mapping[str, Any]) -> int:
    """Tokens of a collated batch without padding: a packed row has no mask, and none to mask."""
    mask = batch.get("attention_mask")
    return int(mask.sum()) if mask is not None else batch["input_ids"].numel()


def _now() -> float:
    """Seconds, once the card has done what it was given."""
    card = cuda_in_use()
    if card is not None:
        card.synchronize()
    return time.perf_counter()
