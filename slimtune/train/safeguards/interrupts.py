"""Let Ctrl-C, SIGTERM, a closed terminal and a closed output end a run without losing a step.

While training, the first of them lets the step in progress finish, saves a checkpoint and ends training; a second one
quits at once. Outside of training (loading, evaluation, export) there is nothing to save, so the first one quits.

No heavy import at module level: the handlers stand before Unsloth is loaded.
"""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from slimtune.core.streams import OutputLost

STOPPING = {
    signal.SIGINT: "stopping after this step; press Ctrl-C again to quit at once",
    signal.SIGTERM: "SIGTERM: stopping after this step; a second one quits at once",
    signal.SIGHUP: "the terminal was closed: stopping after this step",
}


class Interrupts:
    """A context manager that takes SIGINT, SIGTERM and SIGHUP over, and puts the earlier handlers back.

    say: called with one line at the first signal of a training. received: the last signal that came. Quitting at once is
    KeyboardInterrupt for SIGINT, SystemExit(143) for SIGTERM and SystemExit(129) for SIGHUP, raised from the handler.

    In a thread other than the main one it does nothing, since Python lets only the main thread set handlers. A signal
    that is ignored (a job started with `&` or nohup) stays ignored, and a handler set outside of Python, which could
    not be put back, stays in place.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.received: signal.Signals | None = None
        self._inside_training = False
        self._lost: OutputLost | None = None
        self._unsaid: str | None = None
        self._saved_step: int | None = None
        self._earlier: dict[signal.Signals, Any] = {}
        self._held_back: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                earlier = signal.getsignal(number)
                if earlier not in (None, signal.SIG_IGN):
                    self._earlier[number] = earlier
                    signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, earlier in self._earlier.items():
            signal.signal(number, earlier)
        self._earlier.clear()

    @property
    def exit_code(self) -> int | None:
        """130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP, as a shell reports them; None without a signal."""
        return None if self.received is None else 128 + self.received

    def output_lost(self, lost: OutputLost) -> None:
        """For `streams.losing_output`: ends training as a signal does. Outside of training it is raised at once.
        After a signal nothing else ends the run: a closed terminal can no longer be written to."""
        if self.received is None:
            self._lost = lost
            if not self._inside_training:
                raise lost

    def end_if_asked(self) -> None:
        """After training: raise SystemExit or OutputLost if that is why it ended."""
        if self.exit_code is not None:
            raise SystemExit(self.exit_code)
        if self._lost is not None:
            raise self._lost

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around `trainer.train()`: in here the first signal waits for the end of the step."""
        self._inside_training = True
        try:
            yield
        finally:
            self._inside_training = False
            self._restore_arguments()

    @functools.cached_property
    def callback(self) -> Any:
        """The TrainerCallback that ends training; to be added to the trainer."""
        from slimtune.models import backend  # noqa: F401  before transformers: Unsloth patches it

        from transformers import TrainerCallback  # isort: skip

        interrupts = self

        class InterruptCallback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                interrupts.stop_if_asked(args, state, control)

            # A signal during logging, evaluation or saving must not cost another step.
            on_log = on_evaluate = on_epoch_end = on_step_end

            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                interrupts._saved_step = state.global_step
                interrupts.stop_if_asked(args, state, control)

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                interrupts._restore_arguments()

        return InterruptCallback()

    def stop_if_asked(self, args: Any, state: Any, control: Any) -> None:
        """After a signal: let the trainer save this step, unless it is saved, and end.

        transformers 5.17, trainer.py. _run_epoch breaks on `should_training_stop` after _maybe_log_save_evaluate,
        which evaluates where that was due (a resumed run must find the same evaluations) and saves where
        `should_save` is set. _finalize_training then takes the run for a finished one: it loads the best checkpoint
        into the model, and with `save_total_limit=1` deletes every other one, the one just saved included. Both are
        held back until on_train_end, which _finalize_training calls last.
        """
        if self._unsaid is not None:
            text, self._unsaid = self._unsaid, None
            self.say(text)
        if (self.received is None and self._lost is None) or not self._inside_training:
            return
        control.should_training_stop = True
        if self._saved_step != state.global_step:
            control.should_save = True
        if not self._held_back:
            self._held_back = [
                (args, name, getattr(args, name)) for name in ("load_best_model_at_end", "save_total_limit")
            ]
            args.load_best_model_at_end = False
            if args.save_total_limit == 1:
                args.save_total_limit = 2  # the best one and the newest, which rotate_checkpoints keeps anyway

    def _restore_arguments(self) -> None:
        while self._held_back:
            setattr(*self._held_back.pop())

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, signal.Signals(number)
        if again or not self._inside_training:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)
        text = STOPPING[self.received]
        try:
            self.say(text)
        except RuntimeError:
            # A buffered stream refuses to be written to by a handler that interrupted its own writing.
            self._unsaid = text
