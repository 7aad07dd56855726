"""HTML pages that can be sent to somebody: styles inside, nothing loaded from outside, every text escaped and visible.

A page's template begins with `{% extends "layout.html.jinja" %}` and fills the blocks `title` and `body`. For charts it
has `{% from "charts.html.jinja" import plot %}`. Both are in core/templates/.
"""

import functools
from collections.abc import Mapping
from typing import Any

from slimtune.core.visible import visible


def render(package: str, name: str, view: Mapping[str, Any]) -> str:
    """The page of a template in the folder templates/ of `package`. A value that the view lacks is an error."""
    text: str = _environment(package).get_template(name).render(view)
    return text


@functools.cache
def _environment(package: str) -> Any:
    """It keeps its templates compiled, which takes longer than to fill them."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("slimtune.core")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Marks that reverse the direction of writing deceive on a page too, and half a character cannot be written."""
    return visible(value) if type(value) is str else value
