"""What a case does to the valid files and options of a scene: each change is a small value that can be written down.

A JSON, YAML or safetensors file is changed at a node, so that it stays well-formed and gets past the parser; any file
can also be changed as bytes, or be something other than a file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]

VALUES = {
    "null": "null",
    "true": "true",
    "zero": "0",
    "minus one": "-1",
    "one": "1",
    "half": "0.5",
    "10**30": str(10**30),
    "2**63": str(2**63),
    "5,000 digits": "9" * 5000,
    "1e999": "1e999",
    "1e308": "1e308",
    "tiny": "1e-320",
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "empty text": '""',
    "space": '" "',
    "text": '"no such thing"',
    "number as text": '"7"',
    "NUL": '"a\\u0000b"',
    "half a character": '"a\\ud800"',
    "escape codes": '"\\u001b[31mred\\u001b]0;title\\u0007"',
    "C1 code": '"\\u009b31m"',
    "carriage return": '"a\\r\\nb"',
    "bidi": '"\\u202eabc"',
    "parent": '".."',
    "precious": '"../elsewhere/precious.txt"',
    "home": '"~"',
    "stranger": '"~nobody-by-that-name/x"',
    "device": '"/dev/zero"',
    "long name": json.dumps("n" * 5000),
    "100,000 brackets": json.dumps("(" * 100_000),
    "jinja": '"{{ 7 * 7 }}{% for a in b %}"',
    "full-width": '"１２"',
    "list": "[]",
    "object": "{}",
    "texts": '["a", "b"]',
    "mixed": '[1, "a", null, [], {}]',
    "nested object": '{"a": {"b": {"c": [1]}}}',
    "depth 3,000": "[" * 3000 + "]" * 3000,
    "object depth 3,000": '{"a":' * 3000 + "1" + "}" * 3000,
    "10,000 numbers": json.dumps(list(range(10_000))),
}
"""Name -> JSON text."""

BYTES = {
    "NUL": b"\0",
    "not UTF-8": b"\xff\xfe\x80",
    "BOM": b"\xef\xbb\xbf",
    "escape codes": b"\x1b[31m\x1b]0;title\x07",
    "line ends": b"\r\n\r\n\r",
    "line separator": "\u2028\u0085".encode(),
    "quote": b'"',
    "brackets": b"{[",
    "closing": b"}]",
    "jinja": b"{% for a in range(10**9) %}{{ a }}",
    "colons": b": - : -\n\t",
    "anchor": b"&a [*a]",
    "all ones": b"\xff" * 8,
    "zeros": b"\0" * 8,
    "8 EiB": struct.pack("<q", 2**62),
    "100,000 brackets": b"(" * 100_000,
    "100,000 letters": b"a" * 100_000,
    "quotes": b'"""',
    "comma": b",",
}

WHOLE = {
    "empty": b"",
    "blank": b"\n \n",
    "UTF-16": "{}\n".encode("utf-16"),
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "zstd": b"\x28\xb5\x2f\xfd\0\0",
    "zip": b"PK\x03\x04" + bytes(26),
    "PAR1": b"PAR1" + bytes(20) + b"PAR1",
    "GGUF": b"GGUF\x03\0\0\0" + b"\xff" * 16,
    "NULs": bytes(1000),
    "text": b"no such thing\n",
    "object": b"{}",
    "list": b"[]",
    "null": b"null",
    "number": b"7",
    "depth 3,000": b"[" * 3000 + b"]" * 3000,
    "YAML depth 3,000": b"- " * 3000 + b"1",
    "aliases": b"a: &a [1,1,1,1,1,1,1,1,1]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in range(97, 105)),
    "pickle": b"\x80\x04cos\nsystem\n.",
    "long line": b"a" * 1_000_000,
}
NOT_FILES = ("missing", "folder", "pipe", "loop", "device", "nothing", "dangling")
"""What is at the name instead of a file. device: a link to /dev/zero, which never ends; nothing: to /dev/null."""

TEXTS = {
    "empty": "",
    "space": " ",
    "zero": "0",
    "minus one": "-1",
    "one": "1",
    "half": "0.5",
    "10**30": str(10**30),
    "5,000 digits": "9" * 5000,
    "1e999": "1e999",
    "nan": "nan",
    "word": "nonsense",
    "comma": ",",
    "equals": "=",
    "half a character": "a\udcff",
    "escape codes": "\x1b[31mred\x1b]0;title\x07",
    "new line": "a\nb",
    "full-width": "１２",
    "superscript": "²",
    "parent": "..",
    "here": ".",
    "precious": "../elsewhere/precious.txt",
    "own": "own.txt",
    "own folder": "own",
    "deep": "a/b/c/d.png",
    "home": "~",
    "home file": "~/x.png",
    "stranger": "~nobody-by-that-name/x",
    "device": "/dev/null",
    "full": "/dev/full",
    "long name": "n" * 300,
    "long path": "n/" * 3000,
    "loop": "loop",
    "pipe": "pipe",
    "under a file": "own.txt/x.png",
    "option": "--help",
    "list": "[1, 2]",
    "100,000 brackets": "[" * 100_000,
    "URL": "http://localhost:1/v1#m",
    "bad URL": "http://[::1/v1#m",
    "bad port": "http://localhost:99999999/v1#m",
    "URL of letters": "http://a\u2100b/v1#m",
    "hub id": "nobody/nothing",
    "builtin": "builtin:nothing",
    "globs": "[!]*?",
    "GGUF": "no.gguf",
}
"""Values of options and arguments. No NUL: the system passes none to a program."""


