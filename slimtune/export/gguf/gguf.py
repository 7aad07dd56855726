"""Convert a merged model folder to a GGUF with the installed llama.cpp converter: nothing is cloned or compiled."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slimtune.core.errors import fail
from slimtune.core.files import staged
from slimtune.export.gguf import child
from slimtune.export.model_folder import parameter_count, read_json
from slimtune.models import families
from slimtune.models.files import require_disk_space

Outtype = Literal["f16", "q8_0", "bf16", "f32"]

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.gguf")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:-]*")
BYTES_PER_PARAMETER: dict[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,  # 32 values and one f16 scale
    # Of small models, whose embeddings, at 210 bytes for 256 values, weigh most; larger ones take less.
    "q6_k": 0.83,
    "q5_k_m": 0.76,
    "q4_k_m": 0.7,
}
_VOCABULARY_BYTES = 32 * 2**20
_NOTES = {
    "f16": "weights are trained in bf16; f16 keeps their digits, but turns what is smaller than 3e-8 into 0",
    "q8_0": "8-bit blocks: answers may differ from the 16-bit model where two tokens are about equally likely",
}


@dataclass(frozen=True, slots=True)
class GgufRecord:
    """A finished GGUF. tensor_types: how many tensors have which type (vectors stay F32 in every file)."""

    path: str
    outtype: Outtype
    bytes: int
    architecture: str
    pre_tokenizer: str
    pre_tokenizer_named_by: str
    tensor_types: dict[str, int]
    note: str
    seconds: float


def export_bytes(parameters: int, kinds: Sequence[str], merges: int = 1) -> int:
    """The most bytes that an export takes on disk: merged 16-bit weights, a GGUF of each kind, and the bf16 GGUF that
    K-quants are made from. merges: 2 where two bases are measured."""
    made = {*kinds, "bf16"} if any("_k" in kind for kind in kinds) else set(kinds)
    return int(parameters * (merges * BYTES_PER_PARAMETER["bf16"] + sum(BYTES_PER_PARAMETER[kind] for kind in made)))


def progress_of(
    partial: Path, expected: int, on_progress: Callable[[int, int], None] | None
) -> Callable[[], None] | None:
    """A function that reports the progress of a file by its size."""
    if on_progress is None:
        return None

    def report() -> None:
        if partial.exists():
            on_progress(min(partial.stat().st_size, expected), expected)

    return report


def convert(
    model_dir: Path,
    out_path: Path,
    *,
    outtype: Outtype,
    name: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> GgufRecord:
    """Write `model_dir` (16-bit safetensors) as the GGUF file `out_path`, replacing an older one only when complete.

    name: `general.name` inside the file. on_progress: called with (bytes written, bytes expected), both roughly.
    Raises SlimtuneError for a name that is not plain, an unknown architecture, a full disk, weights that the type
    cannot hold, and whatever the converter complains about (with its last lines).
    """
    started = time.monotonic()
    if not FILE_NAME.fullmatch(out_path.name):
        raise fail(f"{out_path.name!r} cannot be the name of a GGUF", fix="letters, digits, '.', '_', '-', then .gguf")
    if not _MODEL_NAME.fullmatch(name):
        raise fail(f"{name!r} cannot be a model's name", fix="letters, digits, spaces, '.', '_', ':' and '-'")
    config = model_dir / "config.json"
    family = families.of_architectures(read_json(config).get("architectures") or [], str(config))
    expected = int(parameter_count(model_dir) * BYTES_PER_PARAMETER[outtype]) + _VOCABULARY_BYTES
    require_disk_space(out_path.parent, expected, f"the {outtype} GGUF")

    with staged(out_path) as partial:
        known = {row.split: row.pre_tokenizer for row in families.rows() if row.split}
        arguments = [
            json.dumps(known),
            str(model_dir),
            "--outfile",
            str(partial),
            "--outtype",
            outtype,
            "--model-name",
            name,
        ]
        arguments += family.converter_options
        report = child.run_script(
            "run_converter.py",
            arguments,
            what="llama.cpp's converter",
            partial=partial,
            where=model_dir,
            on_poll=progress_of(partial, expected, on_progress),
        )
        if report["not_finite"]:
            first = report["not_finite"][0]
            what = f"{len(report['not_finite'])} tensors have values that {outtype} cannot hold, first {first!r}"
            raise fail(what, where=str(model_dir), fix="export as bf16 or q8_0")
    size = out_path.stat().st_size
    if on_progress:
        on_progress(size, size)
    return GgufRecord(
        path=str(out_path),
        outtype=outtype,
        bytes=size,
        architecture=report["architecture"],
        pre_tokenizer=report["pre_tokenizer"],
        pre_tokenizer_named_by=report["pre_tokenizer_named_by"],
        tensor_types=report["tensor_types"],
        note=_NOTES.get(outtype, ""),
        seconds=round(time.monotonic() - started, 3),
    )
