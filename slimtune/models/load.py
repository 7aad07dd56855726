"""Load a base model through Unsloth, with a new or a saved LoRA adapter on it."""

from pathlib import Path
from typing import Any

from slimtune.models import backend  # before torch: Unsloth patches what follows

import torch  # isort: skip
from safetensors.torch import load_file  # isort: skip

from slimtune.core import memory, output_folders
from slimtune.core.errors import fail
from slimtune.core.inputs import reason
from slimtune.core.units import plural
from slimtune.models import adapter_files, hardware, shapes
from slimtune.models import files as base_model
from slimtune.models.settings import TORCH_NAMES, LoadSettings
from slimtune.models.weights import some

DTYPES = {precision: getattr(torch, name) for precision, name in TORCH_NAMES.items()}


def load(path: Path, plan: LoadSettings) -> tuple[Any, Any]:
    """The base model and its tokenizer from a local folder, the card's allocator capped at the plan's limit.

    On a CPU the C library's allocator is set, for the whole process, to hold no more than it must.
    Raises SlimtuneError where the plan wants a GPU that Unsloth does not find, and for a model that does not load whole.
    """
    if plan.device != backend.device_type():
        what = f"the plan is for '{plan.device}', but Unsloth trains on '{backend.device_type()}' here"
        check = "nvidia-smi; python -c 'import torch; print(torch.version.cuda)'"
        raise fail(what, fix=f"check the CUDA driver and torch build ({check})")
    placing: dict[str, Any] = {}
    if plan.cpu_threads is not None:
        torch.set_num_threads(plan.cpu_threads)
    if plan.device == "cuda":
        # Left to itself, Unsloth decides on these by what is free at the moment.
        placing = {"offload_embedding": plan.offload_embedding, "offload_layers": plan.offload_layers}
        backend.set_double_buffer(plan.double_buffer)
    else:
        memory.map_large_tensors()
    if plan.memory_limit_bytes is not None:
        memory.cap(plan.memory_limit_bytes)
    loaded = _from_pretrained(
        path,
        dtype=DTYPES[plan.precision],
        load_in_4bit=plan.load_in_4bit,
        max_seq_length=plan.max_seq_length,
        use_gradient_checkpointing=plan.gradient_checkpointing,
        **placing,
    )
    memory.trim()
    return loaded


def load_to_ask(
    path: Path, *, load_in_4bit: bool, max_seq_length: int, memory_limit_bytes: int | None = None
) -> tuple[Any, torch.dtype]:
    """A model to evaluate, and the precision that it computes in. memory_limit_bytes: cap of the card's allocator."""
    here = hardware.detect()
    precision, _ = hardware.precision(here)
    if here.kind == "cpu":
        shape = shapes.from_config(base_model.read_config(path), str(path))
        torch.set_num_threads(hardware.cpu_threads(shape.total_parameters, here.cores))
    elif memory_limit_bytes is not None:
        memory.cap(memory_limit_bytes)
    how = {"load_in_4bit": load_in_4bit, "max_seq_length": max_seq_length, "use_gradient_checkpointing": False}
    model, _ = _from_pretrained(path, dtype=DTYPES[precision], **how)
    return model, DTYPES[precision]


def _from_pretrained(path: Path, **settings: Any) -> tuple[Any, Any]:
    """The repository in that folder, never a look-alike that Unsloth would rather load, and none of its code."""
    settings |= {"use_exact_model_name": True, "trust_remote_code": False}
    try:
        with backend.quiet(), backend.loading_reports() as reports:
            loaded: tuple[Any, Any] = backend.FastLanguageModel.from_pretrained(model_name=str(path), **settings)
    except torch.OutOfMemoryError:
        raise
    except backend.LOADING_FAULTS as error:
        what = f"the model cannot be loaded: {type(error).__name__}: {reason(error)}"
        raise fail(
            what, where=str(path), fix="check its config.json and tokenizer files, or download it again"
        ) from error
    if found := [fault for report in reports for fault in report]:
        what = f"{plural(len(found), 'tensor')} did not load as config.json demands: {some(found)}"
        fix = "download the model again, or use the config.json that belongs to these weights"
        raise fail(what, where=str(path), fix=fix)
    return loaded


