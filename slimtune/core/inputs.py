"""Read files that anybody may have made: every fault is a SlimtuneError that names the file, and nothing hangs.

A FIFO or a device is refused before it is opened, sizes are bounded, and JSON or YAML that is nested too deeply, has
numbers of thousands of digits or half characters is a fault of the file like any other.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from slimtune.core.errors import SlimtuneError, fail

# Manifests, configs, tokenizers and templates: the largest that is in use, Gemma's tokenizer.json, has 34 MB.
SMALL_FILE_BYTES = 256 * 2**20
MAX_DEPTH = 100
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_OPENING, _CLOSING = "[{", "]}"
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)

FAULTS = (ValueError, RecursionError, MemoryError)
"""What parsers of Python's library raise for bad content: UnicodeDecodeError and JSONDecodeError are ValueErrors."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading. Raises SlimtuneError where it is missing, unreadable, or no regular file."""
    with reading(path):
        # Without O_NONBLOCK the opening of a FIFO waits for a writer, perhaps for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise fail("this is a folder, not a file", where=str(path))
            if not stat.S_ISREG(mode):
                raise fail("this is a pipe or a device, not a file", where=str(path), fix="save the content as a file")
            os.set_blocking(descriptor, True)
            yield file


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says about a path that cannot be read into a SlimtuneError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise fail("no such file", where=str(path)) from None
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except ValueError as error:
        if "null" not in str(error):  # os.open on a path with a NUL
            raise
        raise fail("a path cannot contain a NUL character", where=repr(str(path))) from None


def read_bytes(path: Path, *, most: int = SMALL_FILE_BYTES) -> bytes:
    """A regular file's content. most: bytes; a larger file is refused before it is read."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise fail(
                f"the file has {size:,} bytes, more than the {most:,} that such a file may have", where=str(path)
            )
        return file.read()


def read_text(path: Path, *, most: int = SMALL_FILE_BYTES) -> str:
    """A UTF-8 file's text, without its byte order mark; line ends stay as they are."""
    try:
        return read_bytes(path, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise fail("not UTF-8 text", where=f"{path}:{line}", fix="save the file as UTF-8") from None


def json_value(text: str, where: str) -> Any:
    """The value of JSON text. where: the file (and line), for messages."""
    try:
        require_shallow(text)
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if "\n" in text.strip() else where
        raise fail(f"not valid JSON: {error.msg} (column {error.colno})", where=place) from None
    except FAULTS as error:
        raise fail(f"not valid JSON: {reason(error)}", where=where) from None
    if "\\ud" in text.lower() and _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False)):
        raise fail("half a character (a lone surrogate such as \\ud83d)", where=where)
    return value


def json_object(path: Path, *, most: int = SMALL_FILE_BYTES) -> dict[str, Any]:
    """The object of a JSON file. Raises SlimtuneError for anything else."""
    value = json_value(read_text(path, most=most), str(path))
    if not isinstance(value, dict):
        raise fail("not a JSON object", where=str(path))
    return value


def yaml_object(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file that a program of ours wrote. A recipe is read by `recipe.yaml_lines`."""
    text = read_text(path, most=2**20)
    try:
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise fail(f"not valid YAML: {error.problem or error.context}", where=f"{path}{line}") from None
    except (yaml.YAMLError, *FAULTS) as error:
        raise fail(f"not valid YAML: {reason(error)}", where=str(path)) from None
    if not isinstance(value, dict):
        raise fail("not a mapping", where=str(path))
    return value


def require_shallow(text: str) -> None:
    """Raise RecursionError for JSON text that is nested more than 100 deep: Python's own limit differs by version."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(text):
        mark = token[0]
        depth += (mark in _OPENING) - (mark in _CLOSING)
        if depth > MAX_DEPTH:
            raise RecursionError


def reason(error: BaseException) -> str:
    """Why content was refused, in a few words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it is too large for this machine's memory"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 (byte {error.start:,})"
    if "integer string conversion" in str(error):
        return "a number has more than 4,300 digits"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def refused(error: BaseException) -> str:
    """What a SlimtuneError or another fault says, on one line, for callers that note it and go on."""
    return error.problems[0].what if isinstance(error, SlimtuneError) else reason(error)
