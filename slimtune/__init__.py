"""Slimtune: fine-tune a language model on the graphics card you own, and know that it helped."""

from slimtune.core.versions import SLIMTUNE as __version__  # noqa: F401
from slimtune.models import families  # noqa: F401  Registers the control tokens that reading data refuses.