def add_adapter(model: Any, adapter: Path, name: str = "default") -> Any:
    """The model with a saved adapter on it, in the number format it was saved in; more can follow under other names.

    Raises SlimtuneError where the folder has no adapter_model.safetensors (pickled adapters are not loaded), and where
    PEFT's weights and the file's are not the same ones.
    """
    file = adapter / adapter_files.TENSORS
    if not file.is_file():
        raise fail(f"has no {adapter_files.TENSORS}", where=str(adapter), fix="save the adapter as safetensors")
    from peft import PeftModel

    as_saved: dict[str, Any] = {"is_trainable": False, "autocast_adapter_dtype": False}
    try:
        with backend.quiet():
            if isinstance(model, PeftModel):
                model.load_adapter(str(adapter), name, **as_saved)
            else:
                model = PeftModel.from_pretrained(model, str(adapter), name, **as_saved)
    except torch.OutOfMemoryError:
        raise
    except backend.LOADING_FAULTS as error:
        what = f"the adapter cannot be loaded: {type(error).__name__}: {reason(error)}"
        raise fail(what, where=str(adapter), fix="name the base that it was trained on, or save it again") from error
    _put_in_as_saved(model, file, name)
    return model


def _put_in_as_saved(model: Any, file: Path, name: str) -> None:
    """Replace an adapter's weights by the file's own tensors.

    PEFT copies the values into weights of the base's number format. But without autocast a LoRA layer rounds its input
    to the format of its weights, so an adapter that was trained in bf16 on an fp32 base would be another function in
    fp32; and in bf16 one that was trained in fp32 would lose digits. Seen in PEFT 0.21.2 (tuners/lora/bnb.py, forward);
    can go when load_adapter keeps the file's format.
    """
    from peft import get_peft_model_state_dict

    parameters = dict(model.named_parameters())
    own = get_peft_model_state_dict(model, parameters, adapter_name=name, save_embedding_layers=False)
    stored = load_file(file)
    # PEFT leaves what the file lacks as it was made, and drops what it has no place for, with a warning at most.
    wrong = sorted(own.keys() ^ stored.keys()) + [
        k for k in own.keys() & stored.keys() if own[k].shape != stored[k].shape
    ]
    if wrong:
        what = f"{len(wrong):,} tensors of adapter and base do not fit each other: {some(wrong)}"
        raise fail(what, where=str(file), fix="name the base that the adapter was trained on")
    for key, saved in stored.items():
        own[key].data = saved.to(own[key].device)


def add_lora(model: Any, plan: LoadSettings) -> Any:
    """The model with a fresh adapter: B is zero, so it answers exactly as the base does.

    Raises SlimtuneError where a target module does not exist in the model.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := [target for target in plan.lora_targets if target not in names]:
        raise fail(f"the model has no modules named {', '.join(missing)}", where="lora.target", fix="use target: full")
    # Unsloth's CPU backend has no such setting, and the plan none for a CPU.
    keeping = {"checkpoint_skip_layers": plan.checkpoint_skip_layers} if plan.device == "cuda" else {}
    with backend.quiet():
        return backend.FastLanguageModel.get_peft_model(
            model,
            r=plan.lora_rank,
            lora_alpha=plan.lora_alpha,
            lora_dropout=plan.lora_dropout,
            target_modules=list(plan.lora_targets),
            bias="none",
            use_gradient_checkpointing=plan.gradient_checkpointing,
            random_state=plan.seed,
            max_seq_length=plan.max_seq_length,
            **keeping,
        )


def save_adapter(model: Any, tokenizer: Any, directory: Path, *, base: str, revision: str | None) -> None:
    """Write the adapter (safetensors), its tokenizer and chat template; all or nothing.

    base, revision: what the recipe names, so that the adapter does not carry this machine's cache path.
    Raises SlimtuneError where the disk is full or the folder not writable.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    with output_folders.staged_folder(directory, what="an adapter") as partial, backend.quiet():
        # The embeddings are never trained; without this PEFT asks the hub for the base's config to find that out.
        model.save_pretrained(partial, safe_serialization=True, save_embedding_layers=False)
        tokenizer.save_pretrained(partial)


def memory_bytes(model: Any) -> dict[str, int]:
    """Bytes of the frozen "weights" as stored, quantised or not, and of the trainable "LoRA weights".

    A tensor that is used twice, such as a tied head, counts once.
    """
    sizes = {"weights": 0, "LoRA weights": 0}
    seen = set()
    for parameter in model.parameters():
        kind = "LoRA weights" if parameter.requires_grad else "weights"
        for tensor in (parameter, *_quantisation_tensors(getattr(parameter, "quant_state", None))):
            if tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                sizes[kind] += tensor.nbytes
    return sizes


def _quantisation_tensors(state: Any) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside the codes of a 4-bit weight: block scales and code book, and with double
    quantisation the offset of the scales, their own scales and their table (`QuantState`)."""
    states = [one for one in (state, getattr(state, "state2", None)) if one is not None]
    tensors = [tensor for one in states for tensor in (one.absmax, one.code, one.offset)]
    return [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
