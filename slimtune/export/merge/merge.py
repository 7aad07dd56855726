"""Merge a LoRA adapter into its base, tensor by tensor, without loading the model.

What is written is the function that was trained: W = dequantise(base) + scaling · B·A, added in fp32 and rounded once.
If the base was 4-bit during training, every layer that was quantised is written as its dequantised NF4 values, LoRA
target or not. The 16-bit weights plus the delta are another function, which `merge_base="16bit"` writes.
"""

import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch

from slimtune.core import output_folders
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.core.files import write_json
from slimtune.core.inputs import json_object
from slimtune.export import folders
from slimtune.export.merge import nf4
from slimtune.export.merge.lora import Lora, read_loras
from slimtune.export.merge.needed_memory import MemoryWatch
from slimtune.export.merge.nf4 import Rows, unpacked_shape
from slimtune.export.model_folder import (
    OTHER_FILES,
    TOKENIZER_FILES,
    OpenTensors,
    existing_file,
    open_tensors,
    write_safetensors,
)
from slimtune.models import families
from slimtune.models.files import require_disk_space
from slimtune.models.settings import TorchDtype
from slimtune.models.weights import PACKED_PART, shard_paths
from slimtune.recipe.names import MergeBase

_STORED_DTYPES = ("BF16", "F16", "F32")
_BASE_WEIGHTS = {
    "packed": "4-bit checkpoint, dequantised",
    "quantise": "16-bit checkpoint, quantised to NF4 as at load, dequantised",
    "stored": "16-bit checkpoint",
}
_HEADROOM_BYTES = 16 * 2**20
_OTHER_BASE = "merge with the base that was trained on"

# A large weight is worked on in groups of rows of about so many values: its fp32 copies then stay in the processor's
# cache, several times as fast as whole, and take no memory to speak of.
_PIECE_VALUES = 2**20


@dataclass(frozen=True, slots=True)
class MergeRecord:
    """What was merged: `lora_merged` tensors got a delta, `dequantised` hold NF4 values (LoRA targets among them).

    peak_bytes: the most memory that the process needed meanwhile; extra_peak_bytes: beyond what it held before.
    peak_source: "anonymous memory" (Linux: without the base's mapped pages) or "resident set" (elsewhere: with them).
    """

    path: str
    merge_base: MergeBase
    dtype: str
    base_weights: str
    tensors: int
    lora_merged: int
    dequantised: int
    parameters: int
    bytes: int
    shards: tuple[str, ...]
    seconds: float
    peak_bytes: int
    extra_peak_bytes: int
    peak_source: str


@dataclass(frozen=True, slots=True)
class _Output:
    """One tensor of the merged model. source: "stored" as it is, "packed" NF4 in the file, "quantise" to NF4 first."""

    name: str
    shape: tuple[int, ...]
    source: Literal["stored", "packed", "quantise"]
    lora: Lora | None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * 2


