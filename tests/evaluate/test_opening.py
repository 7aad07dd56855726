"""What is evaluated, from how it is named, and what of it is loaded."""

import json

import pytest
import yaml

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.targets import opening
from slimtune.evaluate.targets.opening import Loading, Spec


@pytest.fixture
def run(tmp_path):
    """A run's folder with an adapter and a checkpoint."""
    folder = tmp_path / "direct" / "20261125T000000Z"
    model = {"base": "builtin:tiny-qwen3", "revision": None, "load_in_4bit": True, "max_seq_length": 256}
    for adapter in ("adapter", "checkpoints/checkpoint-70"):
        (folder / adapter).mkdir(parents=True)
        config = {"base_model_name_or_path": "/somewhere/tiny-qwen3"}
        (folder / adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"model": {**model, "thinking": False}}), encoding="utf-8")
    for name in ("manifest.json", "plan.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("builtin:tiny-qwen3", Spec("model", "builtin:tiny-qwen3")),
        ("Qwen/Qwen3-0.6B", Spec("model", "Qwen/Qwen3-0.6B")),
        ("http://localhost:11434/v1#law", Spec("api", "http://localhost:11434/v1", "law")),
        ("https://host#a/b:c", Spec("api", "https://host", "a/b:c")),
    ],
)
def test_names_that_are_no_files(text, spec):
    assert opening.spec_of(text) == spec


def test_folders_and_files_are_told_apart(run, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}", encoding="utf-8")
    for place, kind in ((run, "run"), (run / "adapter", "adapter"), (tmp_path / "x.gguf", "gguf")):
        assert opening.spec_of(str(place)).kind == kind
    assert opening.spec_of(str(tmp_path / "model")).kind == "model"


def test_the_models_name_may_come_apart_from_the_url():
    assert opening.spec_of("http://localhost:1", "law").model == "law"
    with pytest.raises(SlimtuneError, match="the name of the model is missing"):
        opening.spec_of("http://localhost:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no such thing", "no such model"),
        ("none.gguf", "there is no such GGUF"),
        ("http://#m", "is not a valid URL"),
        (".", "is not a run"),
        ("9" * 5000, "no such model"),
        ("9" * 5000 + ".gguf", "there is no such GGUF"),
        ("~nobody-by-that-name/x", "no such model"),
        ("http://[::1/v1#m", "is not a valid URL"),
        ("http://localhost:99999999/v1#m", "is not a valid URL"),
        ("http://localhost:x/v1#m", "is not a valid URL"),
        ("http://a\u2100b/v1#m", "is not a valid URL"),
        (f"http://{'a' * 64}/v1#m", "is not a valid URL"),
    ],
)
def test_what_is_none_of_these_is_told_what_there_is(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SlimtuneError, match=message) as caught:
        opening.spec_of(text)
    assert caught.value.problems[0].fix


def test_results_are_named_after_what_was_asked(run):
    specs = [opening.spec_of(str(place)) for place in (run, run / "adapter", run / "checkpoints/checkpoint-70")]
    assert [spec.slug for spec in specs] == [
        "direct-20261125T000000Z",
        "direct-20261125T000000Z-adapter",
        "direct-20261125T000000Z-checkpoint-70",
    ]
    assert opening.spec_of("http://localhost:11434/v1#a/b").slug == "http-localhost-11434-v1-a-b"


def test_a_runs_adapter_and_checkpoints_are_loaded_as_the_run_was(run):
    for place in (run, run / "adapter", run / "checkpoints/checkpoint-70"):
        weights = opening.weights_of(opening.spec_of(str(place)), Loading())
        assert (weights.base, weights.load_in_4bit, weights.max_length) == ("builtin:tiny-qwen3", True, 256)
        expected = place / "adapter" if place == run else place
        assert list(weights.adapters.values()) == [expected]
    assert opening.weights_of(opening.spec_of(str(run)), Loading(max_length=512)).max_length == 512


def test_an_adapter_from_elsewhere_says_its_base_and_stands_on_4_bit(run, tmp_path):
    lone = (run / "adapter").rename(tmp_path / "lone")
    weights = opening.weights_of(opening.spec_of(str(lone)), Loading())
    assert (weights.base, weights.load_in_4bit) == ("/somewhere/tiny-qwen3", True)
    assert opening.weights_of(opening.spec_of(str(lone)), Loading(load_in_4bit=False)).load_in_4bit is False
    (lone / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SlimtuneError, match="does not say which base"):
        opening.weights_of(opening.spec_of(str(lone)), Loading())


def test_a_run_without_an_adapter_is_told_how_to_finish(run):
    (run / "adapter/adapter_config.json").unlink()
    with pytest.raises(SlimtuneError, match="the run has no adapter"):
        opening.weights_of(opening.spec_of(str(run)), Loading())


@pytest.mark.unsloth
def test_a_pickled_adapter_is_not_loaded(run):
    from slimtune.models import load as model

    (run / "adapter/adapter_model.bin").write_bytes(b"")
    with pytest.raises(SlimtuneError, match=r"has no adapter_model\.safetensors"):
        model.add_adapter(None, run / "adapter")
