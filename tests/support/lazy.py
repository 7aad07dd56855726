"""Modules that are imported when a test first uses them, not while tests are collected."""

from __future__ import annotations

import importlib
from typing import Any


class Lazy:
    """Stands for a module: reading, setting or deleting an attribute imports the module and is done there."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """The module's: pytest's monkeypatch takes from here what it puts back."""
        return vars(importlib.import_module(object.__getattribute__(self, "_name")))

    def __getattr__(self, attribute: str) -> Any:
        # pytest asks everything in a test's module for such attributes.
        if attribute.startswith(("__", "pytest", "_pytest", "_mock")):
            raise AttributeError(attribute)
        return getattr(importlib.import_module(object.__getattribute__(self, "_name")), attribute)

    def __setattr__(self, attribute: str, value: Any) -> None:
        setattr(importlib.import_module(object.__getattribute__(self, "_name")), attribute, value)

    def __delattr__(self, attribute: str) -> None:
        delattr(importlib.import_module(object.__getattribute__(self, "_name")), attribute)
