"""Run llama.cpp's `convert_lora_to_gguf.py` and compare every value with the adapter's. Started by lora_gguf.py.

This file is a script of its own process: it imports nothing of slimtune, and llama.cpp's folder is on its path.
Arguments: the converter's own. Standard output: one JSON object.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any


def describe(out: str, adapter: Path, base: Path) -> dict[str, Any]:
    """Read the written file back. Raises ValueError where a tensor is missing, or holds other values than the adapter."""
    import gguf
    import numpy
    from safetensors import safe_open

    reader = gguf.GGUFReader(out)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    architecture = reader.get_field("general.architecture").contents()
    (arch,) = [one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    layers = json.loads((base / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    names = gguf.get_tensor_name_map(arch, layers)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as stored:
        for key in stored.keys():  # noqa: SIM118  not a mapping
            module, _, part = key.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
            name = f"{names.get_name(module)}.weight.lora_{part.lower()}"
            if name not in tensors:
                raise ValueError(f"{key!r} is not in the file")
            if not numpy.array_equal(tensors.pop(name).data, stored.get_tensor(key).float().numpy()):
                raise ValueError(f"{name!r} does not hold the adapter's values")
    if tensors:
        raise ValueError(f"{sorted(tensors)[0]!r} is not in the adapter")
    return {
        "architecture": architecture,
        "type": reader.get_field("general.type").contents(),
        "alpha": float(reader.get_field("adapter.lora.alpha").contents()),
        "tensors": len(reader.tensors),
    }


def main() -> None:
    (folder,) = [place for place in sys.path if Path(place, "convert_lora_to_gguf.py").is_file()]
    arguments = sys.argv[1:]
    sys.argv = ["convert_lora_to_gguf.py", *arguments]
    runpy.run_path(str(Path(folder, "convert_lora_to_gguf.py")), run_name="__main__")
    out, base = (arguments[arguments.index(name) + 1] for name in ("--outfile", "--base"))
    try:
        print(json.dumps(describe(out, Path(arguments[-1]), Path(base))))
    except ValueError as error:
        sys.exit(f"ValueError: {error}")


if __name__ == "__main__":
    main()
