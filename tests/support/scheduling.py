"""Which worker of pytest-xdist runs which test, and what a process is like before its first test. Hooks of pytest, imported
by tests/conftest.py.

Importing Unsloth takes 20 seconds of a processor, so tests that need it carry the mark `unsloth` and run in workers of
their own: the files that use the quickstart's run (fixture `good`) in the first, the others in the second; of fewer than
five workers the first has both. The tests without the mark run in the other workers, where one that imports Unsloth fails
and says so.
Tests with the mark `fault` share a process that forks disturbed runs, so they stay together. All other tests of a file stay
together too, as the fixtures of a module are made once a worker.
"""

from __future__ import annotations

import ast
import functools
import gc
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

RUN, UNSLOTH = "run", "unsloth"
_imported: list[str] = []
"""Empty until this process has imported Unsloth."""
_MARKED = re.compile(r"^pytestmark = pytest\.mark\.unsloth$", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    """Import Unsloth before the tests are collected where a whole file needs it: it patches what is imported after it."""
    # Whoever starts the tests in the background (nohup, `&` in a script) ignores SIGINT, and all children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    controls = worker is None and getattr(config.option, "numprocesses", None)
    if worker and not _has_unsloth(worker):
        os.nice(5)  # where processors are few, the worker with Unsloth has more to do than any other
    if not controls and _has_unsloth(worker) and _needs_unsloth(config):
        from slimtune.models import backend  # noqa: F401

        _imported.append("")


def pytest_collection_finish() -> None:
    """Loading, training and statsmodels collect garbage; what is imported by now is a second's worth of it each time."""
    gc.collect()
    gc.freeze()


def _has_unsloth(worker: str | None) -> bool:
    """worker: as xdist names it ("gw0"); None for a process that runs all tests."""
    return worker is None or int(worker[2:]) < max(1, _first_without(int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))


def _first_without(workers: int) -> int:
    """The first of so many workers that never imports Unsloth; 0 for a single one, which does."""
    return 2 if workers >= 5 else min(1, workers - 1)


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
        """Gives a worker only what is its own."""

        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return _scopes(config.rootpath / file).get(test.partition("[")[0]) or file

        def _own(self, node: Any) -> list[str]:
            place, first_without = int(node.gateway.id[2:]), _first_without(self.numnodes)
            if place >= self.numnodes:  # in place of a worker that crashed
                return list(self.workqueue)
            places = {RUN: 0, UNSLOTH: max(0, first_without - 1)}
            return [
                scope
                for scope in self.workqueue
                if (place == places[scope] if scope in places else place >= first_without)
            ]

        def _assign_work_unit(self, node: Any) -> None:
            if own := self._own(node):
                self.workqueue.move_to_end(own[0], last=False)
                super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            if self._own(node):
                super()._reschedule(node)
            elif not node.shutting_down:
                node.shutdown()

    return ByMark(config, log) if config.getoption("dist") == "loadfile" else None


@functools.cache
def _scopes(path: Path) -> dict[str, str]:
    """Function -> its tests' scope, where that is not its file. From the source: the controlling process imports no test."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    of_all = [
        ast.unparse(node)
        for node in body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    on_the_run = any(argument.arg == "good" for node in functions for argument in node.args.args)
    found = {}
    for node in functions:
        marks = " ".join([*of_all, *map(ast.unparse, node.decorator_list)])
        if "pytest.mark.unsloth" in marks:
            found[node.name] = RUN if on_the_run else UNSLOTH
        elif "pytest.mark.fault" in marks:
            found[node.name] = "fault"
    return found
