"""What a GGUF file says of itself, without loading it.

gguf-py reads the arrays of the vocabulary too, which takes seconds. The format: docs/gguf.md of github.com/ggml-org/ggml.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from slimtune.errors import fail

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def read_header(path: Path) -> dict[str, Any]:
    """Metadata key to value, of those whose value is a number, a truth value or text; arrays are left out.

    Raises SlimtuneError where the file does not exist or is no GGUF of version 2 or 3.
    """
    if not path.is_file():
        raise fail("no such file", where=str(path))
    with path.open("rb") as file:
        try:
            magic, version = file.read(4), _scalar(file, "<I")
            if magic != b"GGUF" or version not in (2, 3):
                raise fail("not a GGUF file of version 2 or 3", where=str(path))
            _scalar(file, "<Q")  # how many tensors
            entries = {}
            for _ in range(_scalar(file, "<Q")):
                key, kind = _string(file), _scalar(file, "<I")
                if kind == _ARRAY:
                    _skip_array(file)
                else:
                    entries[key] = _string(file) if kind == _STRING else _scalar(file, _SCALARS[kind])
        except (struct.error, KeyError, UnicodeDecodeError, OverflowError, MemoryError, OSError) as error:
            raise fail("the GGUF's header is damaged", where=str(path), fix="copy or download it again") from error
    return entries


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    return file.read(_scalar(file, "<Q")).decode("utf-8")


def _skip_array(file: BinaryIO) -> None:
    kind, count = _scalar(file, "<I"), _scalar(file, "<Q")
    if kind in _SCALARS:
        file.seek(count * struct.calcsize(_SCALARS[kind]), 1)
        return
    for _ in range(count):
        if kind == _ARRAY:
            _skip_array(file)
        else:
            file.seek(_scalar(file, "<Q"), 1)
