"""Whether a folder's weights are those that its config.json demands: all of them, and in the right shapes.

Transformers fills a tensor that is missing with random values, and says so only in its loading report. Here the headers
of the files are compared with the shape, before anything heavy is imported: no weights are read, and no torch.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.units import plural
from slimtune.models import families, safetensors_header, shapes
from slimtune.models.safetensors_header import Stored
from slimtune.models.shapes import ModelShape

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# How bitsandbytes stores one packed weight: the data under "….weight", the rest beside it.
PACKED_PART = re.compile(r"(?P<weight>.+\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)")
PLAIN = ("BF16", "F16", "F32")
"""The formats of weights that are not packed."""
_HARMLESS = re.compile(r".*rotary_emb\.inv_freq|.*\.masked_bias")
"""What old checkpoints hold beside their weights; it is computed anew."""
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_STATE_BYTES = 2**16
_SHOWN = 3
_AGAIN = "download the model again, or use the config.json that belongs to these weights"


def shard_paths(folder: Path) -> list[Path]:
    """The safetensors files that a model's folder consists of, sorted: the single file, or those that its index names.

    Raises SlimtuneError where one of them is missing, and for an index that is damaged or names files elsewhere.
    """
    index, single = folder / INDEX, folder / SINGLE
    if not index.exists():
        if not single.is_file():
            raise fail(_without_weights(folder), where=str(folder), fix="save the model as safetensors")
        return [single]
    names = named_in(index)
    if missing := [name for name in names if not (folder / name).is_file()]:
        what = f"{some(missing)} of the {len(names)} files that the index names {_are(missing)} missing"
        raise fail(what, where=str(index), fix="download the model again")
    # Transformers takes the single file where there are both.
    return [single] if single.is_file() else [folder / name for name in names]


def named_in(index: Path) -> list[str]:
    """The files that an index names, sorted. Raises SlimtuneError for a damaged index, and names of files elsewhere."""
    names = inputs.json_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise fail("the index has no 'weight_map' that names files", where=str(index), fix="download it again")
    for name in names.values():
        plain = isinstance(name, str) and Path(name).name == name and "\0" not in name
        if not plain or not name.endswith(".safetensors"):
            what = f"{str(name)[:80]!r} is not the plain name of a safetensors file"
            raise fail(what, where=str(index), fix="download it again")
    return sorted(set(names.values()))


def begun(folder: Path) -> bool:
    """Whether the folder holds any weights, whole or not."""
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", *_PICKLED))


def check(folder: Path, name: str) -> None:
    """Raise SlimtuneError unless the folder's weights are all there, whole, and what its config.json describes.

    name: what messages call the model. Of a family that cannot be trained, only the files are checked.
    """
    config = inputs.json_object(folder / "config.json")
    paths = shard_paths(folder)
    found: dict[str, Stored] = {}
    for path in paths:
        for tensor, stored in safetensors_header.read_header(path).items():
            if tensor in found:
                what = f"{tensor!r} is in {found[tensor].path.name} as well"
                raise fail(what, where=str(path), fix="keep the files of one download only")
            found[tensor] = stored
    if not families.trained(config):
        return
    shape = shapes.from_config(config, name)
    where = str(paths[0] if len(paths) == 1 else folder)
    problems = list(_kind_problems(config, found, where)) or list(_problems(found, shape, config, where))
    if problems:
        raise SlimtuneError(problems, summary=f"the weights of {name} are not those of its config.json")


def expected(shape: ModelShape, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The name and shape of each tensor of a decoder of the Llama kind, as Transformers names them."""
    hidden = shape.hidden_size
    made: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}
    biased = {"q_proj", "k_proj", "v_proj"} if shape.qkv_bias else set[str]()
    biased |= {"o_proj"} if config.get("attention_bias") and not families.get(shape.family).qkv_bias else set[str]()
    biased |= {"gate_proj", "up_proj", "down_proj"} if config.get("mlp_bias") else set[str]()
    layer: dict[str, tuple[int, ...]] = {}
    for name, (inputs_, outputs) in shape.projections.items():
        block = "self_attn" if name in families.ATTENTION else "mlp"
        layer[f"{block}.{name}.weight"] = (outputs, inputs_)
        if name in biased:
            layer[f"{block}.{name}.bias"] = (outputs,)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        layer[f"{norm}.weight"] = (hidden,)
    for norm in ("q_norm", "k_norm") if shape.qk_norm else ():
        layer[f"self_attn.{norm}.weight"] = (shape.head_dim,)
    for number in range(shape.layers):
        made |= {f"model.layers.{number}.{name}": size for name, size in layer.items()}
    made["model.norm.weight"] = (hidden,)
    if not shape.tied:
        made["lm_head.weight"] = (shape.vocab_size, hidden)
    return made


# ---- how -------------------------------------------------------------------------------------------------------------


def _without_weights(folder: Path) -> str:
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        return f"the folder has pickled weights alone ({some(pickled)}), which can run code when they are loaded"
    return f"the folder has no *.safetensors weights ({SINGLE}, or {INDEX} and the files that it names)"


