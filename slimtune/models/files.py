"""Where a base model's files are: built in, a local folder, the hub's cache, or the hub itself. No torch."""

import functools
import importlib.util
import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any, cast

from slimtune.core.errors import fail
from slimtune.core.files import existing
from slimtune.models import builtin

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.json", "tokenizer.model", "LICENSE*", "README.md"]
"""What a run needs of a repository: no pickled weights, no code."""


def locate(base: str, revision: str | None = None) -> Path | None:
    """The folder with the base's config, which is all that a plan needs; None where only the hub may have it.

    Raises SlimtuneError for an unknown built-in, a folder without config.json, and what is neither folder nor hub id.
    """
    if base.startswith("builtin:"):
        return builtin.resolve(base)
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise fail(f"{folder} has no config.json", where="model.base", fix="name the folder that holds the weights")
        return folder
    if not _HUB_ID.fullmatch(base):
        fix = "give a folder that exists, a hub id such as unsloth/Qwen3-8B-bnb-4bit, or builtin:tiny-qwen3"
        raise fail(f"no such model: {base}", where="model.base", fix=fix)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(base, "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def fetch(base: str, revision: str | None = None) -> Path:
    """The folder with all of a base's files, downloaded if incomplete. Raises SlimtuneError where that fails."""
    at_hand = locate(base, revision)
    if at_hand is not None and has_weights(at_hand):
        return at_hand
    if at_hand is not None and not _HUB_ID.fullmatch(base):
        raise fail(f"{at_hand} has no *.safetensors weights", where="model.base", fix="save the model as safetensors")
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=_FILES))
    except RepositoryNotFoundError:
        what = f"the hub has no model '{base}' that you may read"
        fix = "check the spelling; for a gated model log in with  hf auth login"
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        what = f"'{base}' is neither on this machine nor reachable ({reason})"
        fix = (
            f"offline? On a machine with a network run  hf download {base}  and copy the folder over, then set model.base "
            "to it; or try recipes/quickstart.yaml, whose model is built in"
        )
    raise fail(what, where="model.base", fix=fix)


def has_weights(folder: Path) -> bool:
    """True where every safetensors shard that the folder's index names is there."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / shard).is_file() for shard in shards)
    return any(folder.glob("*.safetensors"))


def read_config(folder: Path) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((folder / "config.json").read_text(encoding="utf-8")))


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
        raise fail(what, where=str(folder), fix="free some space, or set run.output_dir to another disk")
