"""What a run tells while it trains: metrics as JSON lines, one progress line, a warning when it overfits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from slimtune import backend  # noqa: F401  before transformers: Unsloth patches it

from transformers import TrainerCallback  # isort: skip

RISES_BEFORE_WARNING = 3


class MetricsCallback(TrainerCallback):
    """Hands every logged value to `write(record)`; adds tokens per second from TRL's own token count."""

    def __init__(self, write: Callable[[dict[str, Any]], None]):
        self.write = write
        self.tokens, self.time = 0.0, time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tokens, self.time = 0.0, time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = dict(logs or {})
        if "loss" in logs:
            now, seen = time.monotonic(), float(logs.get("num_tokens", 0))
            if seen > self.tokens:
                logs["tokens_per_second"] = (seen - self.tokens) / max(now - self.time, 1e-9)
            self.tokens, self.time = seen, now
        self.write({"step": state.global_step, "epoch": round(state.epoch or 0.0, 4), **_plain(logs)})


class ProgressCallback(TrainerCallback):
    """One line for the eye: step, loss, speed, time left. `show(line, last)` decides how it reaches the screen."""

    def __init__(self, show: Callable[[str, bool], None]):
        self.show = show
        self.started = time.monotonic()
        self.first_step = 0
        self.values: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.values.update({key: value for key, value in (logs or {}).items() if isinstance(value, int | float)})
        if state.global_step <= self.first_step or "train_runtime" in (logs or {}):
            return
        elapsed = time.monotonic() - self.started
        done = state.global_step - self.first_step
        left = elapsed / done * (state.max_steps - state.global_step)
        parts = [f"step {state.global_step}/{state.max_steps}", f"epoch {state.epoch or 0:.2f}"]
        if "loss" in self.values:
            parts.append(f"loss {self.values['loss']:.4f}")
        if "eval_loss" in self.values:
            parts.append(f"eval {self.values['eval_loss']:.4f}")
        if self.values.get("num_tokens"):
            parts.append(f"{self.values['num_tokens'] / elapsed:,.0f} tok/s")
        parts.append(f"{clock(left)} left")
        self.show("  ".join(parts), state.global_step >= state.max_steps)


class OverfittingCallback(TrainerCallback):
    """Warns once when the evaluation loss has risen three times in a row."""

    def __init__(self, warn: Callable[[int, str], None]):
        self.warn = warn
        self.previous = float("inf")
        self.rises = 0
        self.warned = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        self.rises = self.rises + 1 if loss > self.previous else 0
        self.previous = loss
        if self.rises >= RISES_BEFORE_WARNING and not self.warned:
            self.warned = True
            self.warn(
                state.global_step,
                f"the evaluation loss has risen {self.rises} times in a row: the model starts to memorise. The best "
                "checkpoint is kept; fewer epochs, a lower learning rate or more data would help",
            )


def clock(seconds: float) -> str:
    """75 → "1:15"; 3723 → "1:02:03"."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def _plain(logs: dict[str, Any]) -> dict[str, Any]:
    kept = ("loss", "grad_norm", "learning_rate", "eval_loss", "tokens_per_second", "num_tokens", "train_runtime")
    return {key: float(logs[key]) for key in kept if key in logs}
