"""The command line as a person meets it: exit code, output and errors, without a process of its own."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest

from slimtune.cli import app as cli


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Outcome:
    """`slimtune ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return Outcome(int(left.value.code or 0), out.getvalue(), err.getvalue())
