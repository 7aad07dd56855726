"""`data export` and `data import` as a person uses them."""

from support.command_line import run
from support.paths import ROOT
from support.questions_of_their_own import row, write
from typer.testing import CliRunner

from slimtune.cli.app import app

TRAIN = str(ROOT / "data/law/direct_rag.train.jsonl")


def test_out_to_the_service_and_back(tmp_path):
    there, back = str(tmp_path / "o.jsonl"), str(tmp_path / "i.jsonl")
    out = CliRunner().invoke(app, ["data", "export", TRAIN, "--to", "openai", "-o", there, "--price-per-million", "25"])
    assert out.exit_code == 0 and "estimated" in out.output and "'meta' is dropped" in out.output
    result = CliRunner().invoke(app, ["data", "import", there, "--from", "openai", "-o", back])
    assert result.exit_code == 0 and "layout input_output" in result.output


def test_another_layout_than_asked_for_is_told_in_words_of_the_option(tmp_path):
    path, back = write(tmp_path / "a.jsonl", [row(1)]), tmp_path / "b.jsonl"
    for origin in ("alpaca", "openai"):
        out = run("data", "import", path, "--from", origin, "-o", back)
        assert out.code == 2 and "data.format" not in out.stderr and not back.exists()
        assert f"--from is {origin}, but the rows have the format input_output" in out.stderr
        assert "set --from to input_output or auto" in out.stderr


def test_a_file_that_is_read_is_not_written_over(tmp_path):
    path = write(tmp_path / "a.jsonl", [row(1)])
    before = (tmp_path / "a.jsonl").read_bytes()
    for arguments in (("export", path, "--to", "alpaca"), ("import", path)):
        out = run("data", *arguments, "-o", path, "--overwrite")
        assert out.code == 2 and "is also an input" in out.stderr
    assert (tmp_path / "a.jsonl").read_bytes() == before
