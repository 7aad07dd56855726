"""Where a base model's files are: built in, a local folder, the hub's cache, or the hub itself. No torch."""

import functools
import importlib.util
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import fail
from slimtune.core.files import existing
from slimtune.models import builtin, weights

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TEXTS = ["*.json", "*.jinja", "merges.txt", "vocab.json", "tokenizer.model", "LICENSE*", "README.md"]
_FILES = [*_TEXTS, "*.safetensors"]
"""What a run needs of a repository: no pickled weights, no code."""


def locate(base: str, revision: str | None = None) -> Path | None:
    """The folder with the base's config, which is all that a plan needs; None where only the hub may have it.

    Raises SlimtuneError for an unknown built-in, a folder without config.json, and what is neither folder nor hub id.
    """
    if base.startswith("builtin:"):
        return builtin.resolve(base)
    if folder := _local(base):
        if not (folder / "config.json").is_file():
            raise fail(f"{folder} has no config.json", where="model.base", fix="name the folder that holds the weights")
        return folder
    fix = "give a folder that exists, a hub id such as unsloth/Qwen3-8B-bnb-4bit, or builtin:tiny-qwen3"
    unknown = fail(f"no such model: {base[:200]}", where="model.base", fix=fix)
    if not _HUB_ID.fullmatch(base):
        raise unknown
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(base, "config.json", revision=revision)
    except HFValidationError:
        raise unknown from None
    return Path(cached).parent if isinstance(cached, str) else None


def check_weights_at_hand(base: str, folder: Path) -> None:
    """What a plan can know of the weights: raise SlimtuneError where those on this machine are not the config's.

    A folder without any, and a download that is not complete yet, can be planned for.
    """
    if weights.begun(folder) and (is_here(base) or has_weights(folder)):
        weights.check(folder, base)


def fetch(base: str, revision: str | None = None) -> Path:
    """The folder with all of a base's files, downloaded if incomplete.

    Raises SlimtuneError where that fails, and where the weights are not whole or not those that the config demands.
    """
    at_hand = locate(base, revision)
    if at_hand is not None and (is_here(base) or has_weights(at_hand)):
        weights.check(at_hand, base)
        return at_hand
    folder = _download(base, revision, _FILES)
    weights.check(folder, base)
    return folder


def fetch_texts(base: str, revision: str | None = None) -> None:
    """Download all of a base but its weights: a few MB tell what makes many GB useless. Raises SlimtuneError as `fetch`."""
    _download(base, revision, _TEXTS)


def has_weights(folder: Path) -> bool:
    """True where every safetensors file that holds the weights is there. Raises SlimtuneError for a damaged index."""
    index = folder / weights.INDEX
    if index.exists():
        return all((folder / name).is_file() for name in weights.named_in(index))
    return (folder / weights.SINGLE).is_file()


def _local(base: str) -> Path | None:
    """The folder that a base names; None where there is none."""
    folder = inputs.at(base)
    return folder if inputs.is_folder(folder) else None


def _download(base: str, revision: str | None, patterns: list[str]) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError:
        what = f"the hub has no model '{base}' that you may read"
        fix = "check the spelling; for a gated model log in with  hf auth login"
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        what = f"'{base}' is neither on this machine nor reachable ({reason})"
        fix = (
            f"offline? On a machine with a network run  hf download {base}  and copy the folder over, then set model.base "
            "to it; or try recipes/quickstart.yaml, whose model is built in"
        )
    raise fail(what, where="model.base", fix=fix)


def is_here(base: str) -> bool:
    """Whether a base is built in or a folder: nothing of it is on the hub."""
    return base.startswith("builtin:") or _local(base) is not None


def is_offline() -> bool:
    """Whether the hub's client is told not to use the network (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json. Raises SlimtuneError where it is missing or no JSON object."""
    return inputs.json_object(folder / "config.json")


def sixteen_bit_twin(model: str) -> str | None:
    """The repository with the 16-bit weights that a pre-quantised one was made from; None if Unsloth's map has none."""
    maps = _name_maps()
    name = model.lower()
    # A plain "-bnb-4bit" repository is listed as a sibling of the dynamic "-unsloth-bnb-4bit" one.
    dynamic = maps["FLOAT_TO_INT_MAPPER"].get(name, name)
    twin: str | None = maps["INT_TO_FLOAT_MAPPER"].get(dynamic.lower())
    return twin


@functools.cache
def _name_maps() -> dict[str, Any]:
    """Unsloth's table of repositories (unsloth/models/mapper.py, 2026.10.9), without Unsloth's 20 seconds of import."""
    package = importlib.util.find_spec("unsloth")
    if package is None or package.origin is None:
        raise ImportError("Slimtune needs unsloth 2026.10.9 for its map of repositories")
    return runpy.run_path(str(Path(package.origin).with_name("models") / "mapper.py"))


def require_disk_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise SlimtuneError where the disk that holds `folder` has less than `needed_bytes` free."""
    free = shutil.disk_usage(existing(folder)).free
    if free < needed_bytes:
        what = f"{purpose} needs {needed_bytes / 2**30:.1f} GiB, and only {free / 2**30:.1f} GiB are free"
        raise fail(what, where=str(folder), fix="free some space there, or write to another disk")
