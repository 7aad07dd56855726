"""`slimtune plan`, as people run it."""

import json

import pytest
from support import command_line
from support.paths import ROOT

from slimtune.core.units import GIB, MIB


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")


def plan(*arguments):
    return command_line.run("plan", *arguments)


# GiB at 2048, 4096, 8192 and 16384 tokens, as in the memory model's worked table.
WORKED = {
    "unsloth/Qwen3-4B-bnb-4bit": (3.47, 3.71, 4.19, 5.14),
    "unsloth/Qwen2.5-7B-Instruct-bnb-4bit": (6.50, 6.84, 7.53, 8.91),
    "unsloth/Qwen3-8B-bnb-4bit": (6.92, 7.23, 7.85, 9.09),
    "unsloth/Qwen3-14B-bnb-4bit": (10.95, 11.35, 12.17, 13.80),
}


@pytest.mark.parametrize("base", WORKED)
@pytest.mark.parametrize("column", range(4))
def test_the_worked_table_through_the_whole_planner(base, column):
    from slimtune.recipe import loading as recipes
    from slimtune.run import prepare

    tokens = 2048 * 2**column
    # Every knob as in the table, on data large enough to fill such a row: the recipe's own, many times over.
    fixed = ["checkpoint_skip_layers=0", "double_buffer=true", "per_device_train_batch_size=1", f"row_length={tokens}"]
    overrides = [f"model.base={base}", f"model.max_seq_length={tokens}", "budget.vram_gb=24"]
    overrides += [f"train.{value}" for value in fixed]
    overrides += [] if "4B" in base.split("-")[1] and "14B" not in base else ["model.offload_embedding=false"]
    overrides += ["data.train=[{path: data/law/direct_norag.train.jsonl, weight: 10}]"]
    made = prepare.prepare(recipes.load(ROOT / "recipes/direct.yaml", overrides), assume_card=True).plan
    assert made.micro_batch_tokens == tokens
    apart = made.memory.items["CUDA context"] + made.memory.items.get("fragmentation", 0)
    assert (made.memory.total_bytes - apart + 350 * MIB) / GIB == pytest.approx(WORKED[base][column], rel=0.01)


def test_every_value_has_a_reason_and_the_rest_is_said():
    done = plan("recipes/direct.yaml", "--price-per-hour", "0.5")
    assert done.code == 0, done.stderr
    for text in (
        "GeForce RTX 3080 (assumed)",
        " left",
        "Longest example that would fit",
        "tokens/s (65% of the card's peak, assumed",
        "cost 0.",
        "linear weights",
        "0.51587·P in NF4",
        "By phase: load",
    ):
        assert text in done.stdout


def test_json_is_json_alone_and_complete():
    done = plan("recipes/direct.yaml", "--json", "--gpu", "rtx4090", "train.epochs=1")
    content = json.loads(done.stdout)
    assert content["hardware"]["card"] == "rtx4090"
    memory = content["memory"]
    assert sum(memory["items"].values()) == memory["total_bytes"] <= memory["peak_bytes"]
    assert memory["peak_bytes"] < memory["upper_bytes"]
    assert memory["left_bytes"] == memory["budget_bytes"] - memory["upper_bytes"] > 0
    assert memory["budget_bytes"] == round(0.95 * 0.96 * 24 * GIB)
    assert content["settings"]["epochs"]["value"] == 1
    assert all(setting["reason"] for setting in content["settings"].values())
    assert content["estimate"]["tokens_per_second"] > 0 and content["estimate"]["cost"] is None


def test_a_card_with_a_smaller_budget_is_still_that_card():
    content = json.loads(plan("recipes/direct.yaml", "--json", "--gpu", "h200", "--vram-gb", "10").stdout)
    assert content["hardware"]["card"] == "h200"
    assert content["memory"]["budget_bytes"] == round(0.95 * round(0.96 * 10 * GIB))


def test_four_gigabytes_are_too_few_and_three_changes_would_help():
    done = plan("recipes/direct.yaml", "--vram-gb", "4")
    assert done.code == 3
    assert "does not fit" in done.stderr and " missing. Any one of" in done.stderr
    assert done.stderr.count("saves ") == 3
    assert "Traceback" not in done.stderr


def test_six_gigabytes_find_a_plan_or_say_what_is_missing():
    done = plan("recipes/direct.yaml", "--vram-gb", "6")
    assert (done.code, " missing. Any one of" in done.stderr) in ((0, False), (3, True))
    assert plan("recipes/direct.yaml", "--vram-gb", "6", "budget.last_resorts=true").code == 0


def test_the_picture(tmp_path):
    done = plan("recipes/direct.yaml", "--plot", tmp_path / "plan.png", "--json")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    json.loads(done.stdout)
    assert f"Picture: {tmp_path / 'plan.png'}" in done.stderr
    done = plan("recipes/quickstart.yaml", "--plot", tmp_path / "cpu.png")
    assert done.code == 2 and "--plot" in done.stderr
    assert not (tmp_path / "cpu.png").exists()


def test_a_picture_in_the_place_of_another_file_is_refused_before_the_plan(tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"somebody's work")
    done = plan("recipes/direct.yaml", "--plot", taken)
    assert (done.code, done.stdout) == (2, "") and "the file exists already" in done.stderr
    assert taken.read_bytes() == b"somebody's work"


def test_an_unknown_card():
    done = plan("recipes/direct.yaml", "--gpu", "rtx3081")
    assert done.code == 2
    assert "did you mean rtx3080" in done.stderr
