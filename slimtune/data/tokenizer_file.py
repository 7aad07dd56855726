"""Read tokenizer.json, which anybody may have made."""

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import fail

_PROBE = "A first line, 12 numbers\n\n二行目：「見本」 \U0001f600\t"


def load(path: Path) -> Any:
    """The `tokenizers.Tokenizer` of a file. Raises SlimtuneError where it is missing, is none, or cannot encode."""
    from tokenizers import Tokenizer

    text = inputs.read_text(path)
    with _Refusals(path):
        found = Tokenizer.from_str(text)
        found.encode(_PROBE, add_special_tokens=False)
    return found


class _Refusals(AbstractContextManager[None]):
    """Turns what the library says into a SlimtuneError. It raises the class Exception itself (tokenizers 0.23)."""

    def __init__(self, path: Path):
        self.path = path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is Exception and error is not None:
            fix = "download the model again, or save its fast tokenizer again"
            raise fail(f"not a usable tokenizer: {inputs.reason(error)}", where=str(self.path), fix=fix) from None
