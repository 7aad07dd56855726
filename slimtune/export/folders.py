"""Where an export goes. Checked before anything is asked, trained or merged, and again before anything is replaced.

What is replaced is an export of ours, by its marker (core/output_folders.py) or, if an earlier version made it, by its
content; and only if it holds nothing that an export never holds.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from slimtune.core import inputs, output_folders, outputs
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.run_folder import as_dict
from slimtune.export import model_card
from slimtune.export.model_folder import OTHER_FILES, TOKENIZER_FILES

EXPORT, MERGED = "an export", "a merged model"
PROOF = "parity.json"
_OF_AN_EXPORT = ("Modelfile", "export.json", "golden.jsonl", "ollama.json", PROOF)
_OF_A_MERGED_MODEL = re.compile(
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|config\.json|README\.md|"
    + "|".join(map(re.escape, (*TOKENIZER_FILES, *OTHER_FILES)))
)


def merged_model_of(adapter: Path) -> str:
    """The kind of folder that holds this adapter's merged weights; the adapter by the last parts of its path."""
    return f"{MERGED} of {'/'.join(adapter.resolve().parts[-3:])}"


def unverified(directory: Path) -> Path:
    """Where an export stays that failed its proof, as evidence."""
    return directory.with_name(f"{directory.name}.unverified")


def require_free(directory: Path | str, option: str = "", *, fresh: bool) -> Path:
    """The folder to export to, with links resolved. fresh: whether an export that is there may be replaced.

    Raises SlimtuneError where it is somebody else's, or its evidence would replace something else.
    """
    target = outputs.named(directory, option)
    output_folders.replaceable(target, option, what=EXPORT, fresh=fresh, ours=require_ours)
    try:
        output_folders.replaceable(unverified(target), option, what="evidence", fresh=True, ours=require_ours)
    except SlimtuneError as error:
        fix = "move it elsewhere: an export that fails its checks would get this name"
        raise error.mapped(lambda one: replace(one, fix=fix)) from None
    return target


def require_merged_free(
    folder: Path | str, option: str, *, adapter: Path | None, fresh: bool, fix: str = "--fresh replaces it"
) -> Path:
    """The folder for merged weights, with links resolved. fresh: whether those of another adapter may be replaced.

    adapter: of which they will be; None where it is not trained yet. Raises SlimtuneError as `require_free` does.
    """
    target = outputs.named(folder, option)
    fresh = fresh or (adapter is not None and output_folders.is_marked(target, merged_model_of(adapter)))
    return output_folders.replaceable(target, option, what=MERGED, fresh=fresh, ours=require_merged_ours, fix=fix)


def require_apart(targets: Mapping[str, Path | str | None], inputs: Mapping[str, Path | str | None]) -> None:
    """Raise SlimtuneError where an output is, holds or lies in an input or another output. None is left out."""
    output_folders.require_apart(
        {option: path for option, path in targets.items() if path is not None},
        {what: path for what, path in inputs.items() if path is not None and _exists(path)},
    )


def _exists(path: Path | str) -> bool:
    """False also for a hub id, and for what cannot be a path."""
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def require_ours(folder: Path, option: str = "") -> None:
    """Raise SlimtuneError unless the folder may be replaced: it is empty, or holds an export and nothing else."""
    if not output_folders.is_marked(folder) and (names := _export_of_earlier_version(folder)):
        others = [name for name in output_folders.names_in(folder) if not names.fullmatch(name)]
        output_folders.refuse_foreign(folder, others, option)
        return
    _require_ours(folder, option, "this folder holds something else")


def require_merged_ours(folder: Path, option: str = "") -> None:
    """As `require_ours`, of merged weights in a folder of their own."""
    if not output_folders.is_marked(folder) and "slimtune" in _tags_of(folder):
        others = [name for name in output_folders.names_in(folder) if not _OF_A_MERGED_MODEL.fullmatch(name)]
        output_folders.refuse_foreign(folder, others, option)
        return
    _require_ours(folder, option, "this folder is there already, and is no export of merged weights")


def _require_ours(folder: Path, option: str, what: str) -> None:
    if not output_folders.is_marked(folder) and not folder.is_symlink() and folder.is_dir() and any(folder.iterdir()):
        raise fail(what, where=outputs.place_of(folder, option), fix="name a folder that does not exist yet")
    output_folders.require_ours(folder, option)


def _export_of_earlier_version(folder: Path) -> re.Pattern[str] | None:
    """What the names in an export are that has no marker; None where the folder holds no such export."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    proven = _content(folder / PROOF)
    files = as_dict(proven.get("files")) if isinstance(proven.get("passed"), bool) else {}
    recorded = as_dict(_content(folder.parent / "manifest.json").get("export")) if folder.name == "export" else {}
    if not files and not recorded and "reference" not in proven:
        return None
    listed = recorded.get("gguf")
    ggufs = [name for name in (*files, *(listed if isinstance(listed, list) else ())) if isinstance(name, str)]
    plain = "|".join(map(re.escape, (*_OF_AN_EXPORT, *ggufs)))
    return re.compile(rf"{plain}|[^/]+\.lora\.gguf|merged/({_OF_A_MERGED_MODEL.pattern})")


def _content(path: Path) -> dict[str, object]:
    try:
        return inputs.json_object(path)
    except SlimtuneError:
        return {}


def _tags_of(folder: Path) -> list[object]:
    found = model_card.front_matter(folder).get("tags") if folder.is_dir() and not folder.is_symlink() else None
    return found if isinstance(found, list) else []
