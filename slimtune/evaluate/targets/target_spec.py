"""What is to be evaluated, as it is named on the command line. No torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from slimtune.core.errors import SlimtuneError, fail
from slimtune.models import files as base_model

SpecKind = Literal["run", "adapter", "model", "gguf", "api"]


@dataclass(frozen=True, slots=True)
class Spec:
    """kind, and where it is: a folder or file, a model's name (hub id, builtin:NAME), or a URL with `model`."""

    kind: SpecKind
    place: str
    model: str | None = None

    @property
    def slug(self) -> str:
        """A folder name for its results."""
        text = f"{self.place}-{self.model}" if self.model else self.place
        path = Path(text)
        if self.kind == "run":
            text = f"{path.resolve().parent.name}-{path.resolve().name}"
        elif self.kind == "adapter":
            text = "-".join([part for part in path.resolve().parts if part != "checkpoints"][-3:])
        elif self.kind == "gguf":
            text = path.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[-80:]


def parse(text: str, model: str | None = None) -> Spec:
    """A run's folder, an adapter's, a model's (or its hub id, or builtin:NAME), a .gguf, or URL#MODEL.

    model: for a URL that does not name it. Raises SlimtuneError for anything else.
    """
    if text.startswith(("http://", "https://")):
        url, _, named = text.partition("#")
        if not urlsplit(url).hostname:
            raise fail(f"'{url}' is not a valid URL", fix="e.g. http://localhost:11434/v1#law-direct")
        if not (named or model):
            raise fail("the name of the model is missing", where=text, fix=f"{url}#MODEL, or --model MODEL")
        return Spec("api", url, named or model)
    path = Path(text).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise fail("there is no such GGUF file", where=text, fix="name a file that exists")
        return Spec("gguf", str(path))
    if path.is_dir():
        if (path / "recipe.yaml").is_file() and (path / "manifest.json").is_file():
            return Spec("run", str(path))
        if (path / "adapter_config.json").is_file():
            return Spec("adapter", str(path))
        if (path / "config.json").is_file():
            return Spec("model", str(path))
        fix = "name a folder with recipe.yaml and manifest.json, adapter_config.json, or config.json"
        raise fail("the folder is not a run, an adapter or a model", where=text, fix=fix)
    try:
        base_model.locate(text)
    except SlimtuneError as error:
        known = "a run's folder, an adapter's, a model's (or its hub id, or builtin:tiny-qwen3), a .gguf, or URL#MODEL"
        raise fail(error.problems[0].what, where=text, fix=f"name {known}") from None
    return Spec("model", text)
