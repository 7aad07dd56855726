"""The share, the cap and the seed of a mixture."""

import json

from typer.testing import CliRunner

from slimtune.cli import app
from slimtune.data.mixing import mix


def _file(path, name, count):
    rows = ({"input": f"{name} {n}", "output": "a", "meta": {"source": f"{name}{n % 2}"}} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_share_cap_and_seed(tmp_path):
    task, general = _file(tmp_path / "t.jsonl", "t", 40), _file(tmp_path / "g.jsonl", "g", 10)
    mixture = mix([(task, 1.0)], general=general, share=0.2, cap=10, seed=1)
    assert mixture.used == {task: 20, general: 5} and mixture.missing_general == 0
    again = mix([(task, 1.0)], general=general, share=0.2, cap=10, seed=1)
    assert again.conversations == mixture.conversations
    assert mix([(task, 0.5)], general=general, share=0.5, cap=None, seed=1).missing_general == 10


def test_a_weight_above_one_is_refused(tmp_path):
    task = _file(tmp_path / "t.jsonl", "t", 4)
    result = CliRunner().invoke(app, ["data", "mix", f"{task}=2", "-o", str(tmp_path / "o.jsonl")])
    assert "repeats rows" in str(result.exception) and not (tmp_path / "o.jsonl").exists()
    result = CliRunner().invoke(app, ["data", "mix", f"{task}=0.5", "-o", str(tmp_path / "o.jsonl")])
    assert result.exit_code == 0 and len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
