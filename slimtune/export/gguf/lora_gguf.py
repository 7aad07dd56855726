"""Convert an adapter alone to a GGUF, to serve several adapters on one base. Every value is compared with the adapter's."""

import time
from dataclasses import dataclass
from pathlib import Path

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import staged
from slimtune.export.gguf import child
from slimtune.export.gguf.gguf import FILE_NAME
from slimtune.export.merge.lora import read_loras
from slimtune.export.model_folder import existing_file, open_tensors, read_json


@dataclass(frozen=True, slots=True)
class LoraGgufRecord:
    """A finished LoRA GGUF, in fp32: the adapter's own values. tensors: two for every module."""

    path: str
    architecture: str
    tensors: int
    alpha: float
    bytes: int
    seconds: float


def convert(adapter_dir: Path, base_dir: Path, out_path: Path) -> LoraGgufRecord:
    """Write the adapter as `out_path`. base_dir: the folder of its base; only the configuration is read.

    Raises SlimtuneError for a name that is not plain, an adapter whose scaling llama.cpp cannot express, and whatever
    the converter complains about.
    """
    started = time.monotonic()
    if not FILE_NAME.fullmatch(out_path.name):
        raise fail(f"{out_path.name!r} cannot be the name of a GGUF", fix="letters, digits, '.', '_', '-', then .gguf")
    alpha = float(read_json(adapter_dir / "adapter_config.json")["lora_alpha"])
    with open_tensors([existing_file(adapter_dir / "adapter_model.safetensors")]) as adapter:
        loras = read_loras(adapter_dir, adapter)
    # llama.cpp knows one alpha, and divides it by each module's rank.
    foreign = [name for name, lora in loras.items() if abs(lora.scaling - alpha / lora.rank) > 1e-6 * lora.scaling]
    if foreign:
        what = f"llama.cpp would scale {len(foreign)} modules differently, first {foreign[0]!r}: rsLoRA or patterns"
        raise SlimtuneError(Problem(what, str(adapter_dir), "ship merged weights: leave lora_gguf out"))
    with staged(out_path) as partial:
        report = child.run_script(
            "run_lora_converter.py",
            ["--outfile", str(partial), "--outtype", "f32", "--base", str(base_dir), str(adapter_dir)],
            what="llama.cpp's LoRA converter",
            partial=partial,
            where=adapter_dir,
            on_poll=None,
        )
    return LoraGgufRecord(
        path=str(out_path),
        architecture=report["architecture"],
        tensors=report["tensors"],
        alpha=report["alpha"],
        bytes=out_path.stat().st_size,
        seconds=round(time.monotonic() - started, 3),
    )