def merge_adapter(
    adapter_dir: Path,
    base_dir: Path,
    out_dir: Path,
    *,
    merge_base: MergeBase = "dequantised",
    load_in_4bit: bool,
    dtype: Literal["bfloat16", "float16"] = "bfloat16",
    load_dtype: TorchDtype | None = None,
    chat_template: str | None = None,
    max_shard_bytes: int = 2 * 10**9,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeRecord:
    """Write `base_dir` + `adapter_dir` as a plain 16-bit model folder `out_dir`, which must not exist or be new.

    merge_base: "dequantised" (the weights that were trained on) or "16bit" (`base_dir` is then the 16-bit twin).
    load_in_4bit: how training loaded the base; a 16-bit `base_dir` is then quantised here as the loader did it.
    load_dtype: what the loader cast the weights to before quantising; None: as stored, also for bf16 loaded in fp32.
    chat_template: Jinja that replaces the tokenizer's own. on_progress: called with (bytes written, bytes in all).

    Memory: about two 16-bit copies of the largest linear weight, or of an embedding that is not stored in `dtype`.
    Raises SlimtuneError for an adapter that is not a plain LoRA of this base, a wrong kind of base, an existing
    `out_dir`, a full disk, or a weight `dtype` cannot hold.
    """
    started = time.monotonic()
    if (out_dir.exists() or out_dir.is_symlink()) and not output_folders.is_new(out_dir):
        fix = "choose another or remove it"
        raise fail("the folder for the merged model already exists", where=str(out_dir), fix=fix)
    config = json_object(base_dir / "config.json")
    adapter_file = existing_file(adapter_dir / "adapter_model.safetensors")
    with MemoryWatch() as memory, open_tensors([adapter_file]) as adapter, open_tensors(shard_paths(base_dir)) as base:
        _check_kind_of_base(base_dir, config, base, merge_base, load_in_4bit)
        loras = read_loras(adapter_dir, adapter)
        outputs = _plan(base_dir, config, base, loras, quantise=load_in_4bit and merge_base == "dequantised")
        total = sum(output.nbytes for output in outputs)
        require_disk_space(out_dir.parent, total + _HEADROOM_BYTES, "the merged model")

        target: torch.dtype = getattr(torch, dtype)
        shards = _assign_shards(outputs, max_shard_bytes)
        done = 0

        def report(written: int) -> None:
            nonlocal done
            done += written
            if on_progress:
                on_progress(done, total)

        with output_folders.staged_folder(out_dir, what=folders.merged_model_of(adapter_dir)) as partial:
            for filename, shard in shards.items():
                tensors = (_merged_weight(o, base, adapter, load_dtype, target) for o in shard)
                write_safetensors(partial / filename, [(o.name, o.shape) for o in shard], tensors, target, report)
            _write_index_and_config(partial, shards, config, dtype)
            _copy_companions(adapter_dir, base_dir, partial, chat_template)
    return MergeRecord(
        path=str(out_dir),
        merge_base=merge_base,
        dtype=dtype,
        base_weights=next(told for source, told in _BASE_WEIGHTS.items() if any(o.source == source for o in outputs)),
        tensors=len(outputs),
        lora_merged=sum(output.lora is not None for output in outputs),
        dequantised=sum(output.source != "stored" for output in outputs),
        parameters=sum(math.prod(output.shape) for output in outputs),
        bytes=total,
        shards=tuple(shards),
        seconds=round(time.monotonic() - started, 3),
        peak_bytes=memory.peak,
        extra_peak_bytes=memory.peak - memory.first,
        peak_source=memory.source,
    )


# ---- what is to be written ------------------------------------------------------------------------------------------


def _check_kind_of_base(
    base_dir: Path, config: dict, base: OpenTensors, merge_base: MergeBase, load_in_4bit: bool
) -> None:
    quantisation = config.get("quantization_config")
    packed = any(PACKED_PART.fullmatch(name) for name in base.where)
    where = str(base_dir)
    if quantisation and quantisation.get("quant_method") != "bitsandbytes":
        method = quantisation.get("quant_method")
        what = f"the base is quantised with {method!r}; only bitsandbytes 4-bit can be merged"
        raise fail(what, where=where, fix=_OTHER_BASE)
    if packed and merge_base == "16bit":
        fix = "pass the folder of the base's 16-bit twin, or merge with merge_base: dequantised"
        raise fail("merge_base is 16bit, but this base holds 4-bit weights", where=where, fix=fix)
    if packed and not load_in_4bit:
        what = "the run trained on 16-bit weights, but this base holds 4-bit weights"
        raise fail(what, where=where, fix=_OTHER_BASE)
    quantise = load_in_4bit and merge_base == "dequantised" and not packed
    if quantise and families.quantised_at_load(config) is None:
        fix = "train on a pre-quantised checkpoint of this model, or merge with merge_base: 16bit"
        what = f"Slimtune does not know which layers of a {config.get('model_type')!r} model are quantised at load"
        raise fail(what, where=where, fix=fix)


def _plan(base_dir: Path, config: dict, base: OpenTensors, loras: dict[str, Lora], *, quantise: bool) -> list[_Output]:
    at_load = re.compile(families.quantised_at_load(config) or "")
    packed = {match["weight"] for name in base.where if (match := PACKED_PART.fullmatch(name))}
    tied = bool(config.get("tie_word_embeddings"))
    unused = dict(loras)
    problems, outputs = [], []
    for name in base.where:
        if PACKED_PART.fullmatch(name) or (tied and name == "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
            continue
        if name not in packed and base.dtype(name) not in _STORED_DTYPES:
            what = f"{name!r} is stored as {base.dtype(name)}, which is neither 16-bit nor bitsandbytes 4-bit"
            problems.append(Problem(what, str(base_dir), _OTHER_BASE))
            continue
        shape = unpacked_shape(base, name) if name in packed else base.shape(name)
        lora = unused.pop(name.removesuffix(".weight"), None) if name.endswith(".weight") else None
        if lora and shape != (lora.out_features, lora.in_features):
            what = f"{name!r} is {shape}, the adapter's delta ({lora.out_features}, {lora.in_features})"
            problems.append(Problem(what, str(base_dir), _OTHER_BASE))
        source: Literal["stored", "packed", "quantise"] = "stored"
        if name in packed:
            source = "packed"
        elif quantise and not packed and at_load.fullmatch(name):
            source = "quantise"
        outputs.append(_Output(name, shape, source, lora))
    for module in unused:
        on_tied_head = module == "lm_head" and tied
        fix = "lm_head is tied to the embeddings: leave it out of the LoRA targets" if on_tied_head else _OTHER_BASE
        what = f"the adapter changes {module!r}, which this base does not have"
        problems.append(Problem(what, str(base_dir), fix))
    if problems:
        raise SlimtuneError(problems, summary="the adapter does not fit the base")
    return outputs


# ---- one tensor -----------------------------------------------------------------------------------------------------


def _merged_weight(
    output: _Output, base: OpenTensors, adapter: OpenTensors, load_dtype: TorchDtype | None, dtype: torch.dtype
) -> torch.Tensor:
    """The finished tensor in `dtype`; an unchanged one is the file's own pages, not a copy."""
    stored, lora = base.load(output.name), output.lora
    if output.source == "stored" and lora is None and stored.dtype == dtype:
        _check_finite(stored, stored, output.name)
        return stored
    packed = None
    device = "cuda" if torch.cuda.is_available() else "cpu"  # NF4: the device that trained gives the trained bits
    if output.source == "packed":
        packed = nf4.packed(output.name, stored, base, device)
    elif output.source == "quantise":
        packed = nf4.quantised(stored, load_dtype, device)
    if lora:
        a, b = adapter.load(lora.a_key).float(), adapter.load(lora.b_key).float()
    merged = torch.empty(output.shape, dtype=dtype)
    for rows in _groups_of_rows(output.shape, packed.state.blocksize if packed else 1):
        values = packed.values(rows) if packed else stored[rows]
        if lora:
            # Added to the delta, in fp32: `stored` may be the file's own pages.
            values = (b[rows] @ a).mul_(lora.scaling).add_(values)
        merged[rows] = values
        _check_finite(merged[rows], values, output.name)
    return merged


def _groups_of_rows(shape: tuple[int, ...], block: int) -> list[Rows]:
    """Groups of rows of about equal size; a single group where the tensor is small or rows do not begin with a block."""
    count = math.ceil(math.prod(shape) / _PIECE_VALUES)
    if count <= 1 or shape[0] == 1 or math.prod(shape[1:]) % block:
        return [...]
    count = min(count, shape[0])
    edges = [shape[0] * place // count for place in range(count + 1)]
    return [slice(first, behind) for first, behind in pairwise(edges)]


def _check_finite(cast: torch.Tensor, weight: torch.Tensor, name: str) -> None:
    """Raise SlimtuneError where `weight` does not fit the type of `cast`, which holds it, or is broken."""
    # NaN comes through aminmax; isfinite of all would copy it all.
    if not all(bound.isfinite() for bound in torch.aminmax(cast)):
        low, high = (bound.item() for bound in torch.aminmax(weight))
        largest = max(-low, high)
        fix = "export with dtype bfloat16" if math.isfinite(largest) else "the base is damaged; download it again"
        raise fail(f"{name!r} reaches {largest:g}, which {cast.dtype} cannot hold", fix=fix)


# ---- the folder -----------------------------------------------------------------------------------------------------


def _assign_shards(outputs: list[_Output], max_shard_bytes: int) -> dict[str, list[_Output]]:
    """File name -> its tensors, in the base's order; a tensor larger than `max_shard_bytes` gets a file of its own."""
    groups: list[list[_Output]] = [[]]
    room = max_shard_bytes
    for output in outputs:
        if groups[-1] and output.nbytes > room:
            groups.append([])
            room = max_shard_bytes
        groups[-1].append(output)
        room -= output.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, start=1)}


def _write_index_and_config(folder: Path, shards: dict[str, list[_Output]], config: dict, dtype: str) -> None:
    if len(shards) > 1:
        weight_map = {output.name: filename for filename, shard in shards.items() for output in shard}
        size = sum(output.nbytes for shard in shards.values() for output in shard)
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)
    # `dtype` is transformers 5's name for it, `torch_dtype` what other readers look for; local paths stay private.
    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "_name_or_path")}
    write_json(folder / "config.json", plain | {"dtype": dtype, "torch_dtype": dtype})


def _copy_companions(adapter_dir: Path, base_dir: Path, folder: Path, chat_template: str | None) -> None:
    """Copy tokenizer and template from one place, never mixed: from the adapter where it has them, as training used them."""
    source = adapter_dir if (adapter_dir / "tokenizer_config.json").is_file() else base_dir
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for name in OTHER_FILES:
        if (base_dir / name).is_file():
            shutil.copyfile(base_dir / name, folder / name)
    # A template may be in chat_template.jinja or in tokenizer_config.json; transformers prefers the former, llama.cpp's
    # converter the latter. It is kept in the file alone, so that whoever changes it there changes it for both.
    tokenizer_config = json_object(folder / "tokenizer_config.json")
    embedded = tokenizer_config.pop("chat_template", None)
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    template = folder / "chat_template.jinja"
    if chat_template is None and isinstance(embedded, str) and not template.exists():
        chat_template = embedded
    if chat_template is not None:
        template.write_text(chat_template, encoding="utf-8")
