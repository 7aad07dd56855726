"""The stages of a run, one function each. pipeline.py says when each happens."""

import contextlib
import dataclasses
import hashlib
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimtune.core import console as consoles
from slimtune.core import memory, output_folders, run_record, versions
from slimtune.core.console import Console
from slimtune.core.errors import Gathered, SlimtuneError
from slimtune.core.files import existing, failure_to_write, writing
from slimtune.core.redaction import redact
from slimtune.core.run_folder import as_dict, as_list
from slimtune.core.run_record import RunRecord
from slimtune.core.streams import OutputLost, losing_output
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation
from slimtune.export import folders as exports
from slimtune.export.gguf import gguf
from slimtune.export.model_folder import TOKENIZER_FILES
from slimtune.models import files as base_model
from slimtune.recipe import loading as recipes
from slimtune.run import experiment_log, report, resume
from slimtune.run.prepare import Prepared, export_request
from slimtune.train.safeguards import checkpoints

_OF_AN_ADAPTER = (*TOKENIZER_FILES, "adapter_config.json", "adapter_model.safetensors", "README.md")


def require_room(prepared: Prepared, *, resumed: bool) -> None:
    """Raise SlimtuneError where the disk cannot hold what the run will write, rather than after hours of training.

    resumed: its checkpoints are there, and make room for the next ones.
    """
    recipe, plan = prepared.recipe, prepared.plan
    needed: dict[Path, int] = {Path(recipe.run.output_dir): 0}
    if not resumed:
        lora = prepared.shape.lora_parameters(plan.lora_rank, plan.lora_targets)
        # One more than are kept, while it is written, and the adapter, which is smaller than a checkpoint.
        written = min(plan.save_total_limit, math.ceil(plan.total_steps / plan.save_steps)) + 2
        needed[Path(recipe.run.output_dir)] += written * checkpoints.most_bytes(lora, 4 * lora)
    if recipe.export is not None:
        merges = 2 if recipe.export.merge_base == "auto" else 1
        parameters = prepared.shape.total_parameters
        ggufs = gguf.export_bytes(parameters, recipe.export.gguf, 0)
        needed[Path(recipe.run.output_dir)] += ggufs
        merged = Path(recipe.export.merged or recipe.run.output_dir)
        needed[merged] = needed.get(merged, 0) + gguf.export_bytes(parameters, [], merges)
    by_disk: dict[int, list[Path]] = {}
    for folder in needed:
        by_disk.setdefault(existing(folder).stat().st_dev, []).append(folder)
    found = Gathered()
    for folders in by_disk.values():
        with found:
            total = sum(needed[folder] for folder in folders)
            base_model.require_disk_space(folders[0], total, "the run")
    found.require_none()


def fetch_twin(prepared: Prepared) -> None:
    """Download the 16-bit weights that the export merges into. Raises SlimtuneError where they cannot be had."""
    request = export_request(prepared.recipe, prepared.folder, prepared.tokenizer)
    if request is not None and request.wanted.merge_base == "16bit" and request.needs_twin:
        base_model.fetch(request.twin())


def open_record(prepared: Prepared, tokenizer: ChatTokenizer, sources: Mapping[str, str] | None = None) -> RunRecord:
    """Create the run's folder and record everything that is known so far. sources: as for `pipeline.run`."""
    recipe = prepared.recipe
    text = recipes.dump(recipe)
    return run_record.open_run(
        Path(recipe.run.output_dir),
        recipe.name,
        recipe=text,
        plan=prepared.plan.as_json(),
        command=sys.argv,
        hashes={
            "recipe": hashlib.sha256(text.encode()).hexdigest(),
            "chat_template": hashlib.sha256(tokenizer.template.encode()).hexdigest(),
            "data": prepared.data_hashes,
        },
        meter=meter(prepared),
        versions=versions.installed(),
        hardware=dataclasses.asdict(prepared.hardware),
        data_splits=list(prepared.data_splits),
        **({"recipe_sources": dict(sources)} if sources is not None else {}),
    )


