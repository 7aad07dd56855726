"""Callbacks of a training: metrics as JSON lines, a progress bar, a warning when it overfits, memory."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from slimtune.models import backend  # noqa: F401  before transformers: Unsloth patches it

from transformers import TrainerCallback  # isort: skip

from slimtune.core.progress import Advance, ignore
from slimtune.core.units import GIB

RISES_BEFORE_WARNING = 3
LOGGED = ("loss", "grad_norm", "learning_rate", "eval_loss", "tokens_per_second", "num_input_tokens_seen")


class ProgressCallback(TrainerCallback):
    """Hands every logged value to `write(record)` and the state of the training to `advance`, a progress bar.

    memory_in_use: in bytes. logged: values to hand on beside `LOGGED`.
    Tokens per second come from the Trainer's count of tokens without padding, since TRL's own count stays at 0 in the
    trainer that Unsloth generates for CUDA. They count the time inside training steps; the time left includes
    evaluation and saving.
    """

    def __init__(
        self, write: Callable[[dict[str, Any]], None], memory_in_use: Callable[[], int], logged: Sequence[str] = ()
    ):
        self.write, self.memory_in_use, self.logged = write, memory_in_use, (*LOGGED, *logged)
        self.advance: Advance = ignore
        self.values: dict[str, float] = {}
        self.first_step = 0
        self.started = self.step_started = time.monotonic()
        self.step_seconds = self.logged_seconds = self.logged_tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        self.logged_tokens = float(state.num_input_tokens_seen)  # of a resumed run

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step_started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step_seconds += time.monotonic() - self.step_started

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = dict(logs or {})
        if "loss" in logs and self.step_seconds > self.logged_seconds:
            tokens = float(logs.get("num_input_tokens_seen", 0)) - self.logged_tokens
            logs["tokens_per_second"] = round(tokens / (self.step_seconds - self.logged_seconds), 1)
            self.logged_tokens += tokens
            self.logged_seconds = self.step_seconds
        if "train_loss" in logs:  # the Trainer's summary of the whole run, which has been told step by step
            return
        record = {key: float(logs[key]) for key in self.logged if key in logs}
        self.write({"step": state.global_step, "epoch": round(state.epoch or 0.0, 4), **record})
        self.values.update(record)
        if state.global_step > self.first_step:
            self.advance(state.global_step, state.max_steps, self._note(state))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.advance(state.global_step, state.max_steps, self._note(state))

    def _note(self, state: Any) -> str:
        elapsed, done = time.monotonic() - self.started, max(1, state.global_step - self.first_step)
        parts = [f"epoch {state.epoch or 0:.2f}"]
        shown = (("loss", "loss", ".4f"), ("eval", "eval_loss", ".4f"), ("tok/s", "tokens_per_second", ",.0f"))
        parts += [f"{name} {self.values[key]:{form}}" for name, key, form in shown if key in self.values]
        left = clock(elapsed / done * (state.max_steps - state.global_step))
        return "  ".join([*parts, f"mem {self.memory_in_use() / GIB:.2f} GiB", f"{left} left"])


class OverfittingCallback(TrainerCallback):
    """Warns once when the evaluation loss has risen three times in a row."""

    def __init__(self, warn: Callable[[int, str], None]):
        self.warn = warn
        self.previous = float("inf")
        self.rises = 0
        self.warned = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        loss = metrics["eval_loss"]
        self.rises = self.rises + 1 if loss > self.previous else 0
        self.previous = loss
        if self.rises >= RISES_BEFORE_WARNING and not self.warned:
            self.warned = True
            self.warn(
                state.global_step,
                f"The evaluation loss has risen {self.rises} times in a row, so the model begins to memorise. The best "
                "checkpoint is kept. Try fewer epochs, a lower learning rate or more data.",
            )


class MemoryCallback(TrainerCallback):
    """Measures the memory of this process's first optimizer step apart, between `begin()` and `end()`.
    The optimizer's state is created in it, in a resumed run too."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]):
        self.due = [begin, end]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if len(self.due) == 2:
            self.due.pop(0)()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if len(self.due) == 1:
            self.due.pop()()


def clock(seconds: float) -> str:
    """75 → "1:15"; 3723 → "1:02:03"."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
