"""TRL, Unsloth and Slimtune on the same machine, the same examples and the same memory: examples a second, peak, context.

    python benchmarks/peers.py                  # a CUDA machine: Qwen3-8B in NF4 with random weights under a 10 GB cap
    python benchmarks/peers.py --toy            # a CPU: the same code on a toy model, to know that it works

Every contender runs in a process of its own. The results go to benchmarks/results/ as JSON, after every process; the
table comes last. Exit code 1 where a contender failed, 2 where the machine has no card.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started as a script
    sys.path.insert(0, str(ROOT))


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.toy:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the contenders inherit it

    from benchmarks import peers_run
    from slimtune.models import hardware

    machine = hardware.detect()
    if not options.toy and machine.kind != "cuda":
        sys.stderr.write(
            "benchmarks/peers.py needs a CUDA card of Ampere or newer, with as much memory as --vram-gb says or more, "
            "and nvidia-smi.\nWithout one:  python benchmarks/peers.py --toy\n"
        )
        return 2
    return peers_run.compare(options, machine)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    from benchmarks.peers_contender import CONTENDERS
    from benchmarks.peers_data import SETS
    from benchmarks.peers_run import MODEL

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--toy", action="store_true", help="a tiny model on the CPU")
    add("--minutes", type=float, default=25.0, help="for everything together")
    add("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    add("--data", nargs="*", choices=SETS, default=["direct", "cot"], help="sets of lengths; none: only the context")
    add("--examples", type=int, default=None, help="of each set, at most (default: all)")
    add("--epochs", type=int, default=2)
    add("--no-context", action="store_true", help="do not look for the longest context")
    add("--vram-gb", type=float, default=10.0, help="the card that is stood for, as sold")
    add("--trl-micro-batch", type=int, default=8, help="TRL's largest (its documentation has 1, 2 and, by default, 8)")
    add("--model", default=None, help=f"folder of a model in NF4 (default: {MODEL} with random weights)")
    add("--work", default=None, help="folder to keep models, logs and runs in (default: a temporary one)")
    add("--output", default=None, help="JSON file (default: benchmarks/results/peers-MACHINE-DATE.json)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
