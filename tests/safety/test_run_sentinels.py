"""Training, exports, reports and Ollama among other people's files, as far as they run without Unsloth: nothing is lost."""

import json
import shutil

import pytest
from support import command_line, fake_run, unprivileged
from support.command_line import run
from support.disks import full_disk
from support.fake_ollama import FakeOllama, write_program
from support.modelfiles import write_modelfile
from support.ollama_runs import answering, make_run
from support.paths import ROOT
from support.sentinels import PLACES, WORK, changed, ends, plant, refused, tree

BEGUN = "Loading"
"""What a command says when it loads a model, which no refused one may."""


@pytest.fixture
def box(tmp_path, monkeypatch):
    """The working directory: the quickstart's recipe with its data, an adapter, and sentinels beside them."""
    work = tmp_path / "work"
    plant(work)
    for name in ("train", "dev", "test"):
        shutil.copy(ROOT / f"data/quickstart/{name}.jsonl", work / f"{name}.jsonl")
    recipe = (ROOT / "recipes/quickstart.yaml").read_text("utf-8").replace("data/quickstart/", "")
    (work / "quick.yaml").write_text(recipe, encoding="utf-8")
    (work / "adapter").mkdir()
    config = {"base_model_name_or_path": "builtin:tiny-qwen3", "peft_type": "LORA", "r": 8}
    (work / "adapter/adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (work / "adapter/adapter_model.safetensors").write_bytes(b"")
    (tmp_path / "home").mkdir()
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(work)
    (work / "case").mkdir()
    return work


# Training and export: where they would write -----------------------------------------------------------------------------


def train(box, output):
    return refused(box, "--recipe", "quick.yaml", f"run.output_dir={output}", run=command_line.train, unless=BEGUN)


def export(box, *options):
    return refused(box, "export", "adapter", *options, unless=BEGUN)


def often(names, chosen):
    """The parameters: these always, the others in `make test-all`."""
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("place", often([place for place in PLACES if place != "a folder"], ["a file"]))
def test_a_run_is_not_begun_where_it_cannot_be_written(box, place):
    train(box, PLACES[place](box / "case", "")[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what"), [("quickstart", "file"), ("quickstart/latest", "file"), ("quickstart/latest", "folder")]
)
def test_what_has_the_name_of_a_runs_folder_is_not_replaced(box, name, what):
    taken = box / "case" / name
    taken.parent.mkdir(exist_ok=True)
    if what == "file":
        taken.write_bytes(WORK)
    else:
        plant(taken)
    train(box, box / "case")


@pytest.mark.parametrize("option", ["--out", "--merged"])
@pytest.mark.parametrize("place", often(PLACES, ["a folder"]))
def test_an_export_is_not_begun_where_it_cannot_be_written(box, place, option):
    output, _ = PLACES[place](box / "case", "")
    out = () if option == "--out" else ("--out", "case/exp")
    export(box, *out, option, output)
    export(box, *out, option, output, "--fresh")


@pytest.mark.parametrize("option", ["--out", "--merged"])
@pytest.mark.parametrize("output", often(["adapter/new", "adapter", ".", "..", "exp.old", "outputs", "link"], ["link"]))
def test_an_export_is_not_begun_on_its_inputs_nor_on_somebodys_folder(box, option, output):
    (box / "link").symlink_to("adapter")
    out = () if option == "--out" else ("--out", "case/exp")
    export(box, *out, option, output, "--fresh")


@pytest.mark.slow
def test_read_only_places_are_refused_before_anything_is_loaded(box):
    shut = box / "case/shut"
    shut.mkdir(mode=0o555)

    def body():
        train(box, shut / "outputs")
        train(box, shut)
        export(box, "--out", shut / "exp")
        export(box, "--out", "case/exp", "--merged", shut / "mm")

    unprivileged.run(body)


@pytest.mark.parametrize("content", [WORK, b"FROM ./x.gguf\n", b"GGUF"])
def test_a_check_of_a_file_writes_nothing(box, content):
    (box / "case/Modelfile").write_bytes(content)
    before = tree(box.parent)
    assert run("export", "--check", "case/Modelfile").code in (1, 2)
    assert tree(box.parent) == before


# Reports -----------------------------------------------------------------------------------------------------------------

WRITTEN = {"report.html", "experiment_log.md"}


@pytest.fixture
def recorded(box):
    """A complete run with other people's files in it, but for those that a run's record consists of."""
    folder = fake_run.write(box / "case")
    sentinels = box / "case/sentinels"
    plant(sentinels)
    for path in sorted(sentinels.rglob("*")):
        target = folder / path.relative_to(sentinels)
        if path.is_file() and not target.exists() and target.name not in (".lock", *WRITTEN):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return folder


def test_a_report_writes_its_two_files_and_no_others(box, recorded):
    before = tree(box.parent)
    ends(run("report", recorded), 0)
    inside = str(recorded.relative_to(box.parent))
    assert changed(before, tree(box.parent)) == {f"{inside}/{name}" for name in WRITTEN}
    (recorded / "manifest.json").write_bytes(WORK)
    refused(box, "report", recorded)


@pytest.mark.parametrize("place", often(PLACES, ["a folder", "a file"]))
def test_a_report_of_what_is_no_run_writes_nothing(box, place):
    refused(box, "report", PLACES[place](box / "case", "")[0])


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(box, recorded):
    ends(run("report", recorded), 0)
    (recorded / "manifest.json").touch()

    def body():
        before = tree(box.parent)
        recorded.chmod(0o555)
        ends(run("report", recorded), 2)
        recorded.chmod(0o755)
        assert changed(before, tree(box.parent)) == set()

    unprivileged.run(body)


@pytest.mark.slow
def test_a_report_on_a_full_disk_is_one_sentence(box, recorded):
    (box / "full").mkdir()
    with full_disk(box / "full", holding=recorded):
        before = tree(box)
        done = run("report", f"full/{recorded.name}")
        ends(done, 2)
        assert f"full/{recorded.name}" in done.stderr
        assert changed(before, tree(box)) == set()


# Ollama ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ollama(box, monkeypatch):
    """A well-behaved fake."""
    with FakeOllama(answering()) as fake:
        (box.parent / "bin").mkdir()
        monkeypatch.setenv("PATH", str(box.parent / "bin"), prepend=":")
        fake.program = write_program(box.parent / "bin", fake.url)
        monkeypatch.setenv("OLLAMA_HOST", fake.host)
        monkeypatch.delenv("SLIMTUNE_OLLAMA", raising=False)
        yield fake


def test_a_model_is_created_and_only_its_result_is_written(box, ollama):
    folder = make_run(box / "case")
    plant(folder / "export/mine")
    before = tree(box)
    ends(run("ollama", "create", folder), 0)
    assert changed(before, tree(box)) == {"case/run/export/ollama.json"}
    ends(run("ollama", "create", folder, "--replace"), 0)
    assert changed(before, tree(box)) == {"case/run/export/ollama.json"}


def test_somebodys_file_in_the_results_place_stays(box, ollama):
    folder = make_run(box / "case")
    (folder / "export/ollama.json").write_bytes(WORK)
    refused(box, "ollama", "create", folder)
    assert (folder / "export/ollama.json").read_bytes() == WORK


def test_a_folder_that_is_no_export_is_not_written_to(box, ollama):
    write_modelfile(
        box / "case/Modelfile", gguf_name="x.gguf", family="qwen3", thinking=False, system=None, num_ctx=512
    )
    for place in ("case", "place", ".", "adapter"):
        refused(box, "ollama", "create", place)
