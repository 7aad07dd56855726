"""Whatever a command is given, it says one thing about it, ends, and changes nothing that is not its own.

The quick tier draws 300 cases, the same each time, and stops where a command would load torch. `make fuzz` draws
$SLIMTUNE_FUZZ of them from a seed that it prints and that repeats them; what it finds belongs into FOUND.
"""

from __future__ import annotations

import os

import pytest
from fuzz import cases, strategies
from fuzz.cases import Case
from fuzz.changes import Change
from fuzz.sandbox import ARRIVED
from fuzz.scenes import SCENES
from hypothesis import HealthCheck, Phase, event, given, seed, settings

QUICK, QUICK_COSTLY = 6, 2
"""How many cases a scene has in `make test`, 300 in all with the valid ones and those that once failed."""
COSTLY = ("plan", "train", "compare", "report", "new")
WANTED = int(os.environ.get("SLIMTUNE_FUZZ", "0"))
SECONDS = 60  # what takes one on a quiet machine may take ten on a busy one
SEED = int(os.environ.get("SLIMTUNE_FUZZ_SEED", "0"))

RUN = "work/outputs/direct/20261122T050000Z"
FOUND = (
    Case("evaluate a run", (Change("", "argument", 1, "bad URL"),)),
    Case("evaluate a GGUF", (Change("", "argument", 1, "5,000 digits"),)),
    Case("check a GGUF", (Change("", "argument", 2, "long path"),)),
    Case("check a Modelfile", (Change("", "argument", 2, "pipe"),)),
    Case("chat", (Change("work/Modelfile", "instead", (), "loop"),)),
    Case("compare", (Change("work/result/answers.jsonl", "set", (1, "logprobs", "b"), "NaN"),)),
    Case("report", (Change(f"{RUN}/export/parity.json", "instead", (), "dangling"),)),
    Case("data split", (Change("work/rows.jsonl", "instead", (), "loop"),)),
    Case("data check of layouts", (Change("", "argument", 2, "long path"),)),
    Case("data build with a teacher", (Change("http/v1/chat/completions.json", "whole", (), "depth 3,000"),)),
    Case("data split", (Change("--dev", "option", (), "5,000 digits"),)),
    Case("data mix", (Change("--cap", "option", (), "5,000 digits"),)),
    Case("compare with a judge", (Change("http/v1/models.json", "add", ("data",), "one"),)),
    Case("rescore", (Change("", "leave out", 2), Change("", "leave out", 2))),
    Case("data check", (Change("work/rows.jsonl", "whole", (), "empty"), Change("--plot", "option", (), "deep"))),
    Case("data build with search", (Change("", "argument", 2, "5,000 digits"),)),
    Case("data build with a teacher", (Change("--teacher-replies", "option", (), "10**30"),)),
    Case("data split", (Change("--out", "option", (), "parent"),)),
    Case("data split again", (Change("", "argument", 2, "5,000 digits"),)),
    Case("data mix", (Change("", "argument", 2, "5,000 digits"),)),
    Case("plan of a card", (Change("work/held_out.jsonl", "set", (0, "meta", "mode"), "list"),)),
)
"""Cases that once failed."""


def _quietly(examples: int) -> settings:
    phases = tuple(Phase) if WANTED else (Phase.explicit, Phase.generate)
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=not WANTED,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("scene", SCENES)
def test_a_command_says_one_thing_whatever_it_is_given(scene):
    valid = Case(scene)
    outcome = cases.run(valid, seconds=SECONDS)
    assert outcome.code in SCENES[scene].codes and cases.fault(outcome) == "", cases.account(valid, outcome)

    @seed(SEED)
    @_quietly(-(-WANTED // len(SCENES)) if WANTED else QUICK_COSTLY if scene.startswith(COSTLY) else QUICK)
    @given(strategies.cases(scene))
    def whatever(case):
        outcome = cases.run(case, seconds=SECONDS)
        event(f"{scene}: {'arrived' if outcome.code == ARRIVED else f'exit {outcome.code}'}")
        assert cases.fault(outcome) == "", cases.account(case, outcome)

    whatever()


@pytest.mark.parametrize("case", FOUND, ids=repr)
def test_what_once_failed(case):
    outcome = cases.run(case, seconds=SECONDS)
    assert cases.fault(outcome) == "", cases.account(case, outcome)
