"""The same without a marker: models that were changed are loaded, asked, trained and exported, as far as that goes."""

import os

import pytest
from fuzz import cases, strategies
from fuzz.cases import Case
from hypothesis import HealthCheck, Phase, given, seed, settings

pytestmark = [pytest.mark.unsloth, pytest.mark.slow]
SECONDS = 600
EACH = int(os.environ.get("SLIMTUNE_FUZZ_FOR_REAL", "10"))
SEED = int(os.environ.get("SLIMTUNE_FUZZ_SEED", "0"))
ARRIVE = ("train", "evaluate a run", "evaluate an adapter", "evaluate a model", "evaluate a GGUF", "ensemble", "chat")
"""Not exports: each takes minutes."""


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What every case would import again; in one thread, since a fork has no others."""
    from slimtune.models import backend  # noqa: F401  before torch: Unsloth patches what follows

    import torch  # isort: skip

    torch.set_num_threads(1)


@pytest.mark.parametrize("scene", ARRIVE)
def test_a_command_that_goes_on_says_one_thing_too(scene):
    @seed(SEED)
    @settings(
        max_examples=EACH,
        deadline=None,
        derandomize=not SEED,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategies.cases(scene))
    def whatever(case: Case) -> None:
        outcome = cases.run(case, seconds=SECONDS, for_real=True)
        assert cases.fault(outcome) == "", cases.account(case, outcome)

    whatever()
