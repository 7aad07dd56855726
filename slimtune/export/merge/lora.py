"""Read a PEFT LoRA adapter from its files: which modules it changes, with which tensors and which scaling."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.export.model_folder import OpenTensors
from slimtune.models import adapter_files

_OTHER_TOOL, _AGAIN = "merge it with the tool that trained it", "get the adapter again from where it came"
_LORA_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")

# Fields of adapter_config.json. Any other field changes the function in a way that is not merged here: it must be off.
_HONOURED = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias", "init_lora_weights"}
_WITHOUT_EFFECT = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern", "megatron_core",
    "qalora_group_size", "eva_config", "ensure_weight_tying", "unsloth_version",
}  # fmt: skip
_INITS_THAT_LEAVE_THE_BASE_ALONE = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True)
class Lora:
    """The delta of one linear layer: scaling · B·A with A (rank, in_features) and B (out_features, rank)."""

    a_key: str
    b_key: str
    rank: int
    in_features: int
    out_features: int
    scaling: float


def read_loras(adapter_dir: Path, adapter: OpenTensors) -> dict[str, Lora]:
    """Module name -> its LoRA. Scaling as in PEFT: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv:2312.03732)."""
    import torch

    path = adapter_dir / adapter_files.CONFIG
    config = adapter_files.config_of(adapter_dir)
    problems = [Problem(what, str(path), _OTHER_TOOL) for what in _unsupported(config)]
    parts: dict[str, dict[str, str]] = {}
    for key in adapter.where:
        match = _LORA_KEY.fullmatch(key)
        if match is None:
            problems.append(Problem(f"{key!r} is not the A or B of a plain LoRA", str(adapter_dir), _OTHER_TOOL))
            continue
        parts.setdefault(match["module"], {})[match["part"]] = key
        if not torch.isfinite(adapter.load(key)).all():
            problems.append(Problem(f"{key!r} holds NaN or infinity", str(adapter_dir), "merge an earlier checkpoint"))
    loras = {}
    for module, keys in parts.items():
        if keys.keys() != {"A", "B"}:
            problems.append(Problem(f"{module!r} has only one of lora_A and lora_B", str(adapter_dir), _AGAIN))
            continue
        a, b = adapter.shape(keys["A"]), adapter.shape(keys["B"])
        rank = adapter_files.rank_of(config.get("rank_pattern"), module, config["r"])
        if len(a) != 2 or len(b) != 2 or a[0] != rank or b[1] != rank:
            what = f"{module!r}: A {a} and B {b} do not fit rank {rank}"
            problems.append(Problem(what, str(adapter_dir), _AGAIN))
            continue
        alpha = adapter_files.rank_of(config.get("alpha_pattern"), module, config["lora_alpha"])
        scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        loras[module] = Lora(keys["A"], keys["B"], rank, in_features=a[1], out_features=b[0], scaling=scaling)
    if problems:
        raise SlimtuneError(problems, summary="this adapter cannot be merged")
    if not loras:
        raise fail("the adapter holds no LoRA weights", where=str(adapter_dir), fix=_AGAIN)
    return loras


def _unsupported(config: dict) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}, not 'LORA'"
    if config.get("init_lora_weights", True) not in _INITS_THAT_LEAVE_THE_BASE_ALONE:
        yield f"init_lora_weights {config['init_lora_weights']!r} changes the base's own weights"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']!r}: trained biases cannot be merged"
    for key in sorted(config.keys() - _HONOURED - _WITHOUT_EFFECT):
        if config[key]:
            yield f"{key} is {config[key]!r}, which a plain LoRA merge does not reproduce"
