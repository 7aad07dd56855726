"""What work tells while it runs. Only `core`, `cli` and `run` print; everything else takes an `OnProgress`."""

from contextlib import AbstractContextManager
from typing import Protocol


class Advance(Protocol):
    """Called with how much is done and, where it is known, how much there is; `note` is shown beside it."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


class OnProgress(Protocol):
    """Where work tells what it does. `core.console.Console` shows it."""

    def step(self, text: str) -> None:
        """A new step of the story."""

    def say(self, text: str) -> None:
        """A fact within the step."""

    def warn(self, text: str) -> None:
        """What the user should look at."""

    def bar(self, label: str) -> AbstractContextManager[Advance]:
        """A progress bar while the block runs. Work that ends at once shows nothing."""
        ...


def ignore(done: int, total: int | None = None, note: str = "") -> None:
    """An `Advance` that shows nothing."""
