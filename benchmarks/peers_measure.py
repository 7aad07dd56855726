"""How a contender is measured: its batches, the speed of its steps, its memory, and the longest context that trains.

Imported after the contender's own libraries: Unsloth has to come before Transformers.
"""

import functools
import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks import peers_data, what_ran
from benchmarks.peers_job import Job

IGNORED = -100
CONTEXT_STEP = 256
_FIRST_CONTEXT = 4 * CONTEXT_STEP

Document = tuple[list[int], list[int]]


class Meter(TrainerCallback):
    """Times the optimizer steps of a trainer and counts what passes through them.

    A step lasts from the end of the one before, so loading and collating belong to it; saving and evaluating do not.
    """

    def __init__(self, job: Job):
        self.job = job
        self.steps: list[dict[str, float]] = []
        self.stopped_early = False
        self.peaks: dict[str, int] = {}
        self._batches: list[dict[str, Any]] = []
        self._mark = 0.0

    def attach(self, trainer: Any) -> None:
        """Watch a built trainer: its own training step is called as before."""
        self._keep_peaks()
        trainer.add_callback(self)
        step = trainer.training_step

        def counted(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            self._batches.append(_size(inputs))
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = counted

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = _now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = _now()
        sizes = {key: int(sum(int(batch[key]) for batch in self._batches)) for key in self._batches[0]}
        self.steps.append({"seconds": now - self._mark, **sizes})
        self._batches.clear()
        self._keep_peaks()
        self._mark = _now()
        if self.job.out_of_time() and len(self.steps) > self.job.skip_steps:
            self.stopped_early = state.global_step < state.max_steps
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = _now()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = _now()

    def as_json(self) -> dict[str, Any]:
        """Totals, and the speed of the steps after the first ones (of all of them where there are no more)."""
        skipped = self.job.skip_steps if len(self.steps) > self.job.skip_steps else 0
        steady, seen = _totals(self.steps[skipped:]), _totals(self.steps)
        seconds = steady["seconds"]
        return {
            "examples_per_second": steady["examples"] / seconds,
            "tokens_per_second": steady["tokens"] / seconds,
            "supervised_tokens_per_second": steady["supervised_tokens"] / seconds,
            "steps_left_out": skipped,
            "steady": steady,
            "seen": seen,
            "step_seconds": [round(step["seconds"], 4) for step in self.steps],
            "stopped_early": self.stopped_early,
            "memory": self.peaks,
        }

    def _keep_peaks(self) -> None:
        """A contender may reset the counters of its peaks, as Slimtune does for every phase."""
        for name, size in memory(self.job).items():
            self.peaks[name] = max(size, self.peaks.get(name, 0))


def _totals(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    return {"steps": len(steps)} | {key: sum(step[key] for step in steps) for key in steps[0]}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()


def _size(batch: dict[str, Any]) -> dict[str, Any]:
    """Examples, tokens without padding, and labelled tokens of a collated batch; tensors are read later."""
    labels = batch["labels"]
    if batch.get("position_ids") is not None:
        examples, tokens = (batch["position_ids"] == 0).sum(), labels.numel()
    else:
        examples, tokens = labels.shape[0], batch["attention_mask"].sum()
    return {"examples": examples, "tokens": tokens, "supervised_tokens": (labels != IGNORED).sum()}


def documents(batch: dict[str, Any]) -> Iterator[Document]:
    """The single examples of a collated batch as (input ids, labels), whether padded or laid end to end.

    Laid end to end, position 0 begins an example.
    """
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    if batch.get("position_ids") is not None:
        for row_ids, row_labels, positions in zip(ids, labels, batch["position_ids"].tolist(), strict=True):
            starts = [index for index, position in enumerate(positions) if position == 0]
            for start, end in zip(starts, [*starts[1:], len(positions)], strict=True):
                yield row_ids[start:end], row_labels[start:end]
        return
    for row_ids, row_labels, mask in zip(ids, labels, batch["attention_mask"].tolist(), strict=True):
        kept = [index for index, seen in enumerate(mask) if seen]
        yield [row_ids[index] for index in kept], [row_labels[index] for index in kept]


def one_epoch(trainer: Any) -> dict[str, Any]:
    """What the trainer's own data loader feeds in an epoch: counts, and a digest of every example with its labels.

    The random state stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        found = [document for batch in trainer.get_train_dataloader() for document in documents(batch)]
    # The loader was only looked at: accelerate must not count it among those of the run.
    trainer.accelerator._dataloaders.clear()
    return {
        "examples": len(found),
        "tokens": sum(len(ids) for ids, _ in found),
        "supervised_tokens": sum(label != IGNORED for _, labels in found for label in labels),
        "digest": peers_data.digest(found),
    }


def train(trainer: Any, job: Job) -> dict[str, Any]:
    """Train to the end (or until time is up) and say what was measured."""
    epoch = one_epoch(trainer)
    meter = Meter(job)
    meter.attach(trainer)
    before = what_ran.loss_counters()
    trainer.train()
    loss = what_ran.loss_path(before, what_ran.loss_counters())
    return {**meter.as_json(), "epoch": epoch, "trainer": settings(trainer), "loss": loss}


def settings(trainer: Any) -> dict[str, Any]:
    """What the trainer really does, by the names of its arguments."""
    arguments = trainer.args
    return {
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "packing": bool(arguments.packing),
        "padding_free": bool(getattr(trainer.data_collator, "padding_free", False)),
        "max_length": arguments.max_length,
        "num_train_epochs": arguments.num_train_epochs,
        "optim": str(getattr(arguments.optim, "value", arguments.optim)),
        "bf16": bool(arguments.bf16),
        "gradient_checkpointing": bool(arguments.gradient_checkpointing),
        "seed": arguments.seed,
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }


def memory(job: Job) -> dict[str, int]:
    """Bytes: the card's peaks so far and what this process holds beside them, or its resident peak on a CPU."""
    if not torch.cuda.is_available():
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): KiB on Linux, bytes on macOS
        return {"peak_resident_set": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    free, total = torch.cuda.mem_get_info()
    return {
        "peak_allocated": torch.cuda.max_memory_allocated(),
        "peak_reserved": torch.cuda.max_memory_reserved(),
        # Context, kernels, and what libraries take without PyTorch's allocator.
        "context": max(0, total - free - torch.cuda.memory_reserved() - job.used_before_bytes),
    }


def attention() -> str | dict[str, bool]:
    """The attention kernels: those that Unsloth found for batches laid end to end (best first), else PyTorch's own."""
    dispatch = sys.modules.get("unsloth.utils.attention_dispatch")
    if dispatch is None:
        return "sdpa"
    return {"flash_attention": dispatch.HAS_FLASH_ATTENTION, "xformers": dispatch.HAS_XFORMERS}


def fits(attempt: Callable[[], None]) -> bool:
    """Whether it runs without running out of memory; what it held is given back either way."""
    try:
        attempt()
        fitted = True
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise
        fitted = False
    # Only here is the error gone, and with it the frames that still held tensors.
    free_memory()
    return fitted


def free_memory() -> None:
    """Give back what a finished or failed attempt held."""
    gc.collect()
    if not torch.cuda.is_available():
        return
    # A step that ended in the middle leaves Unsloth's staging buffers large and its layer count wrong.
    checkpointing = sys.modules.get("unsloth_zoo.gradient_checkpointing")
    if getattr(checkpointing, "GPU_BUFFERS", None) is not None:
        checkpointing.reset_unsloth_gradient_checkpointing_buffers()  # type: ignore[union-attr]
    gc.collect()
    torch.cuda.empty_cache()


def first_that_fits(build: Callable[[int], Any], micro_batches: Sequence[int], job: Job) -> dict[str, Any]:
    """Train with the first of these micro-batch sizes that the memory allows.

    build: micro-batch -> trainer; called again for a smaller one. Raises torch.OutOfMemoryError where none fits.
    """
    too_large: list[int] = []
    measured: dict[str, Any] = {}

    def attempt(micro_batch: int) -> None:
        measured.update(train(build(micro_batch), job))

    for micro_batch in micro_batches:
        if fits(functools.partial(attempt, micro_batch)):
            return {**measured, "micro_batches_that_did_not_fit": too_large}
        too_large.append(micro_batch)
    raise torch.OutOfMemoryError(f"no micro-batch of {', '.join(map(str, micro_batches))} examples fits")


def longest_context(
    trains: Callable[[int], None], job: Job, *, first: int = _FIRST_CONTEXT, most: int | None = None
) -> dict[str, Any]:
    """The longest single example that trains one step, to `CONTEXT_STEP` tokens; on a CPU, a few lengths to see it work.

    trains: one step with one example of that many tokens; runs out of memory where it does not fit.
    first, most: where the search begins and ends.
    """
    tried: dict[int, dict[str, Any]] = {}

    def attempt(tokens: int) -> bool:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        trained = fits(functools.partial(trains, tokens))
        tried[tokens] = {"trained": trained, **memory(job)}
        return trained

    if not job.cuda:
        for tokens in job.toy_lengths:
            attempt(tokens)
        note = "not searched: a CPU has no memory cap, so only these lengths were tried"
        return {"tokens": None, "finished": False, "note": note, "tried": tried}
    upper = job.context_most if most is None else most
    tokens, finished = longest(attempt, upper, first=first, out_of_time=job.out_of_time)
    if not finished and not tokens:
        return {"tokens": None, "finished": False, "note": "time was up before any length trained", "tried": tried}
    note = "" if finished else "time was up: at least this long"
    return {"tokens": tokens, "finished": finished, "note": note, "tried": tried}


def longest(
    trains: Callable[[int], bool],
    most: int,
    *,
    step: int = CONTEXT_STEP,
    first: int = _FIRST_CONTEXT,
    out_of_time: Callable[[], bool] = lambda: False,
) -> tuple[int, bool]:
    """The largest multiple of `step` up to `most` that trains, doubling from `first` and then bisecting.

    Returns 0 where none does, and whether the search came to its end: where time is up, the length is a lower bound.
    """
    low, high = 0, most // step + 1  # in steps: `low` trains, `high` does not or is not asked for
    candidate = min(max(1, first // step), high - 1)
    doubling = True
    while high - low > 1:
        if out_of_time():
            return low * step, False
        if trains(candidate * step):
            low = candidate
        else:
            high, doubling = candidate, False
        candidate = min(2 * low, high - 1) if doubling else (low + high) // 2
    return low * step, True
