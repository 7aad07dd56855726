"""Progress that nobody looks at."""

from contextlib import contextmanager

from slimtune.core.progress import ignore


class Silent:
    """An `OnProgress` that drops what it is told."""

    def step(self, text):
        pass

    say = warn = step

    @contextmanager
    def bar(self, label):
        yield ignore


SILENT = Silent()
