"""The search keeps to the budget and finds nothing slower than what a person would set by hand."""

import dataclasses
import itertools

import pytest

from slimtune.core.units import GIB
from slimtune.models import cards, families
from slimtune.models import shapes as models
from slimtune.plan import batching, calibration, search, speed
from slimtune.plan.memory import vram
from slimtune.recipe.schema import TrainSection

WORK = speed.Work(sequence_length=200, labelled_share=0.02)
ASSUMED = dataclasses.replace(
    calibration.read(),
    context_bytes=350 * 2**20,
    fragmentation=0.0,
    activation_margin=0.1,
    efficiency={calibration.ANY_CARD: 0.65},
)


def job(name="Qwen3-8B", tokens=(200,) * 200, card="rtx3080", **changes):
    like = cards.CARDS[card]
    train = TrainSection(per_device_train_batch_size=None, gradient_accumulation_steps=None, effective_batch_size=16)
    ways = batching.packed(train, tokens, longest=max(tokens), max_seq_length=2048)
    made = search.Job(
        shape=models.known()[name],
        quantisation="nf4",
        rank=16,
        targets=families.TARGETS["full"],
        optimizer="adamw_8bit",
        checkpointing="unsloth",
        max_seq_length=2048,
        dynamic=False,
        batchings=tuple(ways),
        longest_prompt=200,
        card=like,
        card_bytes=round(like.vram_gb * GIB),
        compute_capability=like.compute_capability,
        work=WORK,
        calibration=ASSUMED,
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("name", ["Qwen3-0.6B", "Qwen3-4B", "Qwen2.5-7B", "Qwen3-8B"])
@pytest.mark.parametrize("gb", [8, 10, 16, 24])
def test_the_best_choice_fits_and_no_setting_by_hand_beats_it(name, gb):
    task, budget = job(name), vram.budget_bytes(gb)
    best = search.best(task, budget)
    assert best.required_bytes <= budget
    for way in task.batchings:
        for skip in range(0, task.shape.layers + 1, 4):
            for offload in {False, not task.shape.tied}:
                by_hand = search.evaluate(task, way, skip, offload, True, 0)
                if by_hand.required_bytes <= budget:
                    assert best.tokens_per_second >= (1 - search.SIMPLER_WITHIN) * by_hand.tokens_per_second


def test_more_memory_is_never_slower():
    speeds = [search.best(job(), vram.budget_bytes(gb)).tokens_per_second for gb in (7.5, 8, 9, 10, 12, 16)]
    assert all(later >= (1 - search.SIMPLER_WITHIN) * earlier for earlier, later in itertools.pairwise(speeds))


def test_nothing_is_turned_where_there_is_room_enough():
    best = search.best(job("Qwen3-0.6B", card="h200"), vram.budget_bytes(141))
    assert (best.offload_embedding, best.double_buffer, best.offload_layers) == (False, True, 0)
    assert best.skip_layers == 28


def test_what_the_recipe_fixes_is_not_searched():
    fixed = search.Knobs(skip_layers=2, offload_embedding=False, double_buffer=False)
    best = search.best(job(fixed=fixed), vram.budget_bytes(10))
    assert (best.skip_layers, best.offload_embedding, best.double_buffer) == (2, False, False)
    assert search.best(job(tokens=(1500,) * 50, fixed=search.Knobs(skip_layers=36)), vram.budget_bytes(10)) is None


def test_unmeasured_activations_keep_a_margin():
    budget = vram.budget_bytes(10)
    careful, certain = job(), job(calibration=dataclasses.replace(ASSUMED, activation_margin=0.0))
    kept = search.best(careful, budget)
    assert kept.margin_bytes == round(0.1 * kept.memory.items["kept activations"]) > 0
    assert search.best(certain, budget).skip_layers >= kept.skip_layers
    assert search.best(certain, budget).margin_bytes == 0


def test_loading_counts_where_the_embedding_passes_through_the_card():
    shape = models.known()["Qwen3-8B"]
    choice = search.evaluate(job(), job().batchings[-1], 0, True, True, 0)
    embedding = 2 * shape.vocab_size * shape.hidden_size
    assert choice.phases["load"] > choice.memory.total_bytes - embedding
    assert choice.peak_bytes == max(choice.phases.values())
    on_card = search.evaluate(job(), job().batchings[-1], 0, False, True, 0)
    assert on_card.phases["load"] == choice.phases["load"]


def test_layers_leave_the_card_only_as_a_last_resort_and_as_few_as_it_takes():
    budget = vram.budget_bytes(5)
    assert search.best(job(), budget) is None
    found = search.best(job(), budget, last_resorts=True)
    assert found.rank == 16 and found.required_bytes <= budget
    one_less = search.evaluate(
        job(), found.batching, 0, found.offload_embedding, found.double_buffer, found.offload_layers - 1
    )
    assert one_less.required_bytes > budget
    assert search.best(job(), vram.budget_bytes(10), last_resorts=True) == search.best(job(), vram.budget_bytes(10))
    assert search.best(job(), GIB, last_resorts=True) is None


def test_the_longest_context_is_the_last_that_fits():
    budget = vram.budget_bytes(10)
    longest = search.longest_context(job(), budget)

    def peak(tokens):
        alone = batching.Batching(tokens, 1, 1, 1, tokens, tokens, tokens, 1.0, 1.0)
        task = job(max_seq_length=tokens, longest_prompt=tokens)
        return min(search.evaluate(task, alone, 0, off, two, 0).peak_bytes for off in (0, 1) for two in (0, 1))

    assert peak(longest) <= budget < peak(longest + 1)
    assert search.longest_context(job("Qwen3-0.6B"), vram.budget_bytes(141)) == 40960
    assert search.longest_context(job(), GIB) == 0


def test_a_search_is_a_few_hundred_predictions(monkeypatch):
    calls = []
    real = vram.predict
    monkeypatch.setattr(vram, "predict", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs))
    search.best(job(tokens=tuple(range(50, 450)) * 20), vram.budget_bytes(10))
    assert len(calls) < 1000  # about a quarter of a millisecond each
