"""The look that all pages share: a layout with styles inside, charts as macros, every text escaped.

A page's template begins with `{% extends "layout.html.jinja" %}` and fills the blocks `title` and `body`; its charts are
`{% from "charts.html.jinja" import plot %}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(name: str, view: Mapping[str, Any]) -> str:
    """The page of a template in report/templates/. A value that the view lacks is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("slimtune.run.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(view)
