"""Files that anybody may have made: whatever they hold, one SlimtuneError names the file and its place."""

import json
import os
import resource
import socket
import struct
from pathlib import Path

import pytest
from support import unprivileged

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError
from slimtune.core.file_kinds import recognised


def refusal(read, *arguments):
    with pytest.raises(SlimtuneError) as caught:
        read(*arguments)
    (problem,) = caught.value.problems
    return problem


def unreadable(folder):
    """What is no file: a path of each kind, and what is said of it."""
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(folder)
        bound.bind("socket")
    return {
        folder / "missing": "no such file",
        folder: "this is a folder, not a file",
        folder / "pipe": "this is a pipe, a socket or a device, not a file",
        folder / "socket": "this is a pipe, a socket or a device, not a file",
        folder / "loop": "cannot be read: Too many levels of symbolic links",
        folder / ("x" * 300): "cannot be read: File name too long",
        folder / "a\0b": "a path cannot contain a NUL character",
        folder / "a\ud83d": "a path cannot contain half a character (a lone surrogate)",
        "/dev/zero": "this is a pipe, a socket or a device, not a file",
    }


def test_what_is_no_file_is_named_and_nothing_hangs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, what in unreadable(tmp_path).items():
        problem = refusal(inputs.read_bytes, path)
        assert (problem.what, problem.where) == (what, str(path))
        assert str(problem).isprintable() or "\n" in str(problem)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert refusal(inputs.read_bytes, path).what.startswith("the file has 1,099,511,627,776 bytes, more than")


def test_no_more_memory_is_taken_than_a_file_has(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"abc")
    with large.open("wb") as file:
        file.truncate(2**40)

    def read():
        resource.setrlimit(resource.RLIMIT_AS, (2**40 // 2, 2**40 // 2))
        refused = refusal(lambda path: inputs.read_bytes(path, most=2**41), large)
        return inputs.read_bytes(small, most=2**41), refused.what, refused.where

    assert unprivileged.run(read) == (b"abc", "it is too large for this machine's memory", str(large))
    with Path("/proc/self/status").open("rb") as file:  # its size is said to be 0
        assert inputs.up_to(file, 10_000).startswith(b"Name:") and len(inputs.up_to(file, 7)) <= 7


JSON = {
    "": "not valid JSON: Expecting value (column 1)",
    "[1,\n2,,3]": "not valid JSON: Expecting value (column 3)",
    "[" * 100_000: "not valid JSON: it is nested too deeply",
    "[" * 101 + "]" * 101: "not valid JSON: it is nested too deeply",
    "9" * 5000: "not valid JSON: a number has more than 300 digits",
    '{"a": -' + "9" * 301 + "}": "not valid JSON: a number has more than 300 digits",
    '{"a": "\\ud83d"}': "half a character (a lone surrogate such as \\ud83d)",
    '["\\uDE00\\uD83D"]': "half a character (a lone surrogate such as \\ud83d)",
}


@pytest.mark.parametrize("text", JSON)
def test_faults_of_json(text):
    problem = refusal(inputs.json_value, text, "x.json")
    assert problem.what == JSON[text]
    assert problem.where == ("x.json:2" if "\n" in text else "x.json")


@pytest.mark.parametrize("value", [-0.0, 1e308, 10**299, {"a": ["😀", None, True]}, "[" * 500, {"[": "{\\" * 200}])
def test_sound_json_is_read_as_it_is(value):
    assert inputs.json_value(json.dumps(value), "x") == value


@pytest.mark.parametrize("content", [b"[]", b"null", b"7", b'"{}"'])
def test_json_that_is_no_object(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    assert refusal(inputs.json_object, path).what == "not a JSON object"


YAML = {
    "- a": ("not a mapping", ""),
    "a: &x 1\nb: *x": ("not valid YAML: aliases are not supported", ":2"),
    "a: [1,\nb: 2": ("not valid YAML: did not find expected", ":2"),
    "a: !!python/object:os.system x": ("not valid YAML: could not determine a constructor", ":1"),
    "a: " + "[" * 5000: ("not valid YAML: it is nested too deeply", ""),
    "a: 2026-13-45": ("not valid YAML: month must be in 1..12", ""),
    'a: "\\ud83d"': ("half a character", ""),
    "a: \x01": ("not valid YAML: the character U+0001 is not allowed", ""),
    "a: " + "9" * 5000: ("not valid YAML: a number has more than", ""),
}


@pytest.mark.parametrize("text", YAML)
def test_faults_of_yaml(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    problem, (what, line) = refusal(inputs.yaml_object, path), YAML[text]
    assert what.split(": ")[0] in problem.what and problem.where == f"{path}{line}"
    assert what in problem.what or "expected" in what


def test_lines_are_read_with_all_their_faults_and_without_the_one_that_was_cut_off(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": "\xe2\x80\xa8"}\n\n{"a": 1}\n{"a": ')
    assert inputs.json_lines(path) == [(1, {"a": "\u2028"}), (3, {"a": 1})]
    path.write_bytes(b'{"a": 1}\n[]\nnull\n\xff\n{"a"}\n{"a": 2}')
    with pytest.raises(SlimtuneError) as caught:
        inputs.json_lines(path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:{line}" for line in (2, 3, 4, 5)]


HEADS = {
    b"\x1f\x8b\x08": "a gzip archive",
    b"\x28\xb5\x2f\xfd\x04\x00": "compressed with zstd",
    b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml": "an Office document (such as .xlsx or .docx)",
    b"PK\x03\x04" + bytes(26) + b"data.jsonl": "a zip archive",
    b"\x89PNG\r\n\x1a\n\0": "a PNG picture",
    b"GGUF\3\0\0\0": "a GGUF model",
    struct.pack("<Q", 88) + b'{"__metadata__"': "a safetensors file",
    "é".encode("utf-16"): "UTF-16 text",
    bytes(257) + b"ustar": "a tar archive",
    b"\x80\x04\x95": "a Python pickle",
    b'{"input": 1}': "",
    "日本語".encode(): "",
    b"": "",
}


@pytest.mark.parametrize("head", HEADS)
def test_files_are_recognised_by_their_first_bytes(tmp_path, head):
    what, fix = recognised(head)
    assert (what, bool(fix)) == (HEADS[head], bool(what))
    if what:
        path = tmp_path / "config.json"
        path.write_bytes(head)
        assert refusal(inputs.json_object, path).what == f"this is {what}"
