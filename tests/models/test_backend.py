"""What the tests keep of Unsloth's is what the installed Unsloth has."""

import pytest
from support.chat_templates import FILES, chat_template, unsloth_template

pytestmark = pytest.mark.unsloth


@pytest.mark.parametrize("family", sorted(set(FILES.values())))
def test_the_checked_in_templates_are_unsloths(family):
    from slimtune.models import backend

    assert chat_template(family) == unsloth_template(family) == backend.chat_template(family)
