"""Which worker of pytest-xdist runs which test. Hooks of pytest, imported by tests/conftest.py.

Importing Unsloth takes 25 seconds of a processor, so tests that need it carry the mark `unsloth` and all run in the first
worker. A test without that mark that imports Unsloth fails and says so. Tests with the mark `fault` share a process that
forks disturbed runs, so they stay together too. All other tests of a file stay together in a worker, as the fixtures of a
module are made once a worker.
"""

from __future__ import annotations

import ast
import functools
import gc
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

UNSLOTH = "unsloth"
FIRST = "gw0"
"""The worker that imports Unsloth."""
_imported: list[str] = []
"""Empty until this process has imported Unsloth."""
_MARKED = re.compile(r"^pytestmark = pytest\.mark\.unsloth$", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    """Import Unsloth before the tests are collected where a whole file needs it: it patches what is imported after it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    controls = worker is None and getattr(config.option, "numprocesses", None)
    if worker in (None, FIRST) and not controls and _needs_unsloth(config):
        from slimtune.models import backend  # noqa: F401

        _imported.append("")
        # Loading and training collect garbage; the imported libraries are half a second's worth of it each time.
        gc.collect()
        gc.freeze()


def _needs_unsloth(config: pytest.Config) -> bool:
    if config.option.collectonly or f"not {UNSLOTH}" in config.option.markexpr:
        return False
    places = [Path(config.invocation_params.dir, argument.partition("::")[0]) for argument in config.args]
    files = (file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("test_*.py"))))
    return any(_MARKED.search(file.read_text(encoding="utf-8")) for file in files)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    if UNSLOTH in sys.modules and not _imported:
        _imported.append(item.nodeid)
        if not item.get_closest_marker(UNSLOTH):
            pytest.fail("this test imports Unsloth: mark it with pytest.mark.unsloth", pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class ByMark(LoadFileScheduling):  # type: ignore[misc]
        """A file's tests together; those with one of the marks together, those with `unsloth` in the first worker."""

        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return _marks(config.rootpath / file).get(test.partition("[")[0]) or file

        def _assign_work_unit(self, node: Any) -> None:
            if UNSLOTH in self.workqueue:
                self.workqueue.move_to_end(UNSLOTH, last=node.gateway.id != FIRST)
            super()._assign_work_unit(node)

    return ByMark(config, log) if config.getoption("dist") == "loadfile" else None


@functools.cache
def _marks(path: Path) -> dict[str, str]:
    """Function -> its mark, of those that decide about the worker. From the source: the controlling process imports no test."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    of_all = [
        ast.unparse(node)
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            written = " ".join([*of_all, *map(ast.unparse, node.decorator_list)])
            for mark in (UNSLOTH, "fault"):
                if f"pytest.mark.{mark}" in written:
                    found.setdefault(node.name, mark)
    return found
