"""What a verdict is for, on real runs of the quickstart: a good one passes, three bad ones are told apart and stopped."""

import contextlib
import io
import json
import random

import pytest
from support import command_line
from support.examples import THOROUGH
from support.paths import ROOT

from slimtune.cli import app as cli
from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError
from slimtune.evaluate import answer_file, evaluation
from slimtune.evaluate.evaluation import Request
from slimtune.evaluate.kinds.kind import Settings
from slimtune.evaluate.targets import opening
from slimtune.recipe import loading as recipe
from slimtune.run import pipeline, report, shipping

pytestmark = pytest.mark.unsloth

DATA = ROOT / "data/quickstart"


def rows(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]


def write(path, content):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
    return path


def answered(row, letter):
    return {**row, "output": letter, "meta": {**row["meta"], "correct": letter}}


def train(folder, *overrides):
    screen = io.StringIO()
    given = [f"run.output_dir={folder}/outputs", *overrides]
    run = pipeline.run(recipe.load(ROOT / "recipes/quickstart.yaml", given), Console(file=screen))
    return run.resolve(), " ".join(screen.getvalue().split())


def load(run, name):
    return json.loads((run / name).read_text("utf-8"))


@pytest.fixture(scope="module", autouse=True)
def in_the_projects_folder():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """One of the three bad runs, by its name."""
    folder = tmp_path_factory.mktemp("bad")
    # As many steps as it takes to be bad; what the verdict says of leaked rows does not depend on them.
    steps = {"shuffled": 12, "always_a": 8, "leaked": 4}
    letters = [row["output"] for row in rows("train")]
    random.Random(1).shuffle(letters)
    made = {
        "shuffled": [answered(row, letter) for row, letter in zip(rows("train"), letters, strict=True)],
        "always_a": [answered(row, "a") for row in rows("train")],
        # Twelve of the test's questions are trained on.
        "leaked": rows("train") + rows("test")[:12],
    }
    done = {}

    def run(name):
        if name not in done:
            data = write(folder / f"{name}.jsonl", made[name])
            # Merged weights alone: what is exported is not in question here.
            given = (f"name={name}", f"data.train=[{{path: {data}}}]", "data.eval=null", "export.gguf=[]")
            if not THOROUGH:
                given += (f"train.max_steps={steps[name]}", "train.learning_rate=1e-2")
            done[name] = train(folder, *given)
        return done[name]

    return run


