"""The steps of `data.py`, each a process that prints what it found as the last line, JSON.

make FOLDER ROWS shared|own [VOCABULARY]    FOLDER/{slimtune,trl}.jsonl and a tiny Qwen3 with its tokenizer in FOLDER/model
compare FOLDER ROWS              the first rows, prepared by both without packing
slimtune|trl|trl, 2 processes FOLDER    all rows, timed
"""

import hashlib
import itertools
import json
import platform
import resource
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.data import KINDS, OURS, THEIRS

LENGTH = 2048
"""Tokens of a packed row."""

Document = tuple[bytes, bytes]
"""Token ids and labels, as 32-bit integers."""


def main(arguments: Sequence[str]) -> None:
    name, folder, *rest = arguments
    if name == "make":
        found = make(Path(folder), int(rest[0]), Path(rest[2]) if rest[2:] else None, shared=rest[1] == KINDS[0])
    elif name == "compare":
        found = compare(Path(folder), int(rest[0]))
    else:
        found = measure(name, Path(folder))
    print(json.dumps(found))


def make(folder: Path, count: int, vocabulary: Path | None, *, shared: bool) -> dict[str, Any]:
    """Write the model and the rows. vocabulary: qwen.tiktoken; None for the built-in tokenizer. shared: as in `KINDS`."""
    from tokenizers import Tokenizer

    from benchmarks import qwen_vocabulary
    from scripts.builtin import models
    from slimtune.models import builtin

    import torch  # isort: skip

    folder.mkdir(parents=True, exist_ok=True)
    own = builtin.resolve("builtin:tiny-qwen3")
    tokenizer = qwen_vocabulary.read(vocabulary) if vocabulary else Tokenizer.from_file(str(own / "tokenizer.json"))
    model = models.new_model(tokenizer, family="qwen3", tied=True, hidden_size=64, layers=1, intermediate_size=64)
    template = (own / "chat_template.jinja").read_text(encoding="utf-8")
    models.save(model, tokenizer, folder / "model", chat_template=template, dtype=torch.float32)
    return {"vocabulary": tokenizer.get_vocab_size(), "file_mb": write_rows(folder, count, shared=shared)}


def write_rows(folder: Path, count: int, *, shared: bool = True) -> dict[str, float]:
    """Both layouts of the rows; their sizes in megabytes."""
    from benchmarks import law_rows

    with (
        (folder / f"{OURS}.jsonl").open("w", encoding="utf-8") as ours,
        (folder / "trl.jsonl").open("w", encoding="utf-8") as theirs,
    ):
        for row in law_rows.rows(count) if shared else law_rows.rows_with_own_lines(count):
            ours.write(json.dumps(row, ensure_ascii=False) + "\n")
            theirs.write(json.dumps(_for_trl(row), ensure_ascii=False) + "\n")
    return {name: round((folder / f"{name}.jsonl").stat().st_size / 10**6, 1) for name in (OURS, "trl")}


def _for_trl(row: dict[str, Any]) -> dict[str, Any]:
    """TRL's conversational prompt and completion: its documentation's way to a loss on the answer alone."""
    return {
        "prompt": [{"role": "user", "content": row["input"]}],
        "completion": [{"role": "assistant", "content": row["output"]}],
        "chat_template_kwargs": {"enable_thinking": False},
    }


# Preparation ----------------------------------------------------------------------------------------------------------


def ours(path: Path, model: Path) -> Any:
    """The table that the project hands its trainer."""
    from slimtune.data.chat_template import ChatTokenizer
    from slimtune.data.loading import load_conversations
    from slimtune.train import token_batches

    conversations = load_conversations([(str(path), 1.0)]).conversations
    return token_batches.table(list(ChatTokenizer(model).examples_of(conversations)))


def theirs(path: Path) -> Any:
    """The table that TRL begins with."""
    import datasets

    return datasets.load_dataset("json", data_files=str(path), split="train")


