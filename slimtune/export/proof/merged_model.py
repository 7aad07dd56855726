"""The merged model in stock transformers, in a process of its own: what the GGUF is compared with.

A crash of the worker is an error message here, its log stays off the screen, and Unsloth has not patched its transformers.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from slimtune.core import child
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.run_watched import end_with_parent
from slimtune.export.model_folder import parameter_count
from slimtune.models import families
from slimtune.models.llama_server import told_tokens
from slimtune.models.weights import shard_paths

_LIKELIEST_LATER = 16
_LOAD_SECONDS, _SECONDS_PER_PROMPT = 900, 120
_BATCH = 8
_SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True, slots=True)
class MergedAnswer:
    """ids: the greedy answer, up to and including an end token.

    steps: for each of them the likeliest tokens then, id to natural log-probability: the first step's 512 (or the whole
    of a small vocabulary), 16 later on; empty where nobody could be asked. nll: of the reference, where there was one.
    precision: of the arithmetic, "float32" or "bfloat16".
    """

    ids: list[int]
    steps: list[dict[int, float]] = field(default_factory=list)
    nll: float | None = None
    precision: str = "float32"

    def margin(self, step: int, other: int) -> float | None:
        """By how much the token at `step` was likelier than `other`, in nats; None where that is not known.

        Of a token that is not among the likeliest, at least so much.
        """
        if step >= len(self.steps):
            return None
        told = self.steps[step]
        return max(told.values()) - told.get(other, min(told.values()))


def fits(model_dir: Path) -> bool:
    """Whether the weights can be loaded beside everything else that the machine holds."""
    stored = sum(path.stat().st_size for path in shard_paths(model_dir))
    return stored <= _SHARE_OF_MEMORY * psutil.virtual_memory().available


def ask(
    model_dir: Path,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    references: Sequence[Sequence[int]] | None = None,
) -> list[MergedAnswer]:
    """The model's greedy answer to every prompt, in the prompts' order.

    references: for each prompt the ids of an answer whose likelihood is wanted; empty ones are not measured.
    Raises SlimtuneError where the model does not load, or fits nowhere.
    """
    request = {
        "model": str(model_dir),
        "parameters": parameter_count(model_dir),
        "prompt_ids": [list(ids) for ids in prompt_ids],
        "max_new_tokens": max_new_tokens,
        "ends": families.end_tokens(),
        "references": [list(ids) for ids in references or [()] * len(prompt_ids)],
    }
    return [MergedAnswer(**one | {"steps": [dict(step) for step in one["steps"]]}) for one in _in_worker(request)]


def _in_worker(request: dict[str, Any]) -> list[dict[str, Any]]:
    done = child.run(
        child.module("slimtune.export.proof.merged_model"),
        what=f"transformers cannot run {Path(request['model']).name}",
        environment=child.offline_environment(),
        first_line=json.dumps(request).encode() + b"\n",
        timeout_seconds=_LOAD_SECONDS + _SECONDS_PER_PROMPT * len(request["prompt_ids"]),
    )
    return json.loads(done)


# ---- inside the worker ----------------------------------------------------------------------------------------------


def _run(request: dict[str, Any]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    device, dtype = _roomiest(request["parameters"])
    tokenizer: Any = AutoTokenizer.from_pretrained(request["model"])
    model: Any = AutoModelForCausalLM.from_pretrained(request["model"], dtype=getattr(torch, dtype))
    model.to(device).eval()
    ends: list[int] = [
        tokenizer.convert_tokens_to_ids(token) for token in request["ends"] if token in tokenizer.get_vocab()
    ]
    # A fresh configuration: the checkpoint's own may sample, or penalise repetition.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=request["max_new_tokens"],
        eos_token_id=ends,
        pad_token_id=ends[-1],
        return_dict_in_generate=True,
        output_logits=True,
    )
    prompts: list[list[int]] = request["prompt_ids"]
    references: list[list[int]] = request["references"]
    answers: list[dict[str, Any]] = [{} for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    with torch.inference_mode():
        for start in range(0, len(by_length), _BATCH):
            batch = by_length[start : start + _BATCH]
            for index, answer in zip(batch, _greedy(model, [prompts[i] for i in batch], ends, device), strict=True):
                answers[index] = answer
        for answer, prompt, reference in zip(answers, prompts, references, strict=True):
            answer |= {"nll": _nll(model, prompt, reference, device) if reference else None, "precision": dtype}
    return answers


def _greedy(model: Any, rows: list[list[int]], ends: list[int], device: str) -> list[dict[str, Any]]:
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[ends[-1]] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device))
    likeliest = [_likeliest(logits, first=step == 0) for step, logits in enumerate(output.logits)]
    answers = []
    for index, row in enumerate(output.sequences[:, width:].tolist()):
        stop = next((position for position, token in enumerate(row) if token in ends), len(row))
        answers.append({"ids": row[: stop + 1], "steps": [step[index] for step in likeliest[: stop + 1]]})
    return answers


def _likeliest(logits: Any, *, first: bool) -> list[list[tuple[int, float]]]:
    """For each row of (rows, vocabulary) its likeliest tokens with their log-probabilities."""
    import torch

    vocabulary = logits.shape[-1]
    count = told_tokens(vocabulary) if first else _LIKELIEST_LATER
    top = torch.log_softmax(logits.float(), dim=-1).topk(min(count, vocabulary), dim=-1)
    return [list(zip(*row, strict=True)) for row in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def _nll(model: Any, prompt: list[int], reference: list[int], device: str) -> float:
    import torch

    ids = torch.tensor([prompt + reference], device=device)
    # The last token of the prompt predicts the first of the reference, and nothing is asked of the last one.
    logits = model(input_ids=ids, logits_to_keep=len(reference) + 1).logits[0, :-1].float()
    wanted = torch.tensor(reference, device=device)
    return float(torch.nn.functional.cross_entropy(logits, wanted, reduction="sum"))


def _roomiest(parameters: int) -> tuple[str, str]:
    """Where a model of so many parameters fits, with a quarter to spare: fp32 before 16 bit, the GPU before the CPU."""
    import torch

    free = {"cpu": psutil.virtual_memory().available}
    if torch.cuda.is_available():
        free["cuda"] = torch.cuda.mem_get_info()[0]
    for device in ("cuda", "cpu"):
        for dtype, width in (("float32", 4), ("bfloat16", 2)):
            if free.get(device, 0) > parameters * width * 1.25:
                return device, dtype
    needed = parameters * 2.5 / 2**30
    what = f"the merged model needs {needed:.1f} GiB of memory to be compared, {free['cpu'] / 2**30:.1f} are free"
    raise fail(what, fix="end other programs, and export again")


def _main() -> None:
    # The engine may print to standard output: it gets standard error, and the result the real one.
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    end_with_parent()
    try:
        json.dump(_run(request), result)
    except SlimtuneError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
