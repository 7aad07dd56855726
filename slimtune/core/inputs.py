"""Read files that anybody may have made: every fault is a SlimtuneError that names the file, and nothing hangs.

A FIFO or a device is refused, and sizes are bounded. JSON or YAML that is nested too deeply is a fault of the file like
any other. So are numbers of thousands of digits, and half characters.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import yaml

from slimtune.core.errors import Problem, SlimtuneError, advising, bad_data, fail
from slimtune.core.file_kinds import recognised

# Manifests, configs, tokenizers and templates: the largest that is in use, Gemma's tokenizer.json, has 34 MB.
SMALL_FILE_BYTES = 256 * 2**20
# Answers, metrics and events of a run, a line each.
LINES_BYTES = 4 * 2**30
_BLOCK_BYTES = 2**20
MAX_DEPTH = 100
MOST_DIGITS = 300
"""Of a whole number: a longer one is no float, and from 4,300 digits on Python refuses it."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_OPENING, _CLOSING = "[{", "]}"
# A string that is never closed ends with the text: looking for its end from each quote would take for ever.
_TOKENS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)

MISSING = "no such file"
"""What is said of a file that is not there, for callers that say more."""
_CHECK_PATH, _CHECK_DISK = "check the path", "check its permissions and the disk"
_CHECK_FILE, _MEND = "check that this is the right file", "correct the file, or get it again from where it came"
_NO_FILE, _SAVE = "this is a pipe, a socket or a device, not a file", "save the content as a file"

FAULTS = (ValueError, RecursionError, MemoryError)
"""What parsers of Python's library raise for bad content: UnicodeDecodeError and JSONDecodeError are ValueErrors."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file, open for reading. Raises SlimtuneError where it is missing, unreadable, or no regular file."""
    with reading(path):
        # Without O_NONBLOCK the opening of a FIFO waits for a writer, perhaps for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise fail("this is a folder, not a file", where=str(path), fix="name a file in it")
            if not stat.S_ISREG(mode):
                raise fail(_NO_FILE, where=str(path), fix=_SAVE)
            os.set_blocking(descriptor, True)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says about a path that cannot be read into a SlimtuneError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise fail(MISSING, where=str(path), fix=_CHECK_PATH) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise fail(_NO_FILE, where=str(path), fix=_SAVE) from None
        raise fail(f"cannot be read: {error.strerror or error}", where=str(path), fix=_CHECK_DISK) from None
    except MemoryError as error:
        raise fail(reason(error), where=str(path), fix=_CHECK_FILE) from None
    except UnicodeEncodeError:
        raise fail(
            "a path cannot contain half a character (a lone surrogate)", where=str(path), fix=_CHECK_PATH
        ) from None
    except ValueError as error:
        if "null" not in str(error):  # os.open on a path with a NUL
            raise
        raise fail("a path cannot contain a NUL character", where=str(path), fix=_CHECK_PATH) from None


def at(path: Path | str) -> Path:
    """A path with `~` as the home folder; `~nobody`, without such a user, stays as it is and so is no file."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def real(path: Path | str) -> Path:
    """A path with `~` and all links resolved, as far as that goes: links in a circle stay."""
    return Path(os.path.realpath(at(path)))


def is_file(path: Path | str) -> bool:
    """Whether a regular file is there. False for a name that no file can have, where `Path.is_file` raises OSError."""
    return _mode(path, stat.S_ISREG)


def is_folder(path: Path | str) -> bool:
    """Whether a folder is there. False for a name that no folder can have, where `Path.is_dir` raises OSError."""
    return _mode(path, stat.S_ISDIR)


def exists(path: Path | str) -> bool:
    """Whether anything is there, be it a link that leads nowhere."""
    return _mode(path, lambda mode: True, follow=False)


def _mode(path: Path | str, is_kind: Callable[[int], bool], *, follow: bool = True) -> bool:
    try:
        return is_kind(Path(path).stat(follow_symlinks=follow).st_mode)
    except (OSError, ValueError):  # ValueError: a NUL or half a character
        return False


def up_to(file: BufferedReader, most: int) -> bytes:
    """The next bytes of a file, at most so many. `read(most)` would take the memory for all of them beforehand."""
    expected = os.fstat(file.fileno()).st_size - file.tell()
    content = file.read(min(most, max(0, expected) + 1))
    while expected < len(content) < most and (more := file.read(min(most - len(content), _BLOCK_BYTES))):
        content += more
    return content


def read_bytes(path: Path, *, most: int = SMALL_FILE_BYTES) -> bytes:
    """A regular file's content. most: bytes; a larger file is refused before it is read."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        # A file of /proc has no size and may have no end.
        content = up_to(file, most + 1) if size <= most else b""
        if size > most or len(content) > most:
            what = f"the file has {max(size, len(content)):,} bytes, more than the {most:,} that such a file may have"
            raise fail(what, where=str(path), fix=_CHECK_FILE)
        return content


