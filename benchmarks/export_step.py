"""One step of the export benchmark, in this process: `python -m benchmarks.export_step STEP MODEL WORK`.

The last line of its output is a JSON object. What was made lies in WORK: `base`, `adapter`, `merged`, `model.KIND.gguf`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimtune.models.shapes import ModelShape

RANK = 16
_PROMPT_TOKENS, _CONTEXT = 32, 64


def prepare(shape: ModelShape, work: Path) -> dict[str, Any]:
    """Base and adapter, where they are not there yet; sizes for the report."""
    from slimtune.models.weights import shard_paths

    base, adapter = work / "base", work / "adapter"
    if not (base / "config.json").is_file():
        from benchmarks import random_model

        random_model.build(shape, base)
    if not (adapter / "adapter_config.json").is_file():
        write_adapter(shape, adapter)
    return {
        "parameters": shape.total_parameters,
        "vocabulary": shape.vocab_size,
        "lora_rank": RANK,
        "base_bytes": sum(path.stat().st_size for path in shard_paths(base)),
        "adapter_bytes": (adapter / "adapter_model.safetensors").stat().st_size,
    }


def write_adapter(shape: ModelShape, folder: Path) -> None:
    """A random LoRA on all seven linears of every layer, as PEFT stores one; neither A nor B is zero."""
    import torch
    from safetensors.torch import save_file

    from slimtune.models.families import ATTENTION

    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(shape.layers):
        for name, (inputs, outputs) in shape.projections.items():
            part = "self_attn" if name in ATTENTION else "mlp"
            module = f"base_model.model.model.layers.{layer}.{part}.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, inputs, generator=draw) * 0.02
            tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, RANK, generator=draw) * 0.02
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(shape.projections)}
    # Last: a folder with a configuration is complete.
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _merge(_shape: ModelShape, work: Path) -> dict[str, Any]:
    from slimtune.export.merge import merge

    return asdict(merge.merge_adapter(work / "adapter", work / "base", work / "merged", load_in_4bit=True))


def _convert(kind: Any) -> Callable[[ModelShape, Path], dict[str, Any]]:
    def run(_shape: ModelShape, work: Path) -> dict[str, Any]:
        from slimtune.export.gguf import gguf

        return asdict(gguf.convert(work / "merged", work / f"model.{kind}.gguf", outtype=kind, name="random"))

    return run


def _quantise(kind: Any) -> Callable[[ModelShape, Path], dict[str, Any]]:
    def run(_shape: ModelShape, work: Path) -> dict[str, Any]:
        from slimtune.export.gguf import gguf

        return asdict(gguf.quantise(work / "model.bf16.gguf", work / f"model.{kind}.gguf", kind))

    return run


def _transformers_answers(_shape: ModelShape, work: Path) -> dict[str, Any]:
    """Load the merged model in a process of its own, as the parity check does, and ask it for a token."""
    from slimtune.export.proof import merged_model

    began = time.monotonic()
    (answer,) = merged_model.ask(work / "merged", [_prompt()], 1)
    return {"seconds": round(time.monotonic() - began, 3), "tokens": len(answer.ids)}


def _llama_cpp_answers(_shape: ModelShape, work: Path) -> dict[str, Any]:
    """Load the q4_k_m file in a process of its own, as the parity check does, and ask it for a token."""
    from slimtune.models import llama_server

    began = time.monotonic()
    with llama_server.start(work / "model.q4_k_m.gguf", context_length=_CONTEXT) as server:
        body = {"prompt": _prompt(), "n_predict": 1, "temperature": 0, "return_tokens": True}
        tokens = server.post("/completion", body)["tokens"]
        vocabulary = server.model["n_vocab"]
    return {"seconds": round(time.monotonic() - began, 3), "tokens": len(tokens), "vocabulary": vocabulary}


def _prompt() -> list[int]:
    return list(range(100, 100 + _PROMPT_TOKENS))


STEPS: dict[str, Callable[[ModelShape, Path], dict[str, Any]]] = {
    "prepare": prepare,
    "merge": _merge,
    "f16": _convert("f16"),
    "q8_0": _convert("q8_0"),
    "bf16": _convert("bf16"),
    "q5_k_m": _quantise("q5_k_m"),
    "q4_k_m": _quantise("q4_k_m"),
    "transformers answers": _transformers_answers,
    "llama.cpp answers": _llama_cpp_answers,
}


def main(step: str, model: str, work: Path) -> None:
    from benchmarks.acceptance_cases import shape_of

    told = STEPS[step](shape_of(model), work)
    # Paths of this machine are nobody's business.
    print(json.dumps({key: value for key, value in told.items() if key != "path"}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
