"""Whether an export can be made at all: everything that can be told without a trained weight.

A run asks before it trains, and an export before it asks or merges anything. What is refused here would otherwise be
refused after hours.
"""

from dataclasses import replace
from pathlib import Path

from slimtune.core import inputs
from slimtune.core.errors import Gathered, Problem, SlimtuneError
from slimtune.export import model_card
from slimtune.export.check import check_gguf
from slimtune.export.gguf import gguf
from slimtune.export.modelfile import modelfile
from slimtune.export.modelfile.chat_templates import bake_chat_template
from slimtune.export.request import ExportRequest
from slimtune.models import adapter_files, families, files, shapes


def require_possible(request: ExportRequest) -> None:
    """Raise SlimtuneError with everything that would stop this export, as far as the files at hand tell it.

    Nothing is downloaded, and no weight is read.
    """
    wanted, found = request.wanted, Gathered()
    positions = request.shape.max_position_embeddings
    if request.num_ctx > positions:
        what = f"num_ctx {request.num_ctx} is more than the {positions} positions of {request.shape.name}"
        found.add([Problem(what, "export.num_ctx", f"set it to {positions} or less")])
    if wanted.gguf or wanted.lora_gguf:
        with found:
            _require_architecture(request)
        with found:
            gguf.require_tools(wanted.gguf)
    shape = request.shape
    rows = {"token_embd": shape.hidden_size} | {name: inputs for name, (inputs, _) in shape.projections.items()}
    found.add(gguf.row_problems(rows, wanted.gguf))
    if request.base_folder is not None:
        with found:
            config = files.read_config(request.base_folder)
            shapes.require_loadable(config, request.base, load_in_4bit=request.load_in_4bit)
    with found:
        _require_merge_base(request)
    with found:
        model_card.model_card(
            request.name, base_model=request.base, license=request.license, languages=request.languages
        )
    if request.chat_template is not None:
        with found:
            _require_template(request, request.chat_template)
    if wanted.gguf and request.chat_template is not None and request.tokenizer_folder is not None:
        found.add(_end_problems(request.tokenizer_folder, request.chat_template))
    found.require_none()


def require_mergeable(adapter: Path, base_folder: Path, *, lora_gguf: bool) -> None:
    """Raise SlimtuneError unless the adapter is a plain LoRA of that base. Reads the adapter's weights, with torch.

    lora_gguf: whether llama.cpp must be able to scale it, too.
    """
    adapter_files.check(adapter, base_folder)
    loras = gguf.read_adapter(adapter)
    if lora_gguf:
        gguf.require_one_alpha(adapter, loras)


def _require_architecture(request: ExportRequest) -> None:
    """llama.cpp's converter must know the model."""
    if request.base_folder is not None:
        architectures = files.read_config(request.base_folder).get("architectures") or []
        families.of_architectures(architectures, "export.gguf")
    elif not families.get(request.shape.family).architectures:
        title = families.get(request.shape.family).title
        fix = "set export.gguf: [] to export merged weights alone, or train another model"
        raise SlimtuneError(Problem(f"{title} cannot be exported as GGUF", "export.gguf", fix))


def _require_merge_base(request: ExportRequest) -> None:
    """The weights that the adapter is merged into must be known, and at hand where nothing can be fetched."""
    if request.wanted.merge_base == "16bit" and request.needs_twin:
        twin = request.twin()
        folder = files.locate(twin)
        if files.is_offline() and (folder is None or not files.has_weights(folder)):
            fix = f"run  hf download {twin}  on a machine with a network, or use merge_base: dequantised"
            what = f"the 16-bit twin '{twin}' is not on this machine, and HF_HUB_OFFLINE is set"
            raise SlimtuneError(Problem(what, "export.merge_base", fix))
    if request.wanted.merge_base != "16bit" and request.load_in_4bit and request.base_folder is not None:
        config = files.read_config(request.base_folder)
        if not config.get("quantization_config") and families.quantised_at_load(config) is None:
            what = f"it is not known which layers of a {config.get('model_type')!r} model are quantised at load"
            fix = "set model.load_in_4bit: false, or export.merge_base: 16bit"
            raise SlimtuneError(Problem(what, "export.merge_base", fix))


def _require_template(request: ExportRequest, chat_template: str) -> None:
    """The chat template must have a form that ships, and with a GGUF also one that a Modelfile can hold."""
    family = request.shape.family
    try:
        baked = bake_chat_template(chat_template, family=family, thinking=request.thinking)
        if request.wanted.gguf:
            modelfile.compose(
                gguf_name=f"{request.name}.{request.wanted.gguf[0]}.gguf",
                family=family,
                thinking=request.thinking,
                system=request.system,
                num_ctx=request.num_ctx,
                temperature=request.wanted.temperature,
                chat_template=baked,
            )
    except SlimtuneError as error:
        # The template itself is at fault where nothing else is named.
        problems = [replace(problem, where=problem.where or "model.base") for problem in error.problems]
        raise SlimtuneError(problems, summary=error.summary) from error


def _end_problems(folder: Path, chat_template: str) -> list[Problem]:
    """The converter takes the token that ends generation from tokenizer_config.json, and it must be what ends a turn."""
    path = folder / "tokenizer_config.json"
    named = inputs.json_object(path).get("eos_token") if path.is_file() else None
    ends, meant = named.get("content") if isinstance(named, dict) else named, check_gguf.end_of_turn(chat_template)
    if not isinstance(ends, str) or meant in (None, ends):
        return []
    what = f"eos_token is {ends}, but the chat template ends a turn with {meant}: a GGUF would not stop there"
    return [Problem(what, str(path), f"use the model that was tuned for chats, or set eos_token to {meant}")]
