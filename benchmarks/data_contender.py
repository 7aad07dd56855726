"""One contender of `data.py`: prepares a file for training and says how long it took and what came out, as JSON."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slimtune import builtin

_MODEL = builtin.resolve("builtin:tiny-qwen3")
_LENGTH = 2048


def main(name: str, path: Path, scratch: Path) -> None:
    if name == "slimtune":
        seconds, dataset, stages = _slimtune(path, scratch)
    else:
        seconds, dataset, stages = _trl(path, scratch, processes=2 if name == "trl-2" else None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    examples, tokens, digest = _digest(dataset, ends_with_a_line_break=name != "slimtune")
    result = {
        "seconds": round(seconds, 2),
        "rows_per_second": round(examples / seconds, 1),
        "stages": {stage: round(took, 2) for stage, took in stages.items()},
        "peak_mib": round(peak / 1024),
        "peak_worker_mib": round(workers / 1024),
        "examples": examples,
        "tokens": tokens,
        "packed_rows": len(dataset),
        "fill": tokens / (len(dataset) * _LENGTH),
        "examples_sha256": digest,
        "machine": _machine(),
    }
    print(json.dumps(result))


def _slimtune(path: Path, scratch: Path) -> tuple[float, Any, dict[str, float]]:
    """The way of a run: the project reads, renders, encodes and masks; the trainer gets ids and labels, and packs them."""
    from slimtune.data.chat import ChatTokenizer
    from slimtune.data.loading import load_conversations
    from slimtune.train import example_rows

    trainer_of = _trainer(scratch, processes=None)
    began = time.perf_counter()
    loaded = load_conversations([(str(path), 1.0)]).conversations
    read = time.perf_counter()
    examples = list(ChatTokenizer(_MODEL).examples_of(loaded))
    encoded = time.perf_counter()
    trainer = trainer_of(example_rows.from_examples(examples))
    done = time.perf_counter()
    stages = {"load": read - began, "render, mask": encoded - read, "pack": done - encoded}
    return done - began, trainer.train_dataset, stages


def _trl(path: Path, scratch: Path, processes: int | None) -> tuple[float, Any, dict[str, float]]:
    """The way of TRL's documentation: conversational prompt and completion, loss on the completion."""
    import datasets

    def conversational(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": [{"role": "user", "content": row["input"]}],
            "completion": [{"role": "assistant", "content": row["output"]}],
            "chat_template_kwargs": {"enable_thinking": False},
        }

    trainer_of = _trainer(scratch, processes)
    began = time.perf_counter()
    table = datasets.load_dataset("json", data_files=str(path), split="train")
    rows = table.map(conversational, remove_columns=table.column_names, num_proc=processes)
    read = time.perf_counter()
    trainer = trainer_of(rows)
    done = time.perf_counter()
    return done - began, trainer.train_dataset, {"load": read - began, "render, mask, pack": done - read}


def _trainer(scratch: Path, processes: int | None) -> Callable[[Any], Any]:
    """TRL's own trainer for either, without Unsloth, which leaves packing out on a CPU."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = transformers.AutoTokenizer.from_pretrained(_MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(_MODEL)
    config = SFTConfig(
        output_dir=str(scratch / "out"),
        max_length=_LENGTH,
        packing=True,
        packing_strategy="bfd",
        dataset_num_proc=processes,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    return lambda rows: SFTTrainer(model=model, args=config, processing_class=tokenizer, train_dataset=rows)


def _digest(dataset: Any, *, ends_with_a_line_break: bool) -> tuple[int, int, str]:
    """Number of examples, of tokens, and the SHA-256 over all examples' ids and labels, whatever their order."""
    found: list[bytes] = []
    tokens = 0
    for ids, labels in _examples(dataset):
        tokens += len(ids)
        if ends_with_a_line_break:
            if ids[-1] != labels[-1]:
                raise ValueError("an example that does not end on a token with a label")
            ids, labels = ids[:-1], labels[:-1]
        found.append(hashlib.sha256(json.dumps([ids, labels]).encode()).digest())
    return len(found), tokens, hashlib.sha256(b"".join(sorted(found))).hexdigest()


def _examples(dataset: Any) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    for row in dataset.select_columns(["input_ids", "labels", "seq_lengths"]):
        start = 0
        for length in row["seq_lengths"]:
            yield row["input_ids"][start : start + length], row["labels"][start : start + length]
            start += length


def _machine() -> dict[str, Any]:
    from slimtune import versions
    from slimtune.plan import hardware

    found = hardware.detect()
    return {
        "name": found.name,
        "cores": found.cores,
        "python": platform.python_version(),
        "versions": versions.installed(),
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
