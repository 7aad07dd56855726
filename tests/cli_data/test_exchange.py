"""`data export` and `data import` as a person uses them."""

from pathlib import Path

from typer.testing import CliRunner

from slimtune.cli import app

TRAIN = str(Path(__file__).parents[2] / "data/law/direct_rag.train.jsonl")


def test_out_to_the_service_and_back(tmp_path):
    there, back = str(tmp_path / "o.jsonl"), str(tmp_path / "i.jsonl")
    out = CliRunner().invoke(app, ["data", "export", TRAIN, "--to", "openai", "-o", there, "--price-per-million", "25"])
    assert out.exit_code == 0 and "estimated" in out.output and "'meta' is dropped" in out.output
    result = CliRunner().invoke(app, ["data", "import", there, "--from", "openai", "-o", back])
    assert result.exit_code == 0 and "layout input_output" in result.output
