"""YAML as people mean it: YAML 1.1's surprises are gone, and every value knows its line."""

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.recipe import yaml_lines


def load(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return yaml_lines.load(path)


def test_numbers_are_numbers_and_words_are_words(tmp_path):
    values, _ = load(
        tmp_path, "a: 2e-4\nb: 1.\nc: 12:30\nd: on\ne: 0x10\nf: true\ng: ~\nh: -3\ni: '5'\nj: 2024-01-02\n"
    )
    assert values == {
        "a": 2e-4, "b": 1.0, "c": "12:30", "d": "on", "e": "0x10", "f": True, "g": None, "h": -3, "i": "5",
        "j": "2024-01-02",
    }  # fmt: skip


def test_every_value_has_its_line(tmp_path):
    _, lines = load(tmp_path, "train:\n  epochs: 3\ndata:\n  train:\n    - path: a\n    - path: b\n")
    assert lines[("train", "epochs")] == 2
    assert lines[("data", "train", 1, "path")] == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "recipe.yaml:3: duplicate key 'a'\n    → it stands on line 1 already"),
        ("a: !!python/object:os.system x\n", "recipe.yaml:1 a: YAML tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: &x [1]\nb: *x\n", "anchors and aliases are not supported"),
        ("a: [1\nb: 2\n", "recipe.yaml:2: not valid YAML"),
        ("- 1\n", "a recipe is a mapping"),
        ("? [1]\n: 2\n", "keys must be plain names"),
        ("<<: {a: 1}\n", "keys must be plain names"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(SlimtuneError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_file_that_is_not_utf8_or_not_there(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes("名前: 値".encode("cp932"))
    with pytest.raises(SlimtuneError, match="not UTF-8"):
        yaml_lines.load(path)
    with pytest.raises(SlimtuneError, match="no such file"):
        yaml_lines.load(tmp_path / "missing.yaml")
