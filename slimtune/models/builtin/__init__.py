"""The model and the task that ship with Slimtune, so that a whole run works offline on a laptop."""

from pathlib import Path

from slimtune.core.errors import fail

_CHECKPOINTS = {"builtin:tiny-qwen3": Path(__file__).parent / "tiny-qwen3"}


def resolve(name: str) -> Path:
    """The folder of a built-in checkpoint: "builtin:tiny-qwen3". Raises SlimtuneError for an unknown one."""
    if name not in _CHECKPOINTS:
        raise fail(f"no built-in model '{name}'", where="model.base", fix=f"use one of {', '.join(_CHECKPOINTS)}")
    return _CHECKPOINTS[name]