def meter(prepared: Prepared) -> memory.Meter:
    """Measures the run's memory, less what other programs held of the card before it."""
    return memory.Meter(used_before_bytes=prepared.hardware.used_bytes)


def go_on(record: RunRecord, console: Console) -> None:
    """Bring a run's folder back to its newest valid checkpoint. Say which one that is and which ones are broken.

    Raises SlimtuneError where the rest of the run would replace what somebody put into the folder.
    """
    folder = record.directory / "checkpoints"
    _require_own_adapter(record.directory / "adapter")
    exports.require_ours(record.directory / "export")
    for sentence in checkpoints.clear_leftovers(folder):
        record.event("leftover", sentence)
    for name, reason in checkpoints.strangers(folder).items():
        told = f"{name} is left as it is: {reason}"
        record.event("leftover", told)
        console.warn(told)
    found = checkpoints.newest_valid(folder)
    checkpoints.require_room(folder, found.step or 0)
    for name, reason in found.skipped:
        told = f"{name} is not used: {reason}"
        record.event("checkpoint_skipped", told)
        console.warn(told)
    changed = versions.differing(as_dict(record.manifest.get("versions")))
    if changed:
        told = f"Versions have changed since the run began: {changed}. The rest of the run may differ slightly."
        record.event("versions_changed", told)
        console.warn(told)
    resume.forget_after(record.directory / "metrics.jsonl", found.step or 0)
    # Everything after training is made again, and no adapter or merged model is written over another.
    output_folders.discard(record.directory / "adapter", _require_own_adapter)
    output_folders.discard(record.directory / "export", exports.require_ours)
    (record.directory / "export").mkdir()
    for name in ("tuned.jsonl", "verdict.json", "samples.jsonl", "golden.jsonl"):
        (record.directory / "eval" / name).unlink(missing_ok=True)
    record.update(status="running", finished=None, complete=False)
    told = f"Resumed after step {found.step}" if found.step else "Resumed from the beginning: no checkpoint exists yet"
    record.event("resumed", told, step=found.step)
    console.say(told)


def _require_own_adapter(folder: Path, option: str = "") -> None:
    """Raise SlimtuneError for an adapter folder into which somebody put a file. One of an earlier version has no marker."""
    if output_folders.is_marked(folder) or not (folder / "adapter_config.json").is_file():
        # One of ours, or what is no adapter at all.
        output_folders.require_ours(folder, option)
    else:
        others = [name for name in output_folders.names_in(folder) if name not in _OF_AN_ADAPTER]
        output_folders.refuse_foreign(folder, others, option)


def checkpoint(record: RunRecord) -> str | None:
    """The checkpoint to resume training from; None for a new run, or one that was stopped before its first."""
    found = checkpoints.newest_valid(record.directory / "checkpoints")
    return str(found.path) if found.path else None


