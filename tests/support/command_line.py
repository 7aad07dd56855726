"""The command line as a person meets it: exit code, output and errors, without a process of its own."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass

import typer.main

from slimtune.cli import app as cli

# Typer builds all commands anew for each call, which takes longer than most of them.
typer.main.get_command = functools.cache(typer.main.get_command)


@dataclass(frozen=True)
class Outcome:
    code: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Outcome:
    """`slimtune ARGUMENTS`."""
    return _call(cli.main, arguments)


def train(*arguments: object) -> Outcome:
    """`python train_unsloth.py ARGUMENTS`."""
    return _call(cli.train_unsloth, arguments)


def _call(command: Callable[[list[str]], None], arguments: tuple[object, ...]) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    code: str | int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
    return Outcome(int(code or 0), out.getvalue(), err.getvalue())
