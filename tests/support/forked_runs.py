"""Runs of the real command with a fault in them, a forked process each.

Importing Unsloth takes longer than a short run. So one process imports everything, makes the undisturbed run, and then
forks a child for each line of its standard input; tests/support/short_run.py is its other end. torch computes in one thread,
and a fork on a machine without a card then behaves like a fresh process.

    python forked_runs.py '["--recipe", …]' FOLDER      the undisturbed run first, its result and output in FOLDER
    {"arguments": ["--recipe", …], "fault": "kill_at", "values": {"moment": 7}, "output": FILE, "answers": FIFO}

Each answer is a line: the child's process id, then "stopped" or its exit code, negative for the signal that ended it.
"""

import errno
import gc
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from support.unprivileged import give_up_privileges

from slimtune.models import backend  # noqa: F401  before torch: Unsloth patches what follows

import torch  # isort: skip
from transformers import TrainerCallback  # isort: skip

from slimtune.cli import app as cli
from slimtune.core import run_record
from slimtune.evaluate.targets.local_target import LocalTarget
from slimtune.models import load as models
from slimtune.train import trainer as trainers
from slimtune.train.safeguards import checkpoints, saving

AT_MOST_SECONDS = 240
"""A child that hangs ends with SIGALRM."""


def main():
    torch.set_num_threads(1)
    arguments, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    answers, standard = os.dup(1), (os.dup(1), os.dup(2))
    moments = Moments(folder / "outputs", None)
    code = command(arguments, folder / "undisturbed.txt")
    moments.watching = False
    for number, descriptor in enumerate(standard, start=1):
        os.dup2(descriptor, number)
    # The children then neither visit nor copy what is here already.
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(answers, json.dumps({"code": code, "moments": moments.seen}).encode() + b"\n")
    for line in sys.stdin:
        if os.fork() == 0:
            watch(json.loads(line))
            os._exit(0)


def watch(request):
    """Start the run in a child and tell how it fares."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Path(request["answers"]).open("w", encoding="utf-8", buffering=1) as answers:
        child = os.fork()
        if child == 0:
            answers.close()
            signal.alarm(AT_MOST_SECONDS)
            FAULTS[request["fault"]](**request["values"])
            os._exit(command(request["arguments"], Path(request["output"])))
        print(child, file=answers)
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            print("stopped", file=answers)
        print(os.waitstatus_to_exitcode(status), file=answers)


def command(arguments, output):
    """`python train_unsloth.py ARGUMENTS`, with what it prints in a file; returns the exit code."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["train_unsloth.py", *arguments]
    try:
        cli.train_unsloth(arguments)
    except SystemExit as ended:
        return ended.code or 0
    except BaseException:  # noqa: BLE001  a traceback and exit code 1, as at the end of any program
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def with_trainer(change):
    """Call `change(trainer)` once the trainer is built, before anything guards it."""
    build = trainers.build

    def built(*arguments, **more):
        trainer = build(*arguments, **more)
        change(trainer)
        return trainer

    trainers.build = built


def before(module, name, call):
    """Call `call(*arguments)` before a function of a module or a method of an object."""
    original = getattr(module, name)

    def called(*arguments, **more):
        call(*arguments, **more)
        return original(*arguments, **more)

    setattr(module, name, called)


def nothing():
    pass


def workers():
    """Unsloth's trainer has two workers encode the data, as it does for larger files on a machine with more memory."""
    os.environ["UNSLOTH_DATASET_NUM_PROC"] = "2"


def kill_while_writing(step):
    """All files of a checkpoint are written, but not yet sealed."""
    before(saving, "seal", lambda folder, at: kill() if at == step else None)


def kill_after_training():
    """Every step is taken and saved, and an adapter of an earlier try may be there."""
    save = models.save_adapter

    def save_and_die(*arguments, **more):
        save(*arguments, **more)
        kill()

    models.save_adapter = save_and_die


def send(number, step, times=1):
    """Signals in the middle of a step, as from a keyboard or a scheduler."""

    sent = []

    def at_step(trainer):
        def micro_batch(model, *arguments, **more):
            if model.training and trainer.state.global_step + 1 == step:
                while len(sent) < times:
                    sent.append(number)
                    os.kill(os.getpid(), number)

        before(trainer, "compute_loss", micro_batch)

    with_trainer(at_step)


def no_space(step):
    """The disk is found full when a checkpoint is flushed."""

    def full(path):
        if f"checkpoint-{step}" in path.parts and path.name == "optimizer.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    before(checkpoints, "sync_path", full)


