"""The recipe: every mistake at once, each with its line; overrides; one chain of parents."""

import os

import pytest

from slimtune.core.errors import Problem, SlimtuneError, bad_data
from slimtune.recipe import loading as recipe
from slimtune.recipe import places

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


def test_an_entry_of_a_list_is_overridden_by_its_number(tmp_path):
    path = write(tmp_path, "name: x\ndata: {train: [{path: a.jsonl}, {path: b.jsonl}]}\n")
    loaded, sources = recipe.load_with_sources(path, ["data.train[1].path=c.jsonl", "data.train[0].weight=0.5"])
    assert [(one.path, one.weight) for one in loaded.data.train] == [("a.jsonl", 0.5), ("c.jsonl", 1.0)]
    assert sources["data.train[1].path"] == "command line"
    assert problems(path, ["data.train[2].path=c", "lora.target[0]=x"]) == [
        "command line: there is no data.train[2]: in the recipe data.train ends with [1]"
        "\n    → count from 0, or write the whole list: data.train=[…]",
        "command line: there is no lora.target[0]: in the recipe lora.target is no list"
        "\n    → count from 0, or write the whole list: lora.target=[…]",
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs=1", "did you mean 'train.epochs'?"),
        ("epoch=1", "did you mean 'train.epochs'?"),
        ("temperature=1", "did you mean 'evaluate.temperature' or 'export.temperature'?"),
        ("ünï=1", "unknown key 'ünï'"),
        ("a..b=1", "'a..b=1' is not an override"),
        ("=", "'=' is not an override"),
        ("train.[0]=1", "'train.[0]=1' is not an override"),
        ("recipes/x.yaml", "name a recipe with --recipe recipes/x.yaml"),
        ("lora={rank: [8", "command line lora:1: not valid YAML"),
        ("train.epochs=1e999999", "command line train.epochs:1: the number 1e999999 is too large"),
        (f"train.epochs={'9' * 5000}", "command line train.epochs:1: a number has more than 300 digits"),
        (f"train.max_steps={'9' * 299}", "command line train.max_steps: must be less than or equal to"),
        ("train.epochs=-0", "command line train.epochs: must be greater than 0, not 0"),
        ("train.epochs=.nan", "command line train.epochs: must be a valid number, not '.nan'"),
        ("train=7", "command line train: must be a valid dictionary"),
        ("data.train={path: x}", "command line data.train: must be a valid list"),
        ("data.train=[x]", "command line data.train[0]: must be a valid dictionary"),
        ("model={'a(b': 1}", "command line model.a(b: unknown key 'a(b'"),
        ("data.eval=\"\\ud83d\"", "contains NUL or half a character"),
        ("data.eval=\"a\\0b\"", "contains NUL or half a character"),
        ("data.eval=\udcff", "the character U+DCFF is not allowed"),
    ],
)  # fmt: skip
def test_every_override_that_cannot_be_is_told_in_one_sentence(tmp_path, override, told):
    path = write(tmp_path, MINIMAL)
    (problem,) = problems(path, [override])
    assert told in problem


def test_a_long_chain_of_parents_and_parents_that_are_no_recipes(tmp_path):
    for number in range(400):
        write(tmp_path, f"base: {number + 1}.yaml\n", f"{number}.yaml")
    assert "more than 20 recipes inherit from each other" in problems(tmp_path / "0.yaml")[0]
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    told = {
        "pipe.yaml": "pipe.yaml: this is a pipe, a socket or a device, not a file",
        "loop.yaml": "loop.yaml: not a usable path",
        ".": "this is a folder, not a file",
        "x" * 300: "no such recipe",
    }
    for parent, what in told.items():
        assert what in problems(write(tmp_path, f"base: {parent}\n", "child.yaml"))[0]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x28\xb5\x2f\xfd\0", "this is compressed with zstd"),
        ("name: x".encode("utf-16"), "this is UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n", "this is a PNG picture"),
        (b"\xff", "not UTF-8 text"),
        (b"a" * (2**18 + 1), "more than the 262,144 that such a file may have"),
        (b"{" * 5000, "nested too deeply"),
        (b"a: " * 5000, "not valid YAML"),
        (b"name: \x00", "the character U+0000 is not allowed"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, what):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    (problem,) = problems(path)
    assert what in problem and str(path) in problem


def test_a_data_file_is_no_recipe(tmp_path):
    assert "this is a data file, not a recipe" in problems(write(tmp_path, "{}", "x.jsonl"))[0]


def test_a_data_file_that_lies_beside_the_recipe_is_pointed_at(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "recipes", MINIMAL)
    (tmp_path / "recipes" / "a.jsonl").touch()
    (tmp_path / "train_unsloth.py").touch()
    loaded, sources = recipe.load_with_sources("recipes/r.yaml")
    missing = bad_data({"a.jsonl": [Problem("no such file", "a.jsonl", "…")]})
    with pytest.raises(SlimtuneError) as caught, places.naming(loaded, "recipes/r.yaml", sources):
        raise missing
    assert path.exists()
    assert [str(problem) for problem in caught.value.problems] == [
        "recipes/r.yaml:2 data.train[0].path: a.jsonl: no such file"
        "\n    → it lies beside the recipe, and paths are relative to the working directory: write recipes/a.jsonl"
    ]


def test_the_recipe_s_place_does_not_hide_how_many_problems_there_are(tmp_path):
    path = write(tmp_path, MINIMAL)
    loaded, sources = recipe.load_with_sources(path)
    many = [Problem("is empty", f"a.jsonl:{line}") for line in range(1, 121)]
    with pytest.raises(SlimtuneError) as caught, places.naming(loaded, path, sources):
        raise bad_data({"a.jsonl": [*many, Problem("bad", "a.jsonl")]})
    assert "120 places: a.jsonl:1, a.jsonl:2" in str(caught.value)
    assert f"{path}:2 data.train[0].path: a.jsonl: bad" in str(caught.value)


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text = (
        "name: x\nmodel: {base: ~/model}\ndata: {train: [{path: ~/a.jsonl}], eval: ~/b.jsonl}\n"
        "evaluate: {data: ~/c.jsonl}\nexport: {merged: ~/weights}\n"
    )
    loaded = recipe.load(write(tmp_path, text), ["run.output_dir=~/out"])
    named = [loaded.model.base, *places.data_files(loaded).values(), loaded.export.merged, loaded.run.output_dir]
    names = ["model", "a.jsonl", "b.jsonl", "c.jsonl", "weights", "out"]
    assert named == [str(tmp_path / "home" / name) for name in names]
    assert recipe.load(write(tmp_path, recipe.dump(loaded))) == loaded


def test_what_cannot_be_a_path_is_said_with_its_line(tmp_path):
    text = (
        f"name: x\ndata:\n  train: [{{path: {'あ' * 86}}}]\n  eval: ~nobody-of-this-name/x\n"
        f"run:\n  output_dir: out/{'x' * 256}\nmodel:\n  base: {'x/' * 2048}x\n"
    )
    path = write(tmp_path, text)
    assert problems(path) == [
        f"{path}:8 model.base: the path is longer than 4,095 bytes",
        f"{path}:3 data.train[0].path: a name in this path is longer than 255 bytes",
        f"{path}:4 data.eval: there is no user 'nobody-of-this-name' with a home folder; write the path out, "
        "or ./~nobody-of-this-name for a folder of that name",
        f"{path}:6 run.output_dir: a name in this path is longer than 255 bytes",
    ]
