"""How many examples a property is tried with."""

import os

from hypothesis import settings


def examples(number: int) -> settings:
    """`number` in `make test-all`, a sixth of it in `make test`."""
    thorough = os.environ.get("SLIMTUNE_HYPOTHESIS") == "thorough"
    return settings(max_examples=number if thorough else number // 6, deadline=None)