@contextlib.contextmanager
def faults_of_the_disk(record: RunRecord) -> Iterator[None]:
    """Turn a folder that is gone and a file that cannot be written, by whichever library, into a SlimtuneError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        record.path()
        failure = failure_to_write(error)
        if failure is None or failure.errno is None or isinstance(error, SlimtuneError):
            raise
        with writing(record.directory):
            raise failure from error


def ended(record: RunRecord, error: BaseException, console: Console) -> None:
    """Record why a run ended early, render its report, and say how to resume it."""
    status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
    why = "stopped by a signal" if status == "interrupted" else str(error) or type(error).__name__
    if isinstance(error, OutputLost):
        why, console = str(error), consoles.stderr()
        if (
            error.closed
        ):  # of which the command line says nothing: most commands have then done what they were wanted for
            console.warn(f"the run has stopped, since {why}")
    command = resume.command(as_list(record.manifest.get("command")))
    lost: list[OutputLost] = []
    with losing_output(lost.append):
        try:
            record.event(status, redact(why), resume=command)
            record.close(status)
            report.write(record.path())
        except (OSError, SlimtuneError) as failure:  # a full disk, which may be the very reason
            console.warn(f"The record of the run is incomplete: {failure}")
        if record.directory.is_dir():
            console.say(f"Resume with: {command}")
    if lost:
        consoles.stderr().say(f"Resume with: {command}")


def examples_within(prepared: Prepared, record: RunRecord) -> tuple[list[Any], list[Any]]:
    """The training and the held-out examples that are not too long. The plan has refused more than the recipe allows."""
    limit, kept = prepared.request.longest_example, []
    for examples in (prepared.examples, prepared.held_out_examples):
        counts = prepared.method.lengths(examples).tokens
        left_out = [example.where for example, count in zip(examples, counts, strict=True) if count > limit]
        if left_out:
            message = f"{len(left_out)} examples are longer than {limit} tokens and are left out"
            record.event("overlong_left_out", message, rows=left_out)
        kept.append([example for example, count in zip(examples, counts, strict=True) if count <= limit])
    return kept[0], kept[1]


def data_facts(prepared: Prepared, train: Sequence[Any], held_out: Sequence[Any]) -> dict[str, Any]:
    """The manifest's facts about the data: examples, tokens, and how often each label is correct."""

    def facts(records: Sequence[Any], examples: Sequence[Any]) -> dict[str, Any]:
        counted = prepared.method.lengths(examples)
        return {
            "examples": len(records),
            "tokens": counted.total,
            "supervised_tokens": sum(counted.supervised),
            "label_distribution": _labels(map(prepared.method.as_conversation, records)),
        }

    return {
        "train": facts(prepared.train, train),
        "eval": facts(prepared.held_out, held_out),
        "test": {"examples": len(prepared.test), "label_distribution": _labels(prepared.test)},
    }


def _labels(conversations: Iterable[Conversation]) -> dict[str, int]:
    labels = (conversation.meta.get("correct") for conversation in conversations)
    return dict(sorted(Counter(label for label in labels if isinstance(label, str)).items()))


def compare_memory(measured: dict[str, int], prepared: Prepared, record: RunRecord) -> list[memory.Comparison]:
    """Record measured memory beside predicted memory. A difference of more than 5 % becomes an event."""
    plan = prepared.plan
    compared = memory.compare(plan.predicted, measured)
    differences = memory.sentences(compared)
    figures = {"predicted": plan.predicted, "measured": measured, "predicted_phases": plan.phases}
    record.update(memory={**figures, "differences": differences})
    for sentence in differences:
        record.event("memory_differs", sentence)
    return compared


def tell(record: RunRecord, console: Console) -> None:
    """Render the experiment log and the report. The manifest is marked complete only after this."""
    record.update(status="complete", finished=run_record.now())
    render(record.directory, console)


def render(run: Path, console: Console) -> None:
    """Write the experiment log and the report, but for one whose place holds somebody's own file, which is said."""
    for written in (experiment_log, report):
        try:
            written.require_own(run)
        except SlimtuneError as error:
            console.warn(str(error))
        else:
            written.write(run)


def where_everything_is(record: RunRecord) -> list[tuple[str, Path | str]]:
    """The paths of the results, and the commands that use them."""
    exported = record.manifest.get("export") or {}
    latest = record.directory.parent / "latest"
    pairs: list[tuple[str, Path | str]] = [("run", record.directory), ("report", latest / report.FILE_NAME)]
    pairs += [("GGUF", latest / "export" / name) for name in exported.get("gguf", [])]
    if exported.get("gguf"):
        pairs.append(("Ollama", f"ollama create {exported['ollama_name']} -f {latest / 'export' / 'Modelfile'}"))
        pairs.append(("and check it", f"slimtune ollama create {latest}"))
        pairs.append(("chat with it", f"slimtune chat {latest}"))
    return pairs
