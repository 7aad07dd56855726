"""`meta` belongs to the author of the rows: whatever type its values have, a run plans and records, or refuses a row."""

import copy
import json

import pytest
from support.faulty_recipes import Place
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.recipe import loading
from slimtune.run import prepare, stages

VALUES = (["a", "b"], {"a": {"b": 1}}, 3, -1.5, True, "", "十日", None)
KEYS = ("id", "mode", "choices", "correct", "source", "context", "category")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("data"), {}
    for name in ("train", "dev", "test"):
        lines = (ROOT / f"data/quickstart/{name}.jsonl").read_text("utf-8").splitlines(keepends=True)[: 2 * len(VALUES)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        rows[name] = [json.loads(line) for line in lines]
    return folder, rows


@pytest.mark.parametrize(
    ("name", "kind"),
    [("train", "multiple_choice"), ("dev", "generation"), ("test", "multiple_choice"), ("test", "generation")],
)
@pytest.mark.parametrize("key", KEYS)
def test_a_value_of_any_type_is_a_row_s_fault_or_none(tmp_path, data, key, name, kind):
    place = Place(tmp_path, data)
    rows = copy.deepcopy(place.rows[name])
    for row, value in zip(rows, VALUES, strict=False):
        row["meta"][key] = value
    path = place.write(name, rows)
    place.recipe["data"]["train"] = [{"path": path}] if name == "train" else place.recipe["data"]["train"]
    place.recipe["data"]["eval"] = path if name == "dev" else place.recipe["data"]["eval"]
    place.recipe["evaluate"] = {
        "kind": kind,
        "max_new_tokens": 8,
        "data": path if name == "test" else place.recipe["evaluate"]["data"],
    }
    recipe = loading.load(place.save())
    try:
        prepared = prepare.prepare(recipe)
    except SlimtuneError as error:
        assert name == "test" and f"{path}:" in str(error), error
        return
    facts = stages.data_facts(prepared, prepared.examples, prepared.held_out_examples)
    labels = {label for part in facts.values() for label in part["label_distribution"]}
    assert labels <= {*"abcd", "", "十日"}
