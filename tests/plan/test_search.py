"""The search keeps to the budget and finds nothing slower than what a person would set by hand."""

import dataclasses
import itertools

import pytest

from slimtune.core.units import GIB
from slimtune.models import cards, hardware
from slimtune.models import shapes as models
from slimtune.plan import batching, calibration, search
from slimtune.plan.lengths import Lengths
from slimtune.plan.memory import vram
from slimtune.plan.request import Data, Job
from slimtune.plan.search import Choice, Knobs
from slimtune.recipe.schema import Recipe
from slimtune.run.prepare import request_of

ASSUMED = dataclasses.replace(
    calibration.read(),
    context_bytes=350 * 2**20,
    fragmentation=0.0,
    activation_margin=0.1,
    efficiency={calibration.ANY_CARD: 0.65},
)


def job(name="Qwen3-8B", tokens=(200,) * 200, card="rtx3080", prompt=200, constants=ASSUMED, model=None, train=None):
    sections = {
        "model": {"max_seq_length": 2048, **(model or {})},
        "lora": {"rank": 16, "target": "full"},
        "train": {"effective_batch_size": 16, **(train or {})},
    }
    recipe = Recipe.model_validate({"name": "t", "data": {"train": [{"path": "t.jsonl"}]}, **sections})
    data = Data(Lengths(tokens, tuple(count // 50 for count in tokens), exact=True), prompts=(prompt,))
    return Job(request_of(recipe), data, models.known()[name], hardware.assumed(cards.CARDS[card]), constants)


@pytest.mark.parametrize("name", ["Qwen3-0.6B", "Qwen3-4B", "Qwen2.5-7B", "Qwen3-8B"])
@pytest.mark.parametrize("gb", [8, 10, 16, 24])
def test_the_best_choice_fits_and_no_setting_by_hand_beats_it(name, gb):
    task, budget = job(name), vram.budget_bytes(gb)
    best = search.best(task, budget)
    assert best.required_bytes <= budget
    for way in task.batchings:
        for skip in range(0, task.shape.layers + 1, 4):
            for offload in {False, not task.shape.tied}:
                by_hand = Choice(task, way, Knobs(skip, offload))
                if by_hand.required_bytes <= budget:
                    assert best.tokens_per_second >= (1 - search.SIMPLER_WITHIN) * by_hand.tokens_per_second


def test_more_memory_is_never_slower():
    speeds = [search.best(job(), vram.budget_bytes(gb)).tokens_per_second for gb in (7.5, 8, 9, 10, 12, 16)]
    assert all(later >= (1 - search.SIMPLER_WITHIN) * earlier for earlier, later in itertools.pairwise(speeds))


def test_nothing_is_turned_where_there_is_room_enough():
    best = search.best(job("Qwen3-0.6B", card="h200"), vram.budget_bytes(141))
    assert best.knobs == Knobs(checkpoint_skip_layers=28)


def test_what_the_recipe_fixes_is_not_searched():
    fixed = {"checkpoint_skip_layers": 2, "double_buffer": False}
    best = search.best(job(model={"offload_embedding": False}, train=fixed), vram.budget_bytes(10))
    assert best.knobs == Knobs(**fixed, offload_embedding=False)
    all_kept = job(tokens=(1500,) * 50, train={"checkpoint_skip_layers": 36})
    assert search.best(all_kept, vram.budget_bytes(10)) is None


def test_unmeasured_activations_keep_a_margin():
    budget = vram.budget_bytes(10)
    careful, certain = job(), job(constants=dataclasses.replace(ASSUMED, activation_margin=0.0))
    kept = search.best(careful, budget)
    items = kept.memory.items
    assert kept.margin_bytes == round(0.1 * (items["kept activations"] + items["MLP backward"])) > 0
    assert search.best(certain, budget).knobs.checkpoint_skip_layers >= kept.knobs.checkpoint_skip_layers
    assert search.best(certain, budget).margin_bytes == 0


def test_loading_counts_where_the_embedding_passes_through_the_card():
    shape = models.known()["Qwen3-8B"]
    choice = Choice(job(), job().batchings[-1], Knobs(offload_embedding=True))
    embedding = 2 * shape.vocab_size * shape.hidden_size
    assert choice.phases["load"] > choice.memory.total_bytes - embedding
    assert choice.peak_bytes == max(choice.phases.values())
    on_card = Choice(job(), job().batchings[-1])
    assert on_card.phases["load"] == choice.phases["load"]


def test_layers_leave_the_card_only_as_a_last_resort_and_as_few_as_it_takes():
    budget = vram.budget_bytes(5)
    assert search.best(job(), budget) is None
    found = search.best(job(), budget, last_resorts=True)
    assert found.job.rank == 16 and found.required_bytes <= budget
    knobs = dataclasses.replace(found.knobs, offload_layers=found.knobs.offload_layers - 1)
    one_less = Choice(job(), found.batching, knobs)
    assert one_less.required_bytes > budget
    assert search.best(job(), vram.budget_bytes(10), last_resorts=True) == search.best(job(), vram.budget_bytes(10))
    assert search.best(job(), GIB, last_resorts=True) is None


def test_the_longest_context_is_the_last_that_fits():
    budget = vram.budget_bytes(10)
    longest = search.longest_context(job(), budget)

    def peak(tokens):
        alone = batching.Batching(tokens, 1, 1, 1, tokens, tokens, tokens, 1.0, 1.0)
        task = job(model={"max_seq_length": tokens}, prompt=tokens)
        knobs = [Knobs(0, off, two) for off in (False, True) for two in (False, True)]
        return min(Choice(task, alone, turned).required_bytes for turned in knobs)

    assert peak(longest) <= budget < peak(longest + 1)
    assert search.longest_context(job("Qwen3-0.6B"), vram.budget_bytes(141)) == 40960
    assert search.longest_context(job(), GIB) == 0


def test_a_search_is_a_few_hundred_predictions(monkeypatch):
    calls = []
    real = vram.predict
    monkeypatch.setattr(vram, "predict", lambda *args, **kwargs: calls.append(1) or real(*args, **kwargs))
    search.best(job(tokens=tuple(range(50, 450)) * 20), vram.budget_bytes(10))
    assert len(calls) < 1000  # about a quarter of a millisecond each
