"""A run may be killed at any moment, again and again, and its newest checkpoint be damaged: it ends with the same bits.

A moment is every file that is opened for writing, renamed or removed below the run's folder, and before and after every
forward and backward pass, optimizer step, evaluation and answer (`Moments` in tests/support/forked_runs.py).
"""

import random
import shutil
import signal

import pytest
from support.short_run import differences

pytestmark = pytest.mark.fault

QUICK, DRAWS = 3, 36
MOST_KILLS = 3


def truncate(path, rng):
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def remove(path, rng):
    path.unlink()


def damage(checkpoints, rng):
    """Do one thing to one file of the newest checkpoint; says what, None where there is no checkpoint."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    if not found:
        return None
    path = rng.choice(sorted(path for path in found[-1].rglob("*") if path.is_file() and path.stat().st_size))
    how = rng.choice([truncate, flip, remove])
    how(path, rng)
    return f"{how.__name__} {path.parent.name}/{path.name}"


def tell(place, seed):
    """Kill the run of a place one to three times as the seed says, then let it end. Returns what was done."""
    rng = random.Random(seed)
    done, arguments = [], []
    # The first kill comes anywhere in the run; a resumed one has fewer moments and may reach its end.
    moments = [rng.randint(1, place.runs.moments) for _ in range(rng.randint(1, MOST_KILLS))]
    for moment in moments:
        code, text = place.do(*arguments, fault="kill_at", moment=moment, outputs=str(place.outputs))
        done.append(f"killed at moment {moment}" if code == -signal.SIGKILL else f"ended with {code} before {moment}")
        assert code in (0, -signal.SIGKILL), f"seed {seed}: {done}: {text}"
        begun = (place.outputs / "short").is_dir() and list((place.outputs / "short").glob("2*/manifest.json"))
        arguments = ["--resume", "auto"] if begun else []
        if begun and rng.random() < 1 / 3:
            done.append(damage(place.run() / "checkpoints", rng))
    code, text = place.do(*arguments)
    assert code == 0, f"seed {seed}: {done}: {text}"
    return [*done, *(event["message"] for event in place.events("resumed", "checkpoint_skipped", "leftover"))]


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= QUICK else []) for seed in range(DRAWS)]
)
def test_killed_at_any_moment_it_ends_with_the_same_bits(runs, seed):
    place = runs.place(str(seed))
    done = tell(place, seed)
    assert differences(place.run(), runs.undisturbed) == [], f"seed {seed}: {done}"
    shutil.rmtree(place.folder)
