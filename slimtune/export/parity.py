"""Whether the GGUF says what the merged model says: the same prompt ids, and the same greedy answer, token by token.

The GGUF runs in llama.cpp's server (slimtune/llama_server.py), the merged model in stock transformers. Both run in
processes of their own: a crash of either is an error here and not the end of the run, their logs stay out of the way,
and transformers is not the one that a trainer has patched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune import llama_server
from slimtune.errors import SlimtuneError, fail
from slimtune.export.model_folder import existing_file, parameter_count

_END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_SHOWN_DIFFERENCES = 5
_LOAD_SECONDS, _SECONDS_PER_PROMPT = 900, 120
_BATCH = 8


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """Of `prompts`, how many had equal ids, an equal first token, an equal answer; `passed`: all of them in all three.

    templates_equal: how many conversations the GGUF's own template rendered as given; None if none were.
    differences: the first few, each {"prompt": index, "what": …, "position": …, "expected": …, "got": …}.
    """

    gguf: str
    prompts: int
    ids_equal: int
    first_tokens_equal: int
    answers_equal: int
    templates_equal: int | None
    differences: tuple[dict[str, Any], ...]
    passed: bool


def check_gguf(
    gguf_path: Path,
    prompts: Sequence[str],
    expected: Sequence[Sequence[int]],
    prompt_ids: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    conversations: Sequence[Sequence[Mapping[str, str]]] | None = None,
) -> ParityRecord:
    """Compare the GGUF with what `hf_greedy` gave for the merged model.

    prompts: rendered text, generation prompt included. prompt_ids: its ids by the training tokenizer. expected: the
    merged model's greedy ids, with or without the end token. conversations: messages ({"role", "content"}) that the
    GGUF's embedded template must render as `prompts`.

    Raises SlimtuneError where llama.cpp cannot load or run the file.
    """
    if not prompts or max_new_tokens < 1:
        raise ValueError("parity needs at least one prompt and one new token")
    found = _ask_llama_cpp(existing_file(gguf_path), prompts, prompt_ids, max_new_tokens, conversations or ())
    ends = set(found.end_ids)
    ids_equal = first_equal = answers_equal = 0
    differences: list[dict[str, Any]] = []
    for index, (ids, wanted) in enumerate(zip(prompt_ids, expected, strict=True)):
        got_ids, got = found.ids[index], found.answers[index]
        if got_ids != list(ids):
            differences.append(_difference(index, "prompt ids", list(ids), got_ids))
            continue
        ids_equal += 1
        wanted_answer, got_answer = _closed(wanted, ends, max_new_tokens), _closed(got, ends, max_new_tokens)
        first_equal += wanted_answer[:1] == got_answer[:1]
        answers_equal += wanted_answer == got_answer
        if wanted_answer != got_answer:
            differences.append(_difference(index, "answer", wanted_answer, got_answer))
    templates_equal = None
    if conversations is not None:
        pairs = list(enumerate(zip(prompts, found.rendered, strict=True)))
        templates_equal = sum(prompt == rendered for _, (prompt, rendered) in pairs)
        differences += [_difference(i, "template", list(p), list(r)) for i, (p, r) in pairs if p != r]
    total = len(prompts)
    return ParityRecord(
        gguf=gguf_path.name,
        prompts=total,
        ids_equal=ids_equal,
        first_tokens_equal=first_equal,
        answers_equal=answers_equal,
        templates_equal=templates_equal,
        differences=tuple(differences[:_SHOWN_DIFFERENCES]),
        passed=ids_equal == answers_equal == total and templates_equal in (None, total),
    )


def hf_greedy(model_dir: Path, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """The model's greedy continuation of every prompt, up to and including an end token, in the prompts' order.

    Runs in fp32 where that fits (the GPU first, then main memory), else in the stored 16 bits. Raises SlimtuneError
    where the model does not load, or fits nowhere.
    """
    request = {
        "model": str(model_dir),
        "parameters": parameter_count(model_dir),
        "prompt_ids": [list(ids) for ids in prompt_ids],
        "max_new_tokens": max_new_tokens,
    }
    what = f"transformers cannot run {model_dir.name}"
    return _in_worker(request, len(prompt_ids), what=what)


@dataclass(frozen=True, slots=True)
class _Found:
    """ids: of each prompt, by the GGUF's vocabulary. answers: greedy ids; none for prompts with other ids."""

    ids: list[list[int]]
    answers: list[list[int]]
    end_ids: list[int]
    rendered: list[str]