def test_the_quickstart_is_better_with_interval_and_p(good):
    run, screen = good
    verdict = load(run, "eval/verdict.json")
    assert verdict["verdict"] == "better"
    assert verdict["mcnemar"]["p_value"] < 0.001
    low, high = verdict["difference_interval"]
    assert 0 < low < verdict["difference_points"] < high
    assert verdict["tuned"]["interval"][0] > verdict["majority"]["share"]
    assert verdict["contamination"]["items"] == 0
    assert "Verdict: better: 25.0 % →" in screen
    assert list((run / "export").glob("*.gguf"))


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        pytest.param("shuffled", {"cannot tell", "worse"}, marks=pytest.mark.slow),
        ("always_a", {"collapsed"}),
        pytest.param("leaked", {"contaminated"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_proves_nothing_is_not_exported(stopped, name, verdicts):
    run, screen = stopped(name)
    verdict = load(run, "eval/verdict.json")
    assert verdict["verdict"] in verdicts
    assert "warning: nothing is exported: the" in screen
    assert not any((run / "export").iterdir())
    assert load(run, "manifest.json")["complete"] is True
    with pytest.raises(SlimtuneError, match=r"nothing is exported: the .* and export.require_verdict is on"):
        shipping.export_again(run, Console(file=io.StringIO()), force=False, fresh=False)


@pytest.mark.slow
def test_what_is_contaminated_is_listed_and_scored_apart(stopped):
    run, screen = stopped("leaked")
    verdict = load(run, "eval/verdict.json")
    assert verdict["contamination"]["by_kind"] == {"exact": 12}
    assert verdict["contamination"]["clean"]["n"] == 108
    pairs = {(item["where"], item["train_where"]) for item in load(run, "eval/contamination.json")["items"]}
    assert {test.rpartition(":")[2] for test, _ in pairs} == {str(number) for number in range(1, 13)}
    assert {train.rpartition(":")[2] for _, train in pairs} == {str(number) for number in range(401, 413)}
    # It is said before the training, too, when there is still time.
    assert screen.index("12 of 120 test questions are in the training data") < screen.index("▸ Training")


def test_force_exports_it_and_is_recorded(stopped):
    run, _ = stopped("always_a")
    screen = io.StringIO()
    shipping.export_again(run, Console(file=screen), force=True, fresh=False)
    assert "exported by force: the verdict is 'collapsed'" in " ".join(screen.getvalue().split())
    assert load(run, "manifest.json")["export"]["forced"].startswith("the verdict is 'collapsed'")
    assert (run / "export/merged/model.safetensors").is_file()
    assert "force" in report.render(run)
    with pytest.raises(SlimtuneError, match="there is an export already"):
        shipping.export_again(run, Console(file=io.StringIO()), force=True, fresh=False)


@pytest.mark.slow
def test_other_types_than_the_recipe_s_can_be_asked_for(stopped):
    run, _ = stopped("always_a")
    screen = io.StringIO()
    shipping.export_again(run, Console(file=screen), force=True, fresh=True, asked={"gguf": ["q5_k_m"]})
    (path,) = (run / "export").glob("*.gguf")
    exported = load(run, "manifest.json")["export"]
    assert exported["gguf"] == [path.name] and path.name.endswith(".q5_k_m.gguf")
    assert exported["quantised"]["q5_k_m"]["route"] == "xllamacpp"
    assert not (run / "export/.work").exists() and not (run / "export.unverified").exists()
    assert f"FROM ./{path.name}" in (run / "export/Modelfile").read_text(encoding="utf-8")


@pytest.mark.parametrize(("types", "what"), [("q4_k_m,q3", "not a GGUF type: q3"), ("f16,F16", "listed twice")])
def test_types_that_are_none(types, what, tmp_path):
    refused = command_line.run("export", tmp_path, "--gguf", types)
    assert refused.code == 2 and what in refused.stderr


def judge(place, out, **changes):
    request = Request(opening.spec_of(str(place)), Settings(), data=str(DATA / "test.jsonl"), out=out, **changes)
    return evaluation.evaluate(request, Console(file=io.StringIO()))


def rounded(value):
    """Other threads add up in another order: numbers to 6 digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def test_a_run_is_judged_again_with_the_same_answers(good, tmp_path):
    run, _ = good
    folder = judge(run, tmp_path / "again")
    assert rounded(load(folder, "verdict.json")) == rounded(load(run, "eval/verdict.json"))
    for who in ("base", "tuned"):
        then, now = (answer_file.read(place / f"{who}.jsonl") for place in (run / "eval", folder))
        assert [(row["id"], row["predicted"], row["prompt_sha256"]) for row in then] == [
            (row["id"], row["predicted"], row["prompt_sha256"]) for row in now
        ]
        for one, two in zip(then, now, strict=True):
            assert one["logprobs"] == pytest.approx(two["logprobs"], abs=1e-5)


def test_the_adapter_alone_is_the_run(good, tmp_path):
    run, _ = good
    folder = judge(run / "adapter", tmp_path / "adapter", alone=True)
    assert load(folder, "figures.json")["correct"] == load(run, "eval/verdict.json")["tuned"]["correct"]


@pytest.mark.slow
def test_the_gguf_answers_as_the_merged_model_item_by_item(good, tmp_path):
    run, _ = good
    (gguf,) = (run / "export").glob("*.f16.gguf")
    served = answer_file.read(judge(gguf, tmp_path / "gguf") / "answers.jsonl")
    merged = answer_file.read(judge(run / "export/merged", tmp_path / "merged") / "answers.jsonl")
    assert len(served) == 120
    assert [(row["id"], row["predicted"]) for row in served] == [(row["id"], row["predicted"]) for row in merged]


def command(*arguments):
    """What a command prints; it has to end well."""
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen), pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, arguments)))
    assert ended.value.code == 0, screen.getvalue()
    return " ".join(screen.getvalue().split())


def test_runs_are_compared_on_paper(good, stopped, tmp_path):
    run, _ = good
    other, _ = stopped("always_a")
    screen = command("compare", f"{run}:base", run, other, "--out", tmp_path / "comparison")
    result = load(tmp_path / "comparison", "comparison.json")
    assert [pair["verdict"] for pair in result["pairs"][:2]] == ["better", "cannot tell"]
    assert "Holm-adjusted p" in screen
    assert (tmp_path / "comparison/comparison.md").read_text("utf-8").startswith("# Comparison of 3 on 120 questions")
    assert "<html" in (tmp_path / "comparison/comparison.html").read_text("utf-8")


@pytest.mark.slow
def test_adapters_on_one_base_are_asked_together(good, tmp_path):
    run, _ = good
    checkpoint = max((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    arguments = ("ensemble", run, checkpoint, "--weights", "3,1", "--permutations", "2", "--out", tmp_path / "ensemble")
    screen = command(*arguments)
    answers = {
        path.stem: [row["predicted"] for row in answer_file.read(path)]
        for path in (tmp_path / "ensemble").glob("*.jsonl")
    }
    ways = {"majority-vote", "mean-probability", "weighted-vote", "weighted-mean-probability"}
    assert ways < answers.keys() and len(answers) == 6
    # The last checkpoint is the adapter: whoever is asked, and however they are combined, the answer is the same.
    assert len(set(map(tuple, answers.values()))) == 1 and len(answers["majority-vote"]) == 120
    assert "Loading 2 adapters" in screen
    assert "Loading 2 adapters" not in command(*arguments)


def test_a_report_is_rendered_from_the_folder_alone(good):
    run, _ = good
    before = (run / "report.html").read_text("utf-8")
    (run / "report.html").unlink()
    assert "report.html" in command("report", run)
    assert (run / "report.html").read_text("utf-8") == before
