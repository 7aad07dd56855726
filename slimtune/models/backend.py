"""The only file that imports Unsloth, and it does so before TRL, Transformers and PEFT.

Unsloth replaces parts of those libraries while it is imported; take models and trainers from here. Each third-party
quirk that we work around is here too, with its reason, the versions it was seen in and when it can go.
"""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_too_early = [name for name in ("trl", "peft") if name in sys.modules and "unsloth" not in sys.modules]
if _too_early:
    raise ImportError(f"slimtune.models.backend must be imported before {', '.join(_too_early)}: Unsloth patches them")

# Unsloth reports usage by downloading a file from its hub account; a run must work without a network and say
# nothing about its user. Seen in 2026.10.9 (models/_utils.py); can go when statistics are opt-in.
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
# Unsloth writes generated trainers into the working directory. Seen in 2026.10.9 (unsloth_zoo/compiler.py).
_cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "slimtune" / "unsloth_compiled"
os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(_cache))
# bitsandbytes looks for an optional CPU kernel package and warns at every import; we never use that kernel,
# because it repacks weights in a way that breaks training (see unsloth_zoo/cpu/loader.py). Seen in 0.50.2.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# How many layers keep their activations is the plan's decision; where it says none, Unsloth would ask this variable.
# Seen in 2026.10.9 (models/_utils.py skip_checkpointing); can go when 0 means 0.
os.environ.pop("UNSLOTH_GC_KEEP_LAYERS", None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What Unsloth prints goes to the log of the run, not on its screen: the plan has said it already, in one place."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line.strip():
                log.info("unsloth: %s", line)


with quiet():
    import unsloth
    from unsloth import FastLanguageModel as FastLanguageModel

# Transformers' own weight-loading bar says nothing that the plan has not said.
import datasets  # noqa: E402
import transformers  # noqa: E402
import trl as trl  # noqa: E402
from huggingface_hub.errors import StrictDataclassError  # noqa: E402
from safetensors import SafetensorError  # noqa: E402

datasets.disable_progress_bars()
transformers.logging.disable_progress_bar()


LOADING_FAULTS = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError,
    StrictDataclassError, ArithmeticError, AssertionError,
)  # fmt: skip
"""What Unsloth, Transformers and PEFT raise for files that they cannot make a model of."""


@contextlib.contextmanager
def loading_reports() -> Iterator[list[list[str]]]:
    """Yield a list that gets, for each model that is loaded in the block, the tensors that were not loaded as stored.

    Transformers gives a tensor that is missing random values, and says so in a report that Unsloth does not return.
    Seen in Transformers 5.17 (modeling_utils.py, _finalize_model_loading); can go when Unsloth passes
    output_loading_info on.
    """
    from transformers import modeling_utils

    reports: list[list[str]] = []

    def taken(*, loading_info: Any, **_: Any) -> None:
        mismatched = (f"{name} ({tuple(stored)} stored)" for name, stored, _ in sorted(loading_info.mismatched_keys))
        reports.append(
            [
                *(f"{name} (missing)" for name in sorted(loading_info.missing_keys)),
                *mismatched,
                *(f"{name} (unexpected)" for name in sorted(loading_info.unexpected_keys)),
                *(f"{name} (not converted)" for name in sorted(loading_info.conversion_errors)),
                *loading_info.error_msgs,
            ]
        )

    theirs = modeling_utils.log_state_dict_report
    modeling_utils.log_state_dict_report = taken
    try:
        yield reports
    finally:
        modeling_utils.log_state_dict_report = theirs


def set_double_buffer(on: bool) -> None:
    """Two staging buffers for offloaded checkpoints, or one. Call it before the model is loaded.

    Unsloth reads it from the environment once. Left unset it looks at the whole card's free memory, not at the cap.
    Seen in 2026.10.9 (unsloth_zoo/gradient_checkpointing.py); can go when it is an argument.
    """
    os.environ["UNSLOTH_DISABLE_DOUBLE_BUFFER"] = "0" if on else "1"


@contextlib.contextmanager
def generating(model: Any) -> Iterator[None]:
    """Prepare Unsloth's model to generate; afterwards it is as ready to train as before.

    Unsloth's generate() turns gradient checkpointing off and the KV cache on, and undoes that only for a model in
    training mode: asking a base model first would leave the training without checkpointing.
    Seen in 2026.10.9 (models/llama.py unsloth_fast_generate, for_inference); can go when generate() restores both itself.
    """
    was_training = model.training
    modules = (getattr(module, "gradient_checkpointing", False) for module in model.modules())
    checkpointing = next((value for value in modules if value), False)
    model.for_inference()
    try:
        yield
    finally:
        if was_training:
            model.for_training(use_gradient_checkpointing=checkpointing)


def device_type() -> str:
    """`cuda` or "cpu": where Unsloth will train."""
    return "cpu" if getattr(unsloth, "DEVICE_TYPE", "cuda") == "cpu" else "cuda"


def chat_template(family: str) -> str:
    """The Jinja chat template that Unsloth ships for a key of its table ("qwen3"). Raises KeyError for an unknown one."""
    from unsloth.chat_templates import CHAT_TEMPLATES, DEFAULT_SYSTEM_MESSAGE

    template = CHAT_TEMPLATES[family][0]
    # The Qwen2.5 entry keeps its default system prompt as a placeholder; Unsloth fills it the same way.
    return template.replace("{system_message}", DEFAULT_SYSTEM_MESSAGE.get(family) or "")


def train_on_responses_only(tokenizer: Any, instruction_part: str, response_part: str) -> Any:
    """Unsloth's marker-based masking as a function: {"input_ids": [[int]]} -> {"labels": [[int]]}."""
    from unsloth.chat_templates import train_on_responses_only as from_templates
    from unsloth_zoo.dataset_utils import train_on_responses_only as from_zoo

    parts = {"instruction_part": instruction_part, "response_part": response_part}
    with quiet():
        return (from_templates or from_zoo)(None, **parts, tokenizer=tokenizer, return_function=True)
