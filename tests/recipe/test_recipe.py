"""The recipe: every mistake at once, each with its line; overrides; one chain of parents."""

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.recipe import loading as recipe

MINIMAL = "name: x\ndata: {train: [{path: a.jsonl}]}\n"


def write(tmp_path, text, name="r.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path, overrides=()):
    with pytest.raises(SlimtuneError) as caught:
        recipe.load(path, overrides)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def test_all_mistakes_come_at_once_with_line_and_advice(tmp_path):
    path = write(
        tmp_path,
        "name: Direct\n"
        "model: {base: x, max_seq_len: 2048}\n"
        "lora: {target: fulll, rank: abc}\n"
        "data:\n"
        "  train: [{path: a.jsonl, wieght: 1}]\n"
        "  epochs: 3\n"
        "train: {gradient_checkpointing: unslot}\n",
    )
    found = problems(path, ["train.epoch=3", "nonsense"])
    assert found == [
        "command line: 'nonsense' is not an override\n    → write section.key=value, e.g. train.epochs=1",
        f"{path}:1 name: 'Direct' is not a usable name\n    → use lower-case letters, digits, '.', '_' and '-'",
        f"{path}:2 model.max_seq_len: unknown key 'max_seq_len'\n    → did you mean 'max_seq_length'?",
        f"{path}:3 lora.rank: must be a valid integer, not 'abc'",
        f"{path}:3 lora.target: 'fulll' is not one of 'minimal', 'standard' or 'full'\n    → did you mean 'full'?",
        f"{path}:5 data.train[0].wieght: unknown key 'wieght'\n    → did you mean 'weight'?",
        f"{path}:6 data.epochs: unknown key 'epochs'\n    → did you mean 'train.epochs'?",
        f"{path}:7 train.gradient_checkpointing: 'unslot' is not one of 'unsloth', True or False"
        "\n    → did you mean 'unsloth'?",
        "command line train.epoch: unknown key 'epoch'\n    → did you mean 'epochs'?",
    ]


def test_overrides_win_and_are_typed(tmp_path):
    path = write(tmp_path, MINIMAL)
    loaded = recipe.load(path, ["train.learning_rate=2e-4", "lora.target=[q_proj]", "run.seed=7", "data.eval=b.jsonl"])
    assert loaded.train.learning_rate == 2e-4
    assert loaded.lora.target == ["q_proj"]
    assert loaded.run.seed == 7
    assert loaded.data.eval == "b.jsonl"


def test_a_string_is_never_taken_for_a_number_or_a_switch(tmp_path):
    path = write(tmp_path, MINIMAL + "model: {load_in_4bit: 'true'}\nlora: {rank: '8'}\n")
    assert len(problems(path)) == 2


def test_a_child_changes_its_parent_key_by_key(tmp_path):
    write(tmp_path, MINIMAL + "lora: {rank: 8, alpha: 8}\n", "parent.yaml")
    child = write(tmp_path, "name: child\nbase: parent.yaml\nlora: {rank: 4}\n", "child.yaml")
    loaded = recipe.load(child)
    assert (loaded.name, loaded.lora.rank, loaded.lora.alpha) == ("child", 4, 8)


def test_a_mistake_in_the_parent_is_reported_there(tmp_path):
    parent = write(tmp_path, MINIMAL + "lora: {rnk: 8}\n", "parent.yaml")
    child = write(tmp_path, "name: child\nbase: parent.yaml\n", "child.yaml")
    assert problems(child) == [f"{parent}:3 lora.rnk: unknown key 'rnk'\n    → did you mean 'rank'?"]


def test_a_circle_of_parents_and_a_missing_parent(tmp_path):
    write(tmp_path, "base: b.yaml\n", "a.yaml")
    write(tmp_path, "base: a.yaml\n", "b.yaml")
    assert "in a circle" in problems(tmp_path / "a.yaml")[0]
    lonely = write(tmp_path, "base: gone.yaml\n", "c.yaml")
    assert f"{lonely}:1 base: no such recipe" in problems(lonely)[0]


def test_the_gate_needs_an_evaluation(tmp_path):
    path = write(tmp_path, MINIMAL + "export: {}\n")
    assert "require_verdict needs an 'evaluate' section" in problems(path)[0]
    recipe.load(path, ["export.require_verdict=false"])


def test_letters_cannot_be_read_off_a_thinking_model(tmp_path):
    path = write(tmp_path, MINIMAL + "model: {thinking: true}\nevaluate: {data: t.jsonl}\n")
    assert "begins with a thought" in problems(path)[0]


def test_the_resolved_recipe_loads_as_itself(tmp_path):
    path = write(tmp_path, MINIMAL + "model: {base: builtin:tiny-qwen3}\nevaluate: {data: t.jsonl}\nexport: {}\n")
    loaded = recipe.load(path, ["data.system=あなたは法律の専門家です。"])
    assert recipe.load(write(tmp_path, recipe.dump(loaded), "resolved.yaml")) == loaded


def test_it_is_known_where_each_value_comes_from(tmp_path):
    parent = "name: parent\ndata:\n  train:\n    - {path: one.jsonl}\n    - {path: two.jsonl}\ntrain: {epochs: 2}\n"
    write(tmp_path, parent, "parent.yaml")
    own = "name: child\nbase: parent.yaml\ndata:\n  train:\n    - {path: own.jsonl}\n"
    child = write(tmp_path, own, "child.yaml")
    _, found = recipe.load_with_sources(child, ["lora.rank=8"])
    assert found["name"] == f"{child}:1"
    assert found["train.epochs"] == f"{tmp_path / 'parent.yaml'}:6"
    assert found["data.train[0].path"] == f"{child}:5"
    assert found["lora.rank"] == "command line"
    # What the child and the command line replace has no parts left of the parent's.
    assert "data.train[1].path" not in found
    assert "data.train[0].path" not in recipe.load_with_sources(child, ["data.train=[{path: other.jsonl}]"])[1]
    assert "train.optim" not in found


def test_a_method_that_there_is_not_is_refused_with_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: t\ndata:\n  train: [{path: t.jsonl}]\ntrain:\n  method: stf\n", encoding="utf-8")
    with pytest.raises(SlimtuneError) as caught:
        recipe.load(path, methods=["dpo", "sft"])
    assert str(caught.value.problems[0]) == (
        f"{path}:5 train.method: 'stf' is not one of 'dpo' or 'sft'\n    → did you mean 'sft'?"
    )
    assert recipe.load(path).train.method == "stf"  # who loads it without saying which there are is not told