def _ask_llama_cpp(
    gguf_path: Path,
    prompts: Sequence[str],
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    conversations: Sequence[Sequence[Mapping[str, str]]],
) -> _Found:
    context_length = max(len(ids) for ids in prompt_ids) + max_new_tokens + 8
    with llama_server.start(gguf_path, context_length=context_length, answer_seconds=_LOAD_SECONDS) as server:

        def tokenize(text: str) -> list[int]:
            body = {"content": text, "add_special": True, "parse_special": True}
            tokens: list[int] = server.post("/tokenize", body)["tokens"]
            return tokens

        def greedy(ids: list[int]) -> list[int]:
            options = {"n_predict": max_new_tokens, "temperature": 0, "repeat_penalty": 1.0}
            body = {"prompt": ids, "return_tokens": True, **options}
            tokens: list[int] = server.post("/completion", body)["tokens"]
            return tokens

        ids = [tokenize(prompt) for prompt in prompts]
        same = [mine == list(theirs) for mine, theirs in zip(ids, prompt_ids, strict=True)]
        return _Found(
            ids=ids,
            answers=[greedy(tokens) if equal else [] for tokens, equal in zip(ids, same, strict=True)],
            end_ids=[tokens[0] for tokens in map(tokenize, _END_TOKENS) if len(tokens) == 1],
            rendered=[
                server.post("/apply-template", {"messages": list(map(dict, messages))})["prompt"]
                for messages in conversations
            ],
        )


def _closed(ids: Sequence[int], ends: set[int], max_new_tokens: int) -> list[int]:
    """`ids` up to the end token; -1 stands for whichever end token it was, or for one that the engine left out."""
    kept = list(ids)[:max_new_tokens]
    stop = next((position for position, token in enumerate(kept) if token in ends), len(kept))
    return kept[:stop] + ([-1] if stop < max_new_tokens else [])


def _difference(index: int, what: str, expected: list[Any], got: list[Any]) -> dict[str, Any]:
    pairs = zip(expected, got, strict=False)
    position = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(got)))
    window = slice(max(position - 2, 0), position + 6)
    return {
        "prompt": index,
        "what": what,
        "position": position,
        "expected": expected[window],
        "got": got[window],
    }


def _in_worker(request: dict[str, Any], prompts: int, *, what: str) -> list[list[int]]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", "slimtune.export.parity"]
    with tempfile.TemporaryFile() as messages:
        try:
            done = subprocess.run(
                command,
                input=json.dumps(request).encode(),
                stdout=subprocess.PIPE,
                stderr=messages,
                env=environment,
                timeout=_LOAD_SECONDS + _SECONDS_PER_PROMPT * prompts,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise fail(f"{what}: no answer after {error.timeout:.0f} s") from error
        if done.returncode:
            messages.seek(0)
            lines = [line for line in messages.read().decode("utf-8", "replace").splitlines() if line.strip()]
            tail = "\n    ".join(lines[-6:]) or "(it printed nothing)"
            raise fail(f"{what} (exit code {done.returncode}):\n    {tail}")
    answers: list[list[int]] = json.loads(done.stdout)
    return answers


# ---- inside the worker ----------------------------------------------------------------------------------------------


def _run_transformers(request: dict[str, Any]) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    device, dtype = _roomiest(request["parameters"])
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    model: Any = AutoModelForCausalLM.from_pretrained(request["model"], dtype=getattr(torch, dtype))
    model.to(device).eval()
    ends = [tokenizer.convert_tokens_to_ids(token) for token in _END_TOKENS if token in tokenizer.get_vocab()]
    # A fresh configuration: the checkpoint's own may sample, or penalise repetition.
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=request["max_new_tokens"], eos_token_id=ends, pad_token_id=ends[-1]
    )
    prompts = request["prompt_ids"]
    answers: list[list[int]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(by_length), _BATCH):
        batch = by_length[start : start + _BATCH]
        width = max(len(prompts[index]) for index in batch)
        padding = [width - len(prompts[index]) for index in batch]
        ids = torch.tensor([[ends[-1]] * pad + prompts[index] for pad, index in zip(padding, batch, strict=True)])
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        with torch.inference_mode():
            output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device))
        for index, row in zip(batch, output[:, width:].tolist(), strict=True):
            stop = next((position for position, token in enumerate(row) if token in ends), len(row))
            answers[index] = row[: stop + 1]
    return answers


def _roomiest(parameters: int) -> tuple[str, str]:
    """Where a model of so many parameters fits, with a quarter to spare: fp32 before 16 bit, the GPU before the CPU."""
    import psutil
    import torch

    free = {"cpu": psutil.virtual_memory().available}
    if torch.cuda.is_available():
        free["cuda"] = torch.cuda.mem_get_info()[0]
    for device in ("cuda", "cpu"):
        for dtype, width in (("float32", 4), ("bfloat16", 2)):
            if free.get(device, 0) > parameters * width * 1.25:
                return device, dtype
    needed = parameters * 2.5 / 2**30
    raise fail(f"the merged model needs {needed:.1f} GiB of memory to be compared, {free['cpu'] / 2**30:.1f} are free")


def _main() -> None:
    # The engine may print to standard output: it gets standard error, and the result the real one.
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        json.dump(_run_transformers(json.load(sys.stdin)), result)
    except SlimtuneError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
