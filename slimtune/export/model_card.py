"""The README.md of a merged model: its front matter is where llama.cpp's converter takes base model, licence and languages.

The converter (gguf-py/gguf/metadata.py) reads `base_model`, `license`, `language` and `tags` between two lines of `---`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError
from slimtune.core.markdown import plain
from slimtune.recipe.names import LANGUAGE, LICENSE

CARD = "README.md"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]*")
_HUB_ID = re.compile(r"(?:https?://huggingface\.co/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)", re.ASCII)
_LICENSE = re.compile(LICENSE)
_LANGUAGE = re.compile(LANGUAGE)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]*")


def model_card(
    name: str, *, base_model: str, license: str | None, languages: Sequence[str] = (), tags: Sequence[str] = ()
) -> str:
    """A README.md that says what was tuned from what.

    base_model: a hub id, its address, or a folder or built-in model, of which only the last part of the name is told.
    license: the base model's, such as apache-2.0; if it is None, the card says that it is not known. languages: ISO 639
    codes. Raises SlimtuneError with every value that cannot stand in a card.
    """
    problems = [
        Problem(f"{value!r} cannot be {what} in a model card", "export", fix)
        for what, form, values, fix in (
            ("a model's name", _NAME, [name], "use letters, digits, spaces, '.', '_', ':' and '-'"),
            ("a licence", _LICENSE, [license] if license is not None else [], "use an identifier such as apache-2.0"),
            ("a language", _LANGUAGE, languages, "use a code such as ja or en"),
            ("a tag", _TAG, tags, "use letters, digits, spaces and . _ : / -"),
        )
        for value in values
        if not form.fullmatch(value)
    ]
    base, told = _base(base_model)
    if not told:
        problems.append(
            Problem(f"{base_model!r} names no base model", "model.base", "name a hub id such as Qwen/Qwen3-8B")
        )
    if problems:
        raise SlimtuneError(problems, summary="the model card cannot be written")
    front: dict[str, Any] = {"base_model": base}
    if license is not None:
        front["license"] = license
    if languages:
        front["language"] = list(languages)
    front["tags"] = list(dict.fromkeys(["slimtune", *tags]))
    matter = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=10_000)
    terms = f"as its base model: {license}" if license else "not known here: look it up at the base model"
    return f"---\n{matter}---\n\n# {name}\n\nFine-tuned from {plain(told)} with Slimtune.\n\nLicence: {terms}.\n"


def base_reference(base_model: str) -> tuple[str, str]:
    """What the converter makes of `base_model` in a card: (key in the GGUF, value), to look it up in a written file."""
    hub = _hub_id(base_model)
    if hub:
        return "general.base_model.0.repo_url", f"https://huggingface.co/{hub}"
    return "general.base_model.0.name", _base(base_model)[1]


def front_matter(folder: Path) -> dict[str, Any]:
    """The front matter of a model folder's README.md; empty where there is none that can be read."""
    try:
        text = inputs.read_bytes(folder / CARD).decode("utf-8", "replace")
    except SlimtuneError:
        return {}
    first, *rest = text.split("\n")
    if first.strip() != "---" or "---" not in (lines := [line.rstrip() for line in rest]):
        return {}
    try:
        found = yaml.safe_load("\n".join(lines[: lines.index("---")]).replace("\t", "  "))
    except (yaml.YAMLError, *inputs.FAULTS):
        return {}
    return found if isinstance(found, dict) else {}


def licence_of(folder: Path) -> str | None:
    """The licence that a model folder's README.md states; None where it states none, or several."""
    stated = front_matter(folder).get("license")
    return stated if isinstance(stated, str) and _LICENSE.fullmatch(stated) else None


def languages_of(folder: Path) -> list[str]:
    """The languages that a model folder's README.md states by code; words such as "multilingual" are none."""
    stated = front_matter(folder).get("language") or []
    several = stated if isinstance(stated, list) else [stated]
    return [one for one in several if isinstance(one, str) and _LANGUAGE.fullmatch(one)]


def _base(base_model: str) -> tuple[str | list[dict[str, str]], str]:
    """As the front matter has it, and as a reader is told. A path would be taken for a hub id, so a folder is a name."""
    hub = _hub_id(base_model)
    if hub:
        return hub, hub
    last = re.split(r"[/\\:]", base_model.rstrip("/\\"))[-1]
    last = "".join(character for character in last if character.isprintable())
    return [{"name": last}], last


def _hub_id(base_model: str) -> str | None:
    """None for a folder too, which comes first wherever a base model is named."""
    found = _HUB_ID.fullmatch(base_model)
    return found[1] if found and not Path(base_model).is_dir() else None
