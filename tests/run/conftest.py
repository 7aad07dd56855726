"""One process that has imported everything, and its undisturbed run, for all tests that kill or disturb a run."""

import pytest
from support.short_run import DATA, Runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    with Runs(tmp_path_factory.mktemp("runs"), evaluate={"data": str(DATA / "test.jsonl"), "max_items": 4}) as started:
        yield started
