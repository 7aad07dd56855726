"""Peaks by phase, on a real process and on a card that is none; prediction beside measurement; the collector paused."""

import gc
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from slimtune.core import memory
from slimtune.core.errors import SlimtuneError

GIB, MIB = 2**30, 2**20
CLEARS = memory._CLEAR_REFS.exists()


class FakeCard:
    """`torch.cuda`'s memory functions on a counter: allocations of a few bytes, reserved in blocks of 100."""

    def __init__(self, total=10_000):
        self.total, self.allocated, self.outside = total, 0, 0
        self.peak = self.peak_reserved = 0
        self.share = None

    def take(self, size):
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.memory_reserved())

    def memory_reserved(self):
        return -(-self.allocated // 100) * 100

    def reset_peak_memory_stats(self):
        self.peak, self.peak_reserved = self.allocated, self.memory_reserved()

    def max_memory_allocated(self):
        return self.peak

    def max_memory_reserved(self):
        return self.peak_reserved

    def mem_get_info(self):
        return self.total - self.memory_reserved() - self.outside, self.total

    def set_per_process_memory_fraction(self, share):
        self.share = share


def card_figures(meter, phase):
    return tuple(meter.phases[phase][name] for name in ("peak_allocated", "peak_reserved", "context"))


def test_each_phase_has_its_own_peak():
    card = FakeCard()
    card.outside = 30 + 7  # 30 by others, 7 of our context
    meter = memory.Meter(used_before_bytes=30, card=lambda: card)
    with meter.phase("load"):
        card.take(950)
        card.take(-700)
    with meter.phase("train"):
        card.take(110)
        card.outside += 3
    assert card_figures(meter, "load") == (950, 1000, 7)
    assert card_figures(meter, "train") == (360, 400, 10)


def test_an_outer_phase_sees_the_peak_before_within_and_after_an_inner_one():
    card = FakeCard()
    meter = memory.Meter(card=lambda: card)
    peaks = {}
    for where in ("before", "within", "after"):
        with meter.phase(where + "/outer"):
            for moment in ("before", "within", "after"):
                if moment == "within":
                    meter.begin(where + "/inner")
                size = 500 if moment == where else 200
                card.take(size)
                card.take(-size)
                if moment == "within":
                    meter.end(where + "/inner")
        peaks[where] = [card_figures(meter, f"{where}/{phase}")[0] for phase in ("outer", "inner")]
    assert peaks == {"before": [500, 200], "within": [500, 500], "after": [500, 200]}


def test_phases_left_open_end_with_the_one_around_them():
    card = FakeCard()
    meter = memory.Meter(card=lambda: card)
    with pytest.raises(RuntimeError, match="out of memory"), meter.phase("train"):
        meter.begin("first_step")
        card.take(300)
        raise RuntimeError("out of memory")
    assert card_figures(meter, "first_step")[0] == card_figures(meter, "train")[0] == 300
    # The next attempt; the larger of both stays.
    card.take(-300)
    with meter.phase("train"), meter.phase("first_step"):
        card.take(100)
    assert card_figures(meter, "first_step")[0] == 300
    with pytest.raises(ValueError, match="'train' has not begun"):
        meter.end("train")
    with meter.phase("train"), pytest.raises(ValueError, match="'train' has begun already"):
        meter.begin("train")


def test_a_card_that_appears_within_a_phase():
    found = []
    meter = memory.Meter(card=lambda: found[0] if found else None)
    with meter.phase("prepare"):
        pass
    with meter.phase("load"):
        found.append(FakeCard())
        found[0].take(50)
    assert "peak_allocated" not in meter.phases["prepare"]
    assert card_figures(meter, "load") == (50, 100, 0)


def test_the_context_is_never_negative():
    card = FakeCard()
    meter = memory.Meter(used_before_bytes=500, card=lambda: card)  # and then the others went away
    with meter.phase("load"):
        card.take(10)
    assert card_figures(meter, "load") == (10, 100, 0)


def touch(size):
    """Make so many bytes resident for a moment: fresh pages, not what the heap still holds from earlier tests."""
    with mmap.mmap(-1, size) as pages:
        for place in range(0, size, mmap.PAGESIZE):
            pages[place] = 1


@pytest.mark.skipif(not CLEARS, reason="this system cannot forget a peak of the resident set")
def test_the_resident_set_of_a_phase():
    meter = memory.Meter()
    with meter.phase("wide"):
        touch(64 * MIB)
    with meter.phase("narrow"):
        pass
    with meter.phase("outer"):
        touch(32 * MIB)
        with meter.phase("inner"):
            pass
    sizes = {name: figures["peak_resident_set"] for name, figures in meter.phases.items()}
    assert sizes["wide"] - sizes["narrow"] > 60 * MIB
    assert sizes["outer"] - sizes["inner"] > 28 * MIB


@pytest.mark.parametrize("status", ["/proc/self/status", "/nowhere"])
def test_a_peak_that_cannot_be_forgotten_has_another_name(monkeypatch, tmp_path, status):
    """As in a container that forbids clear_refs, and as on macOS."""
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", Path(status))
    meter = memory.Meter()
    with meter.phase("wide"):
        touch(64 * MIB)
    with meter.phase("narrow"):
        pass
    assert [list(figures) for figures in meter.phases.values()] == [["peak_resident_set_so_far"]] * 2
    assert meter.phases["narrow"] == meter.phases["wide"]
    assert memory.peaks(meter.phases)["peak resident set"] > 64 * MIB


def test_measuring_imports_nothing_heavy():
    code = (
        "import sys\nfrom slimtune.core import memory\nmeter = memory.Meter()\n"
        "with meter.phase('load'): pass\n"
        "print(sorted({'torch', 'numpy', 'psutil'} & set(sys.modules)), sorted(meter.phases['load']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name = "peak_resident_set" if CLEARS else "peak_resident_set_so_far"
    assert done.stdout == f"[] ['{name}']\n"


def test_torch_without_a_card_in_use_is_left_alone():
    import torch

    if not torch.cuda.is_initialized():
        assert memory.cuda_in_use() is None
        assert not torch.cuda.is_initialized()


def test_peaks_are_those_up_to_the_export():
    phases = {
        "load": {"peak_allocated": 5, "peak_reserved": 6, "context": 3, "peak_resident_set": 80},
        "train": {"peak_allocated": 9, "peak_reserved": 10, "context": 2, "peak_resident_set": 70},
        "evaluate_tuned": {"peak_allocated": 8, "peak_reserved": 9, "context": 4, "peak_resident_set": 90},
        "export": {"peak_allocated": 1, "peak_reserved": 99, "context": 4, "peak_resident_set": 500},
    }
    assert memory.peaks(phases) == {
        "peak allocated": 9,
        "peak reserved": 10,
        "CUDA context": 4,
        "peak on the card": 13,  # evaluate_tuned
        "peak resident set": 80,
    }
    assert memory.peaks({}) == {}


def test_the_cap_is_a_share_of_the_whole_card():
    card = FakeCard(total=10 * GIB)
    memory.cap(4 * GIB, lambda: card)
    assert card.share == 0.4
    memory.cap(10 * GIB, lambda: card)
    assert card.share == 1.0
    with pytest.raises(SlimtuneError, match=r"a limit of 12\.00 GiB is more than the card's 10\.00 GiB"):
        memory.cap(12 * GIB, lambda: card)


def test_without_a_card_there_is_nothing_to_cap():
    with pytest.raises(SlimtuneError, match=r"budget\.vram_gb: cannot limit a card's memory to 1\.00 GiB: no card"):
        memory.cap(GIB, lambda: None)


def test_comparison_by_hand():
    predicted = {"weights": 1000, "peak resident set": int(1.05 * GIB), "peak allocated": 7, "optimizer state": 0}
    measured = {"peak resident set": int(1.2 * GIB), "weights": 950, "optimizer state": 0, "LoRA weights": 4}
    compared = memory.compare(predicted, measured)
    assert [(one.name, round(one.error, 3), one.within_tolerance) for one in compared] == [
        ("weights", -0.05, True),
        ("peak resident set", 0.143, False),
        ("optimizer state", 0.0, True),
    ]
    assert memory.sentences(compared) == [
        "peak resident set: 1.20 GiB measured, 1.05 GiB predicted, 14 % more than predicted"
    ]


def test_sentences_in_both_directions_and_without_a_prediction():
    compared = memory.compare(
        {"weights": 200 * MIB, "LoRA weights": 0, "CUDA context": 100},
        {"weights": 100 * MIB, "LoRA weights": 2048, "CUDA context": 106},
    )
    assert memory.sentences(compared) == [
        "weights: 100 MiB measured, 200 MiB predicted, 50 % less than predicted",
        "LoRA weights: 2 KiB measured, nothing predicted",
        "CUDA context: 106 B measured, 100 B predicted, 6 % more than predicted",
    ]


def test_the_collector_is_off_inside_and_on_again_even_after_an_error():
    with memory.collector_paused():
        assert not gc.isenabled()
        with memory.collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError), memory.collector_paused():
        raise ValueError
    assert gc.isenabled()


def test_the_collector_is_off_in_a_decorated_function():
    assert memory.collector_paused()(gc.isenabled)() is False
    assert gc.isenabled()
