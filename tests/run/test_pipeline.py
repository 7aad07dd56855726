"""The whole run on the CPU: real lawqa questions through a tiny model, a few steps, every file of a run's folder."""

import dataclasses
import io
import json

import pytest
from support.examples import THOROUGH
from support.paths import ROOT

from scripts import law_files as build
from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError
from slimtune.datatools.build import question_sources
from slimtune.recipe import loading as recipe
from slimtune.run import pipeline
from slimtune.train.methods import sft

pytestmark = pytest.mark.unsloth

LAWQA = ROOT.parent / "shared/data/lawqa_jp/selection.json"
RUN_FILES = {
    "recipe.yaml", "plan.json", "manifest.json", "events.jsonl", "metrics.jsonl", "loss_curve.png", "report.html",
    "experiment_log.md", "checkpoints", "adapter/adapter_model.safetensors", "eval/base.jsonl", "eval/tuned.jsonl",
    "eval/verdict.json", "export/Modelfile", "export/parity.json",
}  # fmt: skip


def write_recipe(folder, model, train, held_out, test, **sections):
    path = folder / "lawqa.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "lawqa",
                "model": {"base": str(model), "max_seq_length": 2048},
                "data": {"train": [{"path": str(train)}], "eval": str(held_out)},
                "train": {"effective_batch_size": 4, "max_steps": 3, "warmup_ratio": 0.0},
                "evaluate": {"data": str(test), "max_items": 12},
                "run": {"output_dir": str(folder / "outputs")},
                **sections,
            }
        ),
        encoding="utf-8",
    )
    return path


def prompt_length(question):
    return len(build.render_question(question, mode="direct", rag=False)["input"])


def write_rows(path, questions):
    rows = [build.render_question(question, mode="direct", rag=False) for question in questions]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def own_questions():
    paths = sorted((ROOT / "data/law/questions").glob("*.jsonl"))
    return [question for path in paths for question in question_sources.read([str(path)], layout="questions").questions]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """A run on the project's own questions; in `make test-all` on lawqa_jp, where that is at hand."""
    real = THOROUGH and LAWQA.is_file()
    asked = question_sources.read([str(LAWQA)], layout="lawqa").questions if real else own_questions()
    asked = sorted(asked, key=prompt_length)[:60]  # the short ones: a tiny model has no need of long statutes
    folder = tmp_path_factory.mktemp("lawqa")
    split = build.split_questions(asked, dev=0.1, test=0.3, seed=1)
    files = [write_rows(folder / f"{name}.jsonl", split[name]) for name in ("train", "dev", "test")]
    export = {"gguf": ["f16", "q4_k_m"], "require_verdict": False, "ollama_name": "law"}
    path = write_recipe(folder, tiny_model("qwen3"), *files, export=export)
    screen = io.StringIO()
    return pipeline.run(recipe.load(path), Console(file=screen)), screen.getvalue(), path


