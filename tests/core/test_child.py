"""What a child process does wrong is one sentence, whoever ended it."""

import os
import tempfile

import pytest

from slimtune.core import child
from slimtune.core.errors import SlimtuneError


def run(*command, **more):
    return child.run(command, what="the work failed", environment=dict(os.environ), **more)


def test_its_output_is_returned_and_its_last_lines_tell_why_it_failed():
    assert run("sh", "-c", "read line; echo $line", first_line=b"a line\n") == b"a line\n"
    with pytest.raises(SlimtuneError, match=r"the work failed \(exit code 3\):\n    why"):
        run("sh", "-c", "echo why >&2; exit 3")


@pytest.mark.parametrize(
    "said", ["x: No space left on device", "Disk quota exceeded", "OSError: 49152 requested and 30400 written"]
)
def test_a_full_disk_is_told_with_the_file_that_grew(said, tmp_path):
    with pytest.raises(SlimtuneError, match=r"out\.gguf: the disk is full"):
        run("sh", "-c", "echo $0 >&2; echo 'Writing:  22%' >&2; exit 1", said, writes=tmp_path / "out.gguf")


def test_one_that_is_killed_says_so():
    with pytest.raises(SlimtuneError, match=r"exit code -9, killed, as the system does where memory runs out\)"):
        run("sh", "-c", "kill -9 $$")
    with pytest.raises(SlimtuneError, match=r"the work failed \(exit code -15\)"):
        run("sh", "-c", "kill $$")


@pytest.mark.parametrize("content", [None, "", "no program\n"])
def test_a_file_that_is_no_program(tmp_path, content):
    path = tmp_path / "llama-quantize"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(SlimtuneError, match="llama-quantize: the work failed: it cannot be started: "):
        run(str(path))


def test_no_room_for_a_temporary_file(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(SlimtuneError, match=r"no temporary file can be made: [\s\S]* set TMPDIR"):
        run("true")


def test_one_that_takes_too_long_is_ended():
    with pytest.raises(SlimtuneError, match="the work failed: no answer after 0 s"):
        run("sleep", "600", timeout_seconds=0.1)
