"""Child processes that need not import torch and transformers: forked from a process that has.

The converter, and whoever asks a merged model, import for ten seconds and work for one. With `warm` on, what core/child.py
starts is a fork of multiprocessing's fork server, which has these libraries already. `SLIMTUNE_TEST_COLD=1` turns it off
(make test-all): every child is then the process that a user gets.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import IO, Any

import pytest

LIBRARIES = [
    "pytest",  # the main module of this process, which multiprocessing imports in each child
    "numpy",
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2.tokenization_qwen2",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.generation.utils",
    "safetensors.torch",
]


class Child:
    """What core/child.py uses of subprocess.Popen."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], stdin: int, stdout: IO[bytes], stderr: IO[bytes]
    ) -> None:
        assert stdin == subprocess.PIPE
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        reading, writing = os.pipe()
        streams = [Connection(reading, writable=False)]
        streams += [Connection(os.dup(file.fileno()), readable=False) for file in (stdout, stderr)]
        self.args, self.stdin = command, os.fdopen(writing, "wb")
        self._process = context.Process(target=_work, args=(list(command[1:]), dict(env), streams))
        self._process.start()
        self.pid = self._process.pid
        for stream in streams:
            stream.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.stdin.close()
        self.wait()


def _start(command: Sequence[str], **options: Any) -> Any:
    """A warm child for a Python script; a process of its own for any other program."""
    return (Child if command[0] == sys.executable else subprocess.Popen)(command, **options)


def _work(arguments: list[str], environment: dict[str, str], streams: list[Any]) -> None:
    """`python ARGUMENTS` with these streams, as far as core/child.py uses Python's options."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    own = [path for path in sys.path if "site-packages" in path or path.startswith(sys.base_prefix)]
    sys.path[:] = [*environment["PYTHONPATH"].split(os.pathsep), *own]
    os.environ.clear()
    os.environ.update(environment)
    assert arguments.pop(0) == "-P"
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


@pytest.fixture(scope="session", autouse=True)
def warm_children() -> Iterator[None]:
    from slimtune.core import child

    with pytest.MonkeyPatch.context() as patch:
        if "SLIMTUNE_TEST_COLD" not in os.environ:
            stands_for = {"Popen": _start, "PIPE": subprocess.PIPE, "TimeoutExpired": subprocess.TimeoutExpired}
            patch.setattr(child, "subprocess", SimpleNamespace(**stands_for))
        yield
