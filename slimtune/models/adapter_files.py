"""Whether a saved adapter belongs on a base: every module that it targets is there, in the right shapes. No torch.

PEFT leaves a module without saved weights at its initial values, and drops weights of modules that the base lacks, with a
warning at most.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.models import families, shapes
from slimtune.models.safetensors_header import Stored, read_header
from slimtune.models.weights import PLAIN, shape_text, some

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB])(?:\.weight)?")
_LAYER = re.compile(r".*?\.layers\.(?P<number>[0-9]{1,9})\.")
_REPEATED = re.compile(r"(?<!\\)[*+{]")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
"""In a regular expression: `(a+)+` takes for ever on a name that it does not match."""
_MOST_REPEATED = 2
_OTHER_BASE = "name the base that the adapter was trained on"


def config_of(adapter: Path) -> dict[str, Any]:
    """The adapter's adapter_config.json.

    Raises SlimtuneError where it is missing, no JSON object, or has values that PEFT does not know what to do with.
    """
    path = adapter / CONFIG
    config = inputs.json_object(path)
    problems = [Problem(what, str(path), "save the adapter again with PEFT") for what in _bad_values(config)]
    if problems:
        raise SlimtuneError(problems, summary="this is not a usable adapter")
    return config


def check(adapter: Path, base: Path) -> None:
    """Raise SlimtuneError unless the adapter's tensors are whole and fit the base in that folder.

    What is not a LoRA, or sits on a family that cannot be trained, is checked as far as its files are whole.
    """
    config, file = config_of(adapter), adapter / TENSORS
    if not file.is_file():
        raise fail(f"has no {TENSORS}", where=str(adapter), fix="save the adapter as safetensors")
    found = read_header(file)
    base_config = inputs.json_object(base / "config.json")
    if config.get("peft_type") != "LORA" or not families.trained(base_config):
        return
    shape = shapes.from_config(base_config, str(base))
    sizes = {
        f"model.layers.{number}.{'self_attn' if name in families.ATTENTION else 'mlp'}.{name}": size
        for number in range(shape.layers)
        for name, size in shape.projections.items()
    }
    sizes |= {
        "lm_head": (shape.hidden_size, shape.vocab_size),
        "model.embed_tokens": (shape.vocab_size, shape.hidden_size),
    }
    problems = [Problem(what, str(file), _OTHER_BASE) for what in _problems(config, found, sizes)]
    if problems:
        raise SlimtuneError(problems, summary=f"the adapter does not fit the base {base}")


def _bad_values(config: Mapping[str, Any]) -> Iterable[str]:
    if not isinstance(config.get("peft_type"), str):
        yield f"peft_type is {config.get('peft_type')!r}, not the name of a method such as LORA"
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(config.get(key), str | None):
            yield f"{key} is not text"
    if config.get("peft_type") != "LORA":
        return
    if type(config.get("r")) is not int or not 0 < config["r"] < 2**16:
        yield f"r is {str(config.get('r'))[:40]}, not a rank"
    if not _finite(config.get("lora_alpha")):
        yield f"lora_alpha is {str(config.get('lora_alpha'))[:40]}, not a number"
    if not _names(config.get("target_modules")):
        yield "target_modules is neither text nor a list of names"
    for key in ("exclude_modules", "modules_to_save", "layers_pattern"):
        if config.get(key) is not None and not _names(config[key]):
            yield f"{key} is neither text nor a list of names"
    layers = config.get("layers_to_transform")
    if layers is not None and type(layers) is not int and not _all(layers, int):
        yield "layers_to_transform is neither a number nor a list of numbers"
    for key, valid in (("rank_pattern", lambda value: type(value) is int and value > 0), ("alpha_pattern", _finite)):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or not all(map(_pattern, patterns)) or not all(map(valid, patterns.values())):
            yield f"{key} does not map modules to numbers"


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _names(value: Any) -> bool:
    return isinstance(value, str) or _all(value, str)


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _pattern(text: str) -> bool:
    """Whether it can be matched, and in no more steps than a module's name cubed."""
    if _REPEATED_GROUP.search(text) or len(_REPEATED.findall(text)) > _MOST_REPEATED:
        return False
    try:
        re.compile(rf"(.*\.)?({text})$")
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def rank_of(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's rule: the value of the first pattern, a regular expression, that matches the end of the name at a dot."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _problems(
    config: Mapping[str, Any], found: Mapping[str, Stored], sizes: Mapping[str, tuple[int, int]]
) -> Iterable[str]:
    parts: dict[str, dict[str, Stored]] = {}
    foreign, wrong = [], []
    for key, stored in found.items():
        match = _KEY.fullmatch(key)
        if match and match["module"] in sizes:
            parts.setdefault(match["module"], {})[match["part"][-1]] = stored
            rank = rank_of(config.get("rank_pattern"), match["module"], config["r"])
            inputs_, outputs = sizes[match["module"]]
            size = (rank, inputs_) if match["part"].endswith("A") else (outputs, rank)
            if stored.shape != size:
                wrong.append(f"{key} is {shape_text(stored.shape)}, not {shape_text(size)}")
            elif stored.dtype not in PLAIN:
                wrong.append(f"{key} is stored as {stored.dtype}")
        elif match or not any(key.startswith(f"base_model.model.{module}.") for module in sizes):
            foreign.append(key)
    if foreign:
        yield f"the base has no module for {len(foreign):,} of the adapter's tensors: {some(foreign)}"
    if wrong:
        yield f"{len(wrong):,} of the adapter's tensors have another shape or format than base and rank demand: {some(wrong)}"
    lacking = [name for name, two in parts.items() if len(two) < 2]
    targets = config["target_modules"]
    if isinstance(targets, list):
        for target in targets:
            if not any(_named(module, [target]) for module in sizes):
                yield f"{CONFIG} targets {target[:80]!r}, and the base has no module of that name"
        excluded = config.get("exclude_modules") or []
        excluded = [*(excluded if isinstance(excluded, list) else []), *_listed(config.get("modules_to_save"))]
        wanted = [
            one for one in sizes if _named(one, targets) and not _named(one, excluded) and _in_layers(one, config)
        ]
        lacking += (
            [one for one in wanted if one not in parts] if not isinstance(config.get("exclude_modules"), str) else []
        )
    if lacking:
        yield f"the adapter lacks lora_A or lora_B of {len(lacking):,} modules that {CONFIG} targets: {some(lacking)}"
    if not parts and not lacking:
        yield "the adapter holds no LoRA weights"


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def _named(module: str, names: Iterable[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _in_layers(module: str, config: Mapping[str, Any]) -> bool:
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    found = _LAYER.match(module)
    return found is not None and int(found["number"]) in (layers if isinstance(layers, list) else [layers])