def read_text(path: Path, *, most: int = SMALL_FILE_BYTES) -> str:
    """A UTF-8 file's text, without its byte order mark; line ends stay as they are."""
    content = read_bytes(path, most=most)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what, fix = recognised(content)
        if what:
            raise fail(f"this is {what}", where=str(path), fix=fix) from None
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise fail("not UTF-8 text", where=f"{path}:{line}", fix="save the file as UTF-8") from None
    what, fix = recognised(content)
    if what:
        raise fail(f"this is {what}", where=str(path), fix=fix)
    return text


def sha256(path: Path) -> str:
    """The hash of a regular file's bytes, in hexadecimal digits."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_value(text: str, where: str) -> Any:
    """The value of JSON text. where: the file (and line), for messages."""
    try:
        require_shallow(text)
        value = json.loads(text, parse_int=whole_number)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}" if "\n" in text.strip() else where
        raise fail(f"not valid JSON: {error.msg} (column {error.colno})", where=place) from None
    except FAULTS as error:
        raise fail(f"not valid JSON: {reason(error)}", where=where) from None
    if "\\ud" in text.lower() and _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False)):
        raise fail("half a character (a lone surrogate such as \\ud83d)", where=where)
    return value


def whole_number(digits: str) -> int:
    """The int of JSON's or YAML's digits. Raises ValueError for more digits than any float has."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has more than {MOST_DIGITS} digits")
    return int(digits)


def json_object(path: Path, *, most: int = SMALL_FILE_BYTES) -> dict[str, Any]:
    """The object of a JSON file. Raises SlimtuneError for anything else."""
    with advising(_MEND):
        value = json_value(read_text(path, most=most), str(path))
        if not isinstance(value, dict):
            raise fail("not a JSON object", where=str(path))
    return value


def json_lines(
    path: Path, *, content: bytes | None = None, problems: list[Problem] | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file that a program of ours writes, each with its line number; blank lines are left out.

    content: its bytes, where they have been read. A last line without a line end was cut off with its process, and is
    left out unless it is whole. Every line that is not an object is added to `problems`; without these, raises
    SlimtuneError with all of them.
    """
    data = read_bytes(path, most=LINES_BYTES) if content is None else content
    rows: list[tuple[int, dict[str, Any]]] = []
    found: list[Problem] = [] if problems is None else problems
    # Not splitlines: U+2028 in a text does not end a line.
    *lines, last = data.split(b"\n")
    for number, line in enumerate([*lines, last], 1):
        if not line.strip():
            continue
        try:
            value = json_value(_decoded(line, f"{path}:{number}"), f"{path}:{number}")
        except SlimtuneError as error:
            if number <= len(lines):
                found += error.problems
            continue
        if isinstance(value, dict):
            rows.append((number, value))
        else:
            found.append(Problem("not a JSON object", f"{path}:{number}"))
    if problems is None and found:
        raise bad_data({str(path): found})
    return rows


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fail(f"not UTF-8 text (byte {error.start + 1} of the line)", where=where) from None


class _PlainLoader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for billions of values."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def yaml_object(path: Path) -> dict[str, Any]:
    """The mapping of a YAML file that a program of ours wrote. A recipe is read by `recipe.yaml_lines`."""
    with advising(_MEND):
        text = read_text(path, most=2**20)
        try:
            require_shallow(text)
            value = yaml.load(text, Loader=_PlainLoader)
        except (yaml.YAMLError, *FAULTS) as error:
            raise_bad_yaml(error, str(path))
        if not isinstance(value, dict):
            raise fail("not a mapping", where=str(path))
        if _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)):
            raise fail("half a character (a lone surrogate such as \\ud83d)", where=str(path))
    return value


def raise_bad_yaml(error: Exception, where: str) -> NoReturn:
    """Raise the SlimtuneError for what PyYAML says of a text. where: the file, or what holds the text."""
    if isinstance(error, yaml.MarkedYAMLError):
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise fail(f"not valid YAML: {error.problem or error.context}", where=f"{where}{line}") from None
    if isinstance(error, yaml.reader.ReaderError):
        raise fail(f"not valid YAML: the character U+{int(error.character):04X} is not allowed", where=where) from None
    raise fail(f"not valid YAML: {reason(error)}", where=where) from None


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