@dataclass(frozen=True)
class Change:
    """how: see `changed` for files; "option" and "argument" for the command line. where: a node, or thousandths of a file."""

    file: str
    how: str
    where: Path | int = ()
    value: str = ""

    def __repr__(self) -> str:
        values = ", ".join(map(repr, (self.file, self.how, self.where, self.value)))
        return f"Change({values})"


def nodes(value: Any, at: Path = ()) -> Iterator[Path]:
    """The paths of a JSON value's nodes, without the many like ones."""
    yield at
    if len(at) > 6:
        return
    if isinstance(value, dict):
        for key in list(value)[:60]:
            yield from nodes(value[key], (*at, key))
    elif isinstance(value, list):
        for index in range(min(2, len(value))):
            yield from nodes(value[index], (*at, index))


def structure(name: str, content: bytes) -> Any:
    """The JSON value that a file holds; for JSONL the list of its rows. None for another kind of file."""
    if name.endswith(".json"):
        return json.loads(content)
    if name.endswith(".yaml"):
        return yaml.safe_load(content)
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in content.splitlines()]
    if name.endswith(".safetensors"):
        (length,) = struct.unpack("<Q", content[:8])
        return json.loads(content[8 : 8 + length])
    return None


def changed(name: str, content: bytes, change: Change) -> bytes:
    """The content after a change to a node, or to the bytes. An earlier change may have left no node to change."""
    match change.how:
        case "set" | "drop" | "add" | "wrap" | "repeat":
            try:
                value = structure(name, content)
            except (ValueError, struct.error, yaml.YAMLError):
                return content
            return _written(name, content, _at(value, change.where, change), change)
        case "truncate":
            return content[: _offset(content, change.where)]
        case "flip":
            at = _offset(content, change.where)
            return (
                content[:at] + bytes(b ^ 1 << len(change.value) % 8 for b in content[at : at + 1]) + content[at + 1 :]
            )
        case "splice":
            at = _offset(content, change.where)
            return content[:at] + BYTES[change.value] + content[at:]
        case "overwrite":
            at, new = _offset(content, change.where), BYTES[change.value]
            return content[:at] + new + content[at + len(new) :]
        case "drop line" | "repeat line":
            lines = content.splitlines(keepends=True)
            at = min(len(lines) - 1, len(lines) * int(change.where) // 1000) if lines else 0
            return b"".join(
                lines[:at] + lines[at : at + 1] * (2 if change.how == "repeat line" else 0) + lines[at + 1 :]
            )
        case "whole":
            return WHOLE[change.value]
    raise ValueError(change)


def _offset(content: bytes, where: Path | int) -> int:
    assert isinstance(where, int)
    # Headers decide: the lower half of the scale is the first 4,096 bytes.
    head = min(len(content), 4096)
    return head * where // 500 if where < 500 else len(content) * (where - 500) // 500


def _mark(name: str) -> str:
    return f"\x01{name}\x01"


def _at(value: Any, path: Path | int, change: Change) -> Any:
    assert not isinstance(path, int)
    if not path:
        if change.how == "set":
            return _mark(change.value)
        if change.how == "wrap":
            return [value]
        if change.how == "add":
            return value | {change.value: _mark("text")} if isinstance(value, dict) else value
        return [] if change.how == "drop" else [value, value]
    key, *rest = path
    if rest or change.how != "drop":
        child = _at(value[key], tuple(rest), change)
        if isinstance(value, list):
            index = int(key)
            return [*value[:index], child, *value[index + 1 :]]
        return value | {key: child}
    if isinstance(value, list):
        return [one for index, one in enumerate(value) if index != key]
    return {name: one for name, one in value.items() if name != key}


def _written(name: str, content: bytes, value: Any, change: Change) -> bytes:
    def text(value: Any) -> str:
        written = json.dumps(value, ensure_ascii=False)
        for marked in (change.value, "text"):
            written = written.replace(json.dumps(_mark(marked)), VALUES.get(marked, '"no such thing"'))
        if name.endswith(".yaml"):
            # YAML's own words for them: with JSON's they would be texts.
            return written.replace(": NaN", ": .nan").replace(": -Infinity", ": -.inf")
        return written

    if name.endswith(".jsonl"):
        if not isinstance(value, list):
            return text(value).encode(errors="surrogatepass")
        return "".join(text(row) + "\n" for row in value).encode(errors="surrogatepass")
    if name.endswith(".safetensors"):
        header = text(value).encode(errors="surrogatepass")
        (length,) = struct.unpack("<Q", content[:8])
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    return text(value).encode(errors="surrogatepass")
