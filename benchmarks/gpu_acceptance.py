"""Proof of the memory and speed promises on a CUDA card: predicted and measured peak, tokens/s, packing, every knob.

    python benchmarks/gpu_acceptance.py                        # about 8 minutes; what `make gpu` runs
    python benchmarks/gpu_acceptance.py --only qwen3-8b        # one case
    python benchmarks/gpu_acceptance.py --toy                  # tiny models on a CPU, to try the script itself

Needs no network: models are made of random weights, data of random words. Each case is a process of its own. The JSON is
written after every case; no case starts that is not expected to finish in time. Exit code 1 where a case failed, 2 where
the machine or the arguments are not what it needs.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # instead of this folder, so that both `benchmarks` and `slimtune` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

_PACKAGES = ("torch", "transformers", "unsloth", "unsloth_zoo", "trl", "peft", "bitsandbytes", "datasets")


def main(arguments: Sequence[str] | None = None) -> int:
    from benchmarks import acceptance_cases, acceptance_run
    from slimtune.core.errors import SlimtuneError

    options = _options(arguments)
    cases = acceptance_cases.toy() if options.toy else acceptance_cases.on_a_card()
    unknown = sorted(set(options.only) - {case.name for case in cases})
    if unknown:
        return _refuse(f"no case called {', '.join(unknown)}; there are: {', '.join(case.name for case in cases)}")
    if options.toy and options.write_calibration:
        return _refuse("--write-calibration: a toy run on a CPU says nothing about a card")
    reason = None if options.toy else missing(options.vram_gb)
    if reason:
        return _refuse(
            f"The GPU acceptance needs a CUDA card sold with {options.vram_gb:g} GB or more (--vram-gb), its driver with "
            f"nvidia-smi, torch built for CUDA, unsloth, unsloth_zoo, trl, peft and bitsandbytes; see "
            f"benchmarks/README.md.\nHere: {reason}.\nWithout a card, --toy tries the script itself on a CPU."
        )

    chosen = [case for case in cases if not options.only or case.name in options.only]
    with tempfile.TemporaryDirectory(prefix="slimtune-acceptance-") as temporary:
        try:
            return acceptance_run.run(
                chosen,
                toy=options.toy,
                minutes=options.minutes,
                vram_gb=options.vram_gb,
                models=Path(options.models or temporary),
                work=Path(temporary),
                output=options.output,
                write_calibration=options.write_calibration,
            )
        except SlimtuneError as error:
            return _refuse(str(error))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_acceptance.py", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--toy", action="store_true", help="tiny models on a CPU: tries the script, proves nothing")
    add("--minutes", type=float, default=8, help="no case starts that would end later (default 8)")
    add("--output", type=Path, help="the JSON (default: benchmarks/results/gpu-CARD-TIME.json)")
    add("--write-calibration", action="store_true", help="write what was measured for the plans to use")
    add("--vram-gb", type=float, default=10, help="the card that is stood for, as sold (default 10)")
    add("--only", nargs="+", default=[], metavar="NAME", help="only these cases")
    add("--models", help="folder where the made models are kept for another time (default: not kept)")
    return parser.parse_args(arguments)


def _refuse(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 2


def missing(vram_gb: float) -> str | None:
    """Why this machine cannot run the acceptance, in words; None where it can. Imports nothing heavy."""
    from slimtune.core.units import GIB
    from slimtune.models import hardware
    from slimtune.plan.memory import vram

    found = hardware.detect()
    if found.kind != "cuda":
        return "no CUDA card that nvidia-smi knows of and that this process may use"
    if found.memory_bytes < vram.visible_bytes(vram_gb):
        return f"{found.name} has {found.memory_bytes / GIB:.1f} GiB"
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if importlib.metadata.version("torch").endswith("+cpu"):
        return "torch is a build without CUDA"
    return None


if __name__ == "__main__":
    sys.exit(main())
