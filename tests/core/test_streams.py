"""Standard output that is closed, full or gone, for real: one sentence or none, the documented exit code, no traceback."""

import io
import os
import subprocess
import sys
import threading

import pytest
from support.paths import ROOT

from slimtune.cli import app as cli
from slimtune.core import streams
from slimtune.core.console import Console
from slimtune.core.errors import BAD_INPUT, OUTPUT_CLOSED

ROWS = "data/quickstart/dev.jsonl"
COMMANDS = [["version"], ["--help"], ["data", "check", ROWS], ["data", "preview", ROWS], ["plan", "no.yaml"]]


@pytest.fixture
def closed():
    """A stream whose reader has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123
        yield stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)


@pytest.fixture
def full():
    with open("/dev/full", "w", encoding="utf-8") as stream:  # noqa: PTH123
        yield stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_code(monkeypatch, arguments, stdout, stderr):
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_whose_reader_has_ended_ends_quietly(monkeypatch, closed, arguments):
    errors = io.StringIO()
    wanted = BAD_INPUT if "no.yaml" in arguments else OUTPUT_CLOSED  # an error needs no standard output
    assert exit_code(monkeypatch, arguments, closed, errors) == wanted
    told = errors.getvalue()
    assert "Traceback" not in told and "pipe" not in told.lower() and "cannot be written" not in told
    assert ("no.yaml" in told) == (wanted == BAD_INPUT)


@pytest.mark.parametrize("arguments", COMMANDS[:-1], ids=" ".join)
def test_a_full_disk_behind_standard_output_is_one_sentence(monkeypatch, full, arguments):
    errors = io.StringIO()
    assert exit_code(monkeypatch, arguments, full, errors) == BAD_INPUT
    assert errors.getvalue().count("error: the output cannot be written: No space left on device") == 1
    assert "Traceback" not in errors.getvalue()


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_standard_error_that_cannot_be_written_changes_no_exit_code(monkeypatch, request, stream):
    out = io.StringIO()
    assert exit_code(monkeypatch, ["plan", "no.yaml"], out, request.getfixturevalue(stream)) == BAD_INPUT
    assert exit_code(monkeypatch, ["version"], out, request.getfixturevalue(stream)) == 0
    assert "slimtune" in out.getvalue()


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        ("| true", OUTPUT_CLOSED),
        (">&- 2>&- <&-", 0),
        pytest.param("> /dev/full", BAD_INPUT, marks=pytest.mark.slow),
        pytest.param(">&-", 0, marks=pytest.mark.slow),
        pytest.param("2> /dev/full", 0, marks=pytest.mark.slow),
    ],
)
def test_what_a_shell_sees(redirection, code):
    line = f"{sys.executable} -m slimtune.cli version {redirection}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == (2 if code == BAD_INPUT else 0), done.stderr


def test_a_stream_that_was_closed_lends_its_number_to_no_file(tmp_path):
    code = (
        "import os, sys; from slimtune.core import streams\nwith streams.guarded(), open(sys.argv[1], 'w') as file:\n"
    )
    code += "    os.write(1, b'of a library'); print('lost'); os.system('echo of a child'); sys.exit(file.fileno())"
    line = f'{sys.executable} -c "$0" {tmp_path}/file >&- <&-'
    done = subprocess.run(["bash", "-c", line, code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode > 2, done.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_it_is_told_once_and_where_nobody_else_handles_it(monkeypatch, closed):
    monkeypatch.setattr(sys, "stdout", closed)
    told = []
    with streams.guarded():
        with streams.losing_output(told.append):
            Console().say("a line")
            Console().say("another")
        print("a third")
    assert [str(one) for one in told] == ["the output cannot be written: its reader has ended"]
    monkeypatch.setattr(sys, "stdout", closed)


def test_a_thread_that_prints_leaves_the_loss_to_the_main_one(monkeypatch, full):
    monkeypatch.setattr(sys, "stdout", full)
    caught = []
    monkeypatch.setattr(threading, "excepthook", caught.append)
    with pytest.raises(streams.OutputLost, match="No space left"), streams.guarded():
        thread = threading.Thread(target=Console().say, args=["a line"])
        thread.start()
        thread.join()
        assert caught == []
        Console().say("the next line")


@pytest.mark.parametrize("stream", ["closed", "full"])
def test_a_command_that_fails_keeps_its_exit_code(monkeypatch, request, stream):
    monkeypatch.setattr(sys, "stdout", request.getfixturevalue(stream))
    with pytest.raises(SystemExit) as ended, streams.guarded():
        print("not yet written")
        sys.exit(130)
    assert ended.value.code == 130


def test_a_worker_process_goes_on(monkeypatch, closed):
    monkeypatch.setattr(sys, "stdout", closed)
    with streams.guarded():
        child = os.fork()
        if child == 0:  # pragma: no cover
            Console().say("a line")
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