def load(run, name):
    return json.loads((run / name).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_it_ran_on_the_real_lawqa_questions(finished):
    if not (THOROUGH and LAWQA.is_file()):
        pytest.skip(f"not make test-all, or the lawqa_jp data set is not at {LAWQA}")
    run, _, path = finished
    sources = {json.loads(line)["source"] for line in (run / "eval/base.jsonl").read_text("utf-8").splitlines()}
    assert sources <= {question.source for question in question_sources.read([str(LAWQA)], layout="lawqa").questions}
    assert load(run, "manifest.json")["data"]["train"]["examples"] == len(
        (path.parent / "train.jsonl").read_text("utf-8").splitlines()
    )


def test_every_file_of_a_runs_folder_is_there(finished):
    run, _, _ = finished
    assert not [name for name in RUN_FILES if not (run / name).exists()]
    assert {path.name for path in (run / "export").glob("*.gguf")} == {"lawqa.f16.gguf", "lawqa.q4_k_m.gguf"}
    assert not (run / "export/.work").exists()
    assert not list(run.rglob("*.partial"))
    assert (run.parent / "latest").resolve() == run.resolve()


def test_the_manifest_says_what_was_really_done(finished):
    run, _, path = finished
    manifest = load(run, "manifest.json")
    assert manifest["complete"] is True
    assert manifest["trainer"]["packing"] is False
    assert manifest["trainer"]["max_steps"] == 3
    assert any("padded batches" in text for text in manifest["differences"])
    assert set(manifest["hashes"]["data"]) == {str(path.parent / f"{name}.jsonl") for name in ("train", "dev", "test")}
    assert manifest["versions"]["unsloth"] == "2026.10.9"
    predicted, measured = manifest["memory"]["predicted"], manifest["memory"]["measured"]
    for exact in ("weights", "LoRA weights", "optimizer state"):
        assert predicted[exact] == measured[exact] > 0
    assert measured["peak resident set"] > measured["weights"]
    assert {"load", "first_step", "train", "evaluate_tuned", "export"} <= set(manifest["memory"]["phases"])
    report = (run / "report.html").read_text(encoding="utf-8")
    assert all(name in report for name in measured)
    assert recipe.load(run / "recipe.yaml") == recipe.load(path)


def test_each_step_left_a_loss(finished):
    run, _, _ = finished
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [metric["step"] for metric in metrics if "loss" in metric] == [1, 2, 3]
    assert [metric["step"] for metric in metrics if "eval_loss" in metric] == [1, 2, 3]
    assert all(metric["tokens_per_second"] > 0 for metric in metrics if "loss" in metric)


def test_base_and_tuned_answered_the_same_questions(finished):
    run, _, _ = finished
    base, tuned = (
        [json.loads(line) for line in (run / f"eval/{who}.jsonl").read_text("utf-8").splitlines()]
        for who in ("base", "tuned")
    )
    assert len(base) == len(tuned) == 12
    assert [(one["id"], one["prompt_sha256"]) for one in base] == [(two["id"], two["prompt_sha256"]) for two in tuned]
    assert load(run, "eval/verdict.json")["n"] == 12


def test_only_the_letter_and_the_end_of_turn_carry_loss(finished):
    run, _, _ = finished
    audit = load(run, "mask_audit.json")
    assert audit["supervised_tokens"] == 2 * audit["rows"]
    for example in audit["preview"]:
        (supervised,) = [segment["text"] for segment in example["segments"] if segment["supervised"]]
        assert supervised in {f"{letter}<|im_end|>" for letter in "abcd"}


def test_the_screen_shows_the_story(finished):
    run, screen, _ = finished
    order = ["Plan of 'lawqa'", "Mask audit", "Training 3 steps", "Before and after", "Verdict:", "Exporting", "Done"]
    places = [screen.index(text) for text in order]
    assert places == sorted(places)
    assert str(run) in screen


def test_the_log_is_filled_in_and_its_last_heading_is_left_to_the_researcher(finished):
    run, _, _ = finished
    log = (run / "experiment_log.md").read_text(encoding="utf-8")
    assert run.name in log
    assert log.rstrip().endswith("所感・次のアクション")


def test_a_run_that_fails_says_so_and_keeps_what_it_has(tmp_path, tiny_model, monkeypatch):
    rows = [{"input": f"第{n}条は。", "output": "abcd"[n % 4]} for n in range(8)]
    data, held_out = tmp_path / "train.jsonl", tmp_path / "dev.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows[:6]), encoding="utf-8")
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows[6:]), encoding="utf-8")
    path = write_recipe(tmp_path, tiny_model("qwen3"), data, held_out, held_out, evaluate=None)

    # The trainer is handed one example with a label that its response mask does not have.
    build_trainer = sft.build_trainer

    def with_a_wrong_label(model, tokenizer, examples, *arguments, **options):
        wrong = dataclasses.replace(examples[0], labels=examples[0].input_ids)
        return build_trainer(model, tokenizer, [wrong, *examples[1:]], *arguments, **options)

    monkeypatch.setattr(sft, "METHOD", dataclasses.replace(sft.METHOD, build_trainer=with_a_wrong_label))
    with pytest.raises(SlimtuneError, match="The labels that the trainer would learn from are wrong"):
        pipeline.run(recipe.load(path), Console(file=io.StringIO()))
    manifest = load(tmp_path / "outputs/lawqa/latest", "manifest.json")
    assert (manifest["status"], manifest["complete"]) == ("failed", False)
    assert "The run failed." in (tmp_path / "outputs/lawqa/latest/report.html").read_text(encoding="utf-8")
