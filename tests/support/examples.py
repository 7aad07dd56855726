"""How much is tried: a little in `make test`, all of it in `make test-all`."""

import os

from hypothesis import settings

THOROUGH = os.environ.get("SLIMTUNE_HYPOTHESIS") == "thorough"


def examples(number: int) -> settings:
    """A property is tried with `number` examples in `make test-all`, with a sixth of them in `make test`."""
    return settings(max_examples=number if THOROUGH else number // 6, deadline=None)
