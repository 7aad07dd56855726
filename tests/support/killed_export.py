"""Exports a run and kills itself at a step: python killed_export.py RUN STEP. Started by tests/test_proven_exports.py."""

import io
import os
import signal
import sys
from pathlib import Path

from slimtune.core.console import Console
from slimtune.export.gguf import gguf
from slimtune.export.merge import merge
from slimtune.export.proof import proof
from slimtune.run import shipping

RUN, STEP = Path(sys.argv[1]), sys.argv[2]


def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def after_three(tensors):
    for number, tensor in enumerate(tensors):
        if number == 3:
            die()
        yield tensor


write, run_script, rename = merge.write_safetensors, gguf.run_script, Path.rename


def write_in_part(path, entries, tensors, *more):
    write(path, entries, after_three(tensors), *more)


def die_after(script):
    def run(name, *arguments, **options):
        report = run_script(name, *arguments, **options)
        # The file is whole, and has its temporary name still.
        return die() if name == script else report

    return run


def die_before_the_last_rename(path, target):
    return die() if target == RUN.resolve() / "export" else rename(path, target)


match STEP:
    case "merge":
        merge.write_safetensors = write_in_part
    case "convert":
        gguf.run_script = die_after("run_converter.py")
    case "quantise":
        gguf.run_script = die_after("run_quantiser.py")
    case "prove":
        proof.prove = die
    case "publish":
        Path.rename = die_before_the_last_rename

shipping.export_again(RUN, Console(file=io.StringIO()), force=False, fresh=True, asked={"gguf": ["q4_k_m"]})
sys.exit("it was not killed")