def _kind_problems(config: Mapping[str, Any], found: Mapping[str, Stored], where: str) -> Iterable[Problem]:
    """What is wrong with the weights' number formats."""
    told = config.get("quantization_config")
    method = told.get("quant_method") if isinstance(told, dict) else told
    packed = any(PACKED_PART.fullmatch(name) for name in found)
    if told is not None and (method != "bitsandbytes" or not packed):
        what = f"the base is quantised with {str(method)[:40]!r}"
        if method == "bitsandbytes":
            what = "config.json says that the weights are bitsandbytes 4-bit, and they are not"
        yield Problem(what, where, "use a base in 16 bit, or in bitsandbytes 4 bit")
    elif packed and told is None:
        yield Problem("the weights are 4-bit, and config.json has no quantization_config", where, _AGAIN)


def _problems(
    found: Mapping[str, Stored], shape: ModelShape, config: Mapping[str, Any], where: str
) -> Iterable[Problem]:
    if shape.layers > len(found):  # a number of layers that would take long to list
        what = f"config.json has {shape.layers:,} layers, more than the weights have tensors ({len(found):,})"
        yield Problem(what, where, _AGAIN)
        return
    demanded = expected(shape, config)
    parts: dict[str, dict[str, Stored]] = {}
    for name, stored in found.items():
        if part := PACKED_PART.fullmatch(name):
            parts.setdefault(part["weight"], {})[name.removeprefix(f"{part['weight']}.")] = stored
    # A tied head may be stored all the same.
    known = {"lm_head.weight": (shape.vocab_size, shape.hidden_size)} | demanded
    unexpected = [
        name
        for name in found
        if name not in known and not _HARMLESS.fullmatch(name) and not PACKED_PART.fullmatch(name)
    ]
    unexpected += [f"{weight}.{next(iter(beside))}" for weight, beside in parts.items() if weight not in demanded]
    if missing := [name for name in demanded if name not in found]:
        what = f"the weights lack {plural(len(missing), 'tensor')} that config.json demands: {some(missing)}"
        yield Problem(what, where, _AGAIN)
    if unexpected:
        what = f"the weights have {plural(len(unexpected), 'tensor')} that config.json does not describe: {some(unexpected)}"
        yield Problem(what, where, _AGAIN)
    wrong = []
    for name, size in known.items():
        if name in found:
            beside = parts.get(name)
            fault = _packed_fault(found[name], size, beside) if beside else _plain_fault(found[name], size)
            wrong += [f"{name} {fault}"] if fault else []
    if wrong:
        verb = "does" if len(wrong) == 1 else "do"
        what = f"{plural(len(wrong), 'tensor')} {verb} not fit config.json: {some(wrong)}"
        yield Problem(what, where, _AGAIN)


def _plain_fault(stored: Stored, size: tuple[int, ...]) -> str:
    if stored.shape != size:
        return f"is {shape_text(stored.shape)}, not {shape_text(size)}"
    return "" if stored.dtype in PLAIN else f"is stored as {stored.dtype}, not in 16 bit or bitsandbytes 4 bit"


def _packed_fault(stored: Stored, size: tuple[int, ...], beside: Mapping[str, Stored]) -> str:
    """What is wrong with a weight as bitsandbytes packs it: two values a byte, and scales a block."""
    values = math.prod(size)
    state = [name for name in beside if name.startswith("quant_state.")]
    if lacking := [name for name in ("absmax", "quant_map") if name not in beside]:
        return f"lacks its {' and '.join(lacking)}"
    if len(state) != 1:
        return "lacks its quant_state" if not state else "has two of quant_state"
    try:
        told = json.loads(safetensors_header.read_bytes(beside[state[0]], most=_STATE_BYTES))
        packed_shape, block = tuple(told["shape"]), int(told["blocksize"])
        nested = "nested_blocksize" in told
    except (ValueError, TypeError, KeyError, RecursionError):
        return "has a damaged quant_state"
    if packed_shape != size:
        return f"is {shape_text(packed_shape)}, not {shape_text(size)}"
    if block < 1 or math.prod(stored.shape) * safetensors_header.WIDTHS.get(stored.dtype, 0) != -(-values // 2):
        return f"holds {stored.end - stored.begin:,} bytes, not the {-(-values // 2):,} of its values in 4 bit"
    if math.prod(beside["absmax"].shape) != -(-values // block):
        return f"has {math.prod(beside['absmax'].shape):,} scales, not {-(-values // block):,}"
    if nested and not {"nested_absmax", "nested_quant_map"} <= beside.keys():
        return "lacks its nested_absmax or nested_quant_map"
    return ""


def shape_text(size: Sequence[int]) -> str:
    """A shape for a message: "128 × 32"."""
    return " × ".join(str(number) for number in size)[:60] or "one number"


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def some(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:120] for name in names[:_SHOWN]) + more
