"""What a resumed run takes over from the earlier one's files is checked before anything is loaded."""

import json

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.core.run_folder import RecordedRun
from slimtune.run import resume


@pytest.mark.parametrize(
    ("name", "value"), [("total_steps", "x"), ("epochs", None), ("lora_targets", [1]), ("packing", 1), ("seed", 1.5)]
)
def test_a_recorded_plan_of_another_form_is_refused(tmp_path, a_plan, name, value):
    plan = a_plan()
    content = json.loads(json.dumps(plan.as_json()))
    assert resume.recorded_plan(plan, RecordedRun(tmp_path, {}, content, {})) == plan
    content["settings"][name]["value"] = value
    with pytest.raises(SlimtuneError, match=rf"plan\.json: the setting {name} cannot be"):
        resume.recorded_plan(plan, RecordedRun(tmp_path, {}, content, {}))


def test_metrics_that_cannot_be_read_stop_nothing_halfway(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n{"step": "2"}\n{"step": 3', encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(SlimtuneError, match=r"metrics\.jsonl:2: step: must be a valid integer, not '2'"):
        resume.forget_after(path, 1)
    assert path.read_bytes() == before