def trainer_of(
    model: Path, scratch: Path, *, packing: bool = True, processes: int | None = None
) -> Callable[[Any], Any]:
    """TRL's own trainer for either: Unsloth's leaves packing out on a CPU. For a table it prepares it as it does."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    config = SFTConfig(
        output_dir=str(scratch / "out"),
        max_length=LENGTH if packing else None,
        packing=packing,
        packing_strategy="bfd",
        dataset_num_proc=processes,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    return lambda rows: SFTTrainer(model=loaded, args=config, processing_class=tokenizer, train_dataset=rows)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Seconds from the file to the trainer's packed rows, memory, and a hash of what came out."""
    build = trainer_of(folder / "model", folder / "scratch", processes=2 if name == THEIRS[1] else None)
    before = _usage()
    began = time.perf_counter()
    table = ours(folder / f"{OURS}.jsonl", folder / "model") if name == OURS else theirs(folder / "trl.jsonl")
    read = time.perf_counter()
    packed = build(table).train_dataset
    seconds = time.perf_counter() - began
    after = _usage()
    found = documents(packed)
    tokens = sum(len(ids) for ids, _ in found) // 4
    return {
        "seconds": round(seconds, 2),
        "seconds_before_the_trainer": round(read - began, 2),
        "cpu_seconds": round(after["cpu_seconds"] - before["cpu_seconds"], 2),
        "before_mib": before["peak_mib"],
        "peak_mib": after["peak_mib"],
        "peak_mib_of_a_worker": after["peak_mib_of_a_worker"],
        "examples": len(found),
        "tokens": tokens,
        "packed_rows": len(packed),
        "fill": round(tokens / (len(packed) * LENGTH), 4),
        "examples_sha256": digest(found if name == OURS else map(without_line_break, found)),
        "machine": _machine(),
    }


def _usage() -> dict[str, Any]:
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "cpu_seconds": own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime,
        "peak_mib": round(own.ru_maxrss / 1024),
        "peak_mib_of_a_worker": round(workers.ru_maxrss / 1024),
    }


# Comparison -----------------------------------------------------------------------------------------------------------


def compare(folder: Path, count: int) -> dict[str, Any]:
    """The first rows, prepared by both: how many examples differ, the first that does, and how many packed rows."""
    few = {}
    for name in (OURS, "trl"):
        few[name] = folder / f"{name}-few.jsonl"
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
            few[name].write_text("".join(itertools.islice(file, count)), encoding="utf-8")
    table = ours(few[OURS], folder / "model")
    unpacked = trainer_of(folder / "model", folder / "scratch", packing=False)(theirs(few["trl"])).train_dataset
    mine = documents(table)
    other = [without_line_break(one) for one in documents(unpacked)]
    differing = [row for row, (one, two) in enumerate(itertools.zip_longest(mine, other), start=1) if one != two]

    # TRL's examples are a token longer each, and fill rows otherwise; without it they must give the same rows.
    pack = trainer_of(folder / "model", folder / "scratch")
    rows = [pack(one).train_dataset[:] for one in (table, as_table(other))]
    return {
        "rows": len(mine),
        "differing": len(differing),
        "first": differing[0] if differing else None,
        "packed_rows": len(rows[0]["input_ids"]),
        "packed_differing": sum(
            rows[0][column] != rows[1][column] for column in ("input_ids", "labels", "seq_lengths")
        ),
    }


def documents(table: Any) -> list[Document]:
    """The examples of a prepared table, packed or not, in its order."""
    return list(_documents(table))


def _documents(table: Any) -> Iterator[Document]:
    packed = "seq_lengths" in table.column_names
    for row in table.select_columns(["input_ids", "labels", *(["seq_lengths"] if packed else [])]):
        start = 0
        for length in row["seq_lengths"] if packed else [len(row["input_ids"])]:
            end = start + length
            yield array("i", row["input_ids"][start:end]).tobytes(), array("i", row["labels"][start:end]).tobytes()
            start = end


def without_line_break(document: Document) -> Document:
    """One of TRL's examples without its last token. Raises ValueError where that one carries no label."""
    ids, labels = document
    if ids[-4:] != labels[-4:]:
        raise ValueError("an example of TRL that does not end with a labelled token")
    return ids[:-4], labels[:-4]


def as_table(examples: Sequence[Document]) -> Any:
    """A table as the trainer reads it."""
    import datasets

    columns = [[list(array("i", one[side])) for one in examples] for side in (0, 1)]
    return datasets.Dataset.from_dict({"input_ids": columns[0], "labels": columns[1]})


def digest(examples: Any) -> str:
    """SHA-256 over all examples' ids and labels, whatever their order: packing sorts them by length."""
    hashes = sorted(hashlib.sha256(ids + labels).digest() for ids, labels in examples)
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def _machine() -> dict[str, Any]:
    from slimtune.core import versions
    from slimtune.models import hardware

    found = hardware.detect()
    return {
        "name": found.name,
        "cores": found.cores,
        "python": platform.python_version(),
        "versions": versions.installed(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
