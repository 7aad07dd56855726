"""The model and the task that ship with Slimtune, so that a whole run works offline on a laptop."""

from pathlib import Path

from slimtune.core.errors import fail

PREFIX = "builtin:"
_CHECKPOINTS = ("tiny-qwen3",)


def resolve(name: str) -> Path:
    """The folder of a built-in checkpoint: "builtin:tiny-qwen3".

    Raises SlimtuneError for a name that is not one of them.
    """
    checkpoint = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or checkpoint not in _CHECKPOINTS:
        known = ", ".join(PREFIX + known for known in _CHECKPOINTS)
        raise fail(f"no built-in model '{name}'", where="model.base", fix=f"built-in models: {known}")
    return Path(__file__).parent / checkpoint