def at_step(step, call):
    """In the middle of a step, once."""
    done = []

    def change(trainer):
        def micro_batch(model, *arguments, **more):
            if model.training and trainer.state.global_step + 1 == step and not done:
                done.append(True)
                call()

        before(trainer, "compute_loss", micro_batch)

    with_trainer(change)


def folder_gone(step, outputs):
    """Somebody removes the run's folder, and everything else below the outputs."""
    at_step(step, lambda: shutil.rmtree(outputs))


def output_closed(step):
    """Nobody reads what the run prints any more."""

    def close():
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)

    at_step(step, close)


def output_full(step):
    """What the run prints goes to a disk that is full."""
    at_step(step, lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1))


def terminal_closed(step):
    """A terminal that is closed sends SIGHUP, and nothing can be written to it any more."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests have inherited that it is ignored

    def close():
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
        os.kill(os.getpid(), signal.SIGHUP)

    at_step(step, close)


def no_space_for(name):
    """The disk is full when a file of this name is opened for writing, from the second time on."""
    opened = []

    def full(path, mode="r", *arguments, **more):
        if name in path.name and mode[0] in "wax":
            opened.append(path)
            if len(opened) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    before(Path, "open", full)


def nobody_asks_for_space():
    """Every disk is said to have room, as one has that another program fills afterwards."""
    shutil.disk_usage = lambda folder: shutil._ntuple_diskusage(2**40, 0, 2**40)


def nan_loss(step):
    """The loss of a step's last micro-batch is NaN."""

    def change(trainer):
        compute_loss = trainer.compute_loss

        def broken(*arguments, **more):
            loss = compute_loss(*arguments, **more)
            last = trainer.accelerator.sync_gradients and trainer.model.training
            return loss * float("nan") if last and trainer.state.global_step + 1 == step else loss

        trainer.compute_loss = broken

    with_trainer(change)


def short_of_memory(training, evaluation):
    """At most so many tokens at once: training is [[first step, tokens], …]; evaluation may be None. In float32."""
    os.environ["UNSLOTH_CPU_BF16"] = "0"

    def change(trainer):
        compute_loss = trainer.compute_loss
        for module in trainer.model.float().modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = torch.float32  # of bitsandbytes' 4-bit layers

        def limited(model, inputs, *arguments, **more):
            limits = [tokens for step, tokens in training if trainer.state.global_step + 1 >= step]
            limit = (limits or [None])[-1] if model.training else evaluation
            tokens = inputs["input_ids"].numel()
            if limit is not None and tokens > limit:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {tokens} GiB.")
            return compute_loss(model, inputs, *arguments, **more)

        trainer.compute_loss = limited

    with_trainer(change)


def kill_at(moment, outputs):
    """Kill the run at its `moment`-th moment; one that has fewer comes to its end."""
    Moments(Path(outputs), moment)


class Moments:
    """Counts what a run does: each file below a folder that is opened for writing, renamed or removed, each micro-batch,
    optimizer step and evaluation batch before and after. At the moment `fatal` it kills the process."""

    def __init__(self, folder, fatal):
        self.folder, self.fatal = str(folder), fatal
        self.seen, self.watching = 0, True
        sys.addaudithook(self.audit)
        with_trainer(self.put_on)
        before(LocalTarget, "score", self.moment)
        before(models, "save_adapter", self.moment)
        before(run_record.RunRecord, "event", self.moment)

    def moment(self, *arguments, **more):
        if self.watching:
            self.seen += 1
            if self.seen == self.fatal:
                kill()

    def audit(self, event, arguments):
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(path, str) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            path, writes = os.fspath(arguments[0]), True
        else:
            return
        # shutil.rmtree removes names relative to an open folder.
        if writes and (str(path).startswith(self.folder) or (event == "os.remove" and not str(path).startswith("/"))):
            self.moment()

    def put_on(self, trainer):
        moment = self.moment

        class Steps(TrainerCallback):
            def on_pre_optimizer_step(self, *arguments, **more):
                moment()

            on_optimizer_step = on_step_end = on_epoch_end = on_train_end = on_pre_optimizer_step

        trainer.add_callback(Steps())
        before(trainer, "compute_loss", moment)
        before(trainer.accelerator, "backward", moment)
        before(trainer, "_save_optimizer_and_scheduler", moment)
        before(trainer, "_save_rng_state", moment)


FAULTS = {
    fault.__name__: fault
    for fault in (
        nothing,
        workers,
        kill_while_writing,
        kill_after_training,
        send,
        no_space,
        no_space_for,
        nobody_asks_for_space,
        folder_gone,
        output_closed,
        output_full,
        terminal_closed,
        nan_loss,
        short_of_memory,
        kill_at,
        give_up_privileges,
    )
}

if __name__ == "__main__":
    main()
