"""The comparison with lm-evaluation-harness: its cases, its processes, its figures; without the harness."""

import contextlib
import json
import sys
import types

import pytest

from benchmarks import evaluate, evaluate_cases, evaluate_report
from slimtune.evaluate.targets.target import Letters
from slimtune.models import builtin

MODEL = builtin.resolve("builtin:tiny-qwen3")
CASES = {case.name: case for case in evaluate_cases.CASES}

LOOKED_AT = {"one_spelling": "b", "all_spellings": "a", "lead": 0.4}


def prepared(name, folder, most_tokens=None):
    case = evaluate_cases.prepare(CASES[name], MODEL, most_tokens, folder / "work")
    lines = (folder / "work" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return case, [json.loads(line) for line in lines]


# Figures --------------------------------------------------------------------------------------------------------------


def test_questions_a_second_come_from_the_median_round():
    rounds = [{"slimtune": 2.0, "lm_eval": 8.0}, {"slimtune": 4.0, "lm_eval": 5.0}, {"slimtune": 2.5, "lm_eval": 10.0}]
    assert evaluate_report.speeds(rounds, questions=20) == {"slimtune": 8.0, "lm_eval": 2.5}


def test_a_ratio_is_of_two_neighbours():
    # In the second round the machine was busy: both took four times as long.
    rounds = [{"slimtune": 1.0, "lm_eval": 2.0}, {"slimtune": 4.0, "lm_eval": 8.0}, {"slimtune": 1.0, "lm_eval": 3.0}]
    assert evaluate_report.ratios(rounds) == {"lm_eval": {"median": 2.0, "lowest": 2.0, "highest": 3.0}}


def test_an_answer_that_is_missing_differs():
    assert evaluate_report.differing({"1": "a", "2": "b"}, {"1": "a", "2": "c", "3": "d"}) == ["2", "3"]


@pytest.mark.parametrize(
    ("ours", "theirs", "looked_at", "why"),
    [
        ("a", "b", LOOKED_AT, evaluate_report.SPELLINGS),
        # In float32 the harness says what Slimtune says.
        ("a", "c", LOOKED_AT | {"one_spelling": "a"}, evaluate_report.ROUNDING),
        ("c", "b", LOOKED_AT | {"lead": 0.01}, evaluate_report.ROUNDING),
        ("c", "b", LOOKED_AT, evaluate_report.UNEXPLAINED),
    ],
)
def test_a_difference_has_a_cause(ours, theirs, looked_at, why):
    assert evaluate_report.explain(ours, theirs, looked_at) == why


def a_report(**changes):
    case = {
        "name": "law questions",
        "prompts": 4,
        "questions_per_second": {"slimtune": 20.0, "lm_eval": 9.0},
        "ratios": {"lm_eval": {"median": 2.2}, "lm_eval_requests": {"median": 1.9}},
        "accuracy": {"slimtune": 0.5, "lm_eval": 0.25},
        "differing": [],
        "other_prompts": [],
    }
    conditions = {"device": "cpu", "dtype": "bfloat16", "threads": 1}
    model = {"name": "tiny", "parameters": 900_000, "conditions": {"slimtune": conditions, "lm_eval": conditions}}
    return {"models": [{**model, "cases": [case | changes]}]}


def test_the_table_says_whether_the_goal_is_met():
    *_, line = evaluate_report.table(a_report()).splitlines()
    assert " ".join(line.split()) == "law questions 20.00 9.00 2.20 1.90 - met 0.500 and 0.250"
    slower = {"lm_eval": {"median": 1.99}, "lm_eval_requests": {"median": 1.9}, "unshared": {"median": 3.0}}
    *_, line = evaluate_report.table(a_report(ratios=slower)).splitlines()
    assert " ".join(line.split()) == "law questions 20.00 9.00 1.99 1.90 3.00 not met 0.500 and 0.250"


def test_a_comparison_with_other_prompts_or_unexplained_answers_is_void():
    assert evaluate_report.problems(a_report()) == []
    known = {"key": "1 abcd", "slimtune": "a", "lm_eval": "b", "why": evaluate_report.SPELLINGS}
    assert evaluate_report.problems(a_report(differing=[known])) == []
    differing = [known, known | {"key": "2 abcd", "why": evaluate_report.UNEXPLAINED}]
    other, unexplained = evaluate_report.problems(a_report(differing=differing, other_prompts=["3 abcd"]))
    assert "other token ids for 3 abcd" in other
    assert "2 abcd: a, by lm_eval b" in unexplained


def test_a_comparison_under_other_conditions_is_void():
    report = a_report()
    report["models"][0]["conditions"]["lm_eval"] = {"device": "cpu", "dtype": "float32", "threads": 1}
    (problem,) = evaluate_report.problems(report)
    assert "float32" in problem


# Cases ----------------------------------------------------------------------------------------------------------------


def test_the_harness_reads_prompts_as_slimtune_renders_them(tmp_path):
    case, prompts = prepared("short questions", tmp_path)
    assert case["count"] == len(prompts) == 120
    first = prompts[0]
    assert first["key"] == "quickstart-test-042 abcd"
    assert first["labels"] == ["a", "b", "c", "d"]
    assert first["gold"] == 1
    assert first["prompt"].startswith("<|im_start|>user\n次のうち")
    assert first["prompt"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert case["tokens"] == {"shortest": 40, "longest": 40, "all": 4800}
    assert not case["shares"]


def test_every_order_is_a_prompt_with_the_gold_label_that_it_shows(tmp_path):
    case, prompts = prepared("with statutes, in 4 orders", tmp_path, most_tokens=1)
    assert case["count"] == 2
    assert case["shares"]
    # The right choice is the file's d: rotated by one it stands third, and so on.
    assert [(one["key"], one["gold"]) for one in prompts[:4]] == [
        ("chosaku-009 abcd", 3),
        ("chosaku-009 bcda", 2),
        ("chosaku-009 cdab", 1),
        ("chosaku-009 dabc", 0),
    ]
    assert case["gold"]["chosaku-009 bcda"] == "c"
    assert prompts[1]["prompt"].index("a. その創作後50年") < prompts[1]["prompt"].index("c. その創作後70年")


def test_the_same_examples_stand_before_every_question(tmp_path):
    case, prompts = prepared("law questions, 3 examples each", tmp_path, most_tokens=1)
    assert case["shares"]
    one, other = (prompt["prompt"].split("<|im_start|>user\n") for prompt in prompts)
    assert len(one) == 5
    assert one[:4] == other[:4]
    assert one[4] != other[4]


def test_of_a_larger_model_fewer_questions_are_asked(tmp_path):
    case, prompts = prepared("law questions", tmp_path, most_tokens=2000)
    assert 2 < case["count"] < 40
    assert case["tokens"]["all"] <= 2000
    questions = (tmp_path / "work" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(questions) == len(prompts) == case["count"]


@pytest.mark.unsloth
def test_slimtune_answers_under_the_keys_of_the_prompts(tmp_path):
    from benchmarks import evaluate_slimtune

    case, _ = prepared("with statutes, in 4 orders", tmp_path, most_tokens=1)

    def score(prompts):
        likeliest_third = {"a": -3.0, "b": -2.0, "c": -1.0, "d": -4.0}
        return [Letters(likeliest_third, "c", prompt_sha256="0") for _ in prompts]

    target = types.SimpleNamespace(batch_size=1, score=score, expecting=lambda prompts: contextlib.nullcontext())
    measured = evaluate_slimtune.measure(target, case)
    assert measured["answers"] == dict.fromkeys(case["gold"], "c")
    assert measured["seconds"] > 0
    assert target.batch_size == 8


# Rounds and processes -------------------------------------------------------------------------------------------------


class Answering:
    """A contender whose rounds take the seconds that it is given, in turn; the last ones again and again."""

    def __init__(self, answers, seconds):
        self.answers, self.seconds = answers, seconds
        self.asked = []

    def ask(self, **question):
        self.asked.append(question)
        if question["do"] == "explain":
            looked_at = {"one_spelling": "b", "all_spellings": "a", "lead": 1.0}
            return {
                "explained": dict.fromkeys(question["keys"], looked_at),
                "prompt_sha256": {"1 ab": "same", "2 ab": "another"},
            }
        spent = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        told = {"seconds": spent, "requests_seconds": spent / 2, "accuracy": 0.5, "answers": self.answers}
        return told | {"prompt_sha256": {"1 ab": "same", "2 ab": "same"}}


def test_rounds_alternate_and_the_first_one_does_not_count():
    ours = Answering({"1 ab": "a", "2 ab": "a"}, [9.0, 1.0])
    theirs = Answering({"1 ab": "a", "2 ab": "b"}, [50.0, 4.0])
    case = {"orders": 1, "shares": False, "count": 2, "tokens": {}, "gold": {"1 ab": "a", "2 ab": "b"}}
    measured = evaluate.measure(ours, theirs, "case0", case, seconds=0)
    assert measured["rounds"] == 3 * [{"slimtune": 1.0, "lm_eval": 4.0, "lm_eval_requests": 2.0}]
    assert len(ours.asked) == 4
    assert measured["ratios"]["lm_eval"]["median"] == 4.0
    assert measured["accuracy"] == {"slimtune": 0.5, "lm_eval": 1.0}
    (differing,) = measured["differing"]
    assert differing["key"] == "2 ab"
    assert differing["why"] == evaluate_report.SPELLINGS
    assert measured["other_prompts"] == ["2 ab"]


def test_what_prompts_share_is_also_computed_without_sharing():
    ours, theirs = Answering({"1 ab": "a"}, [1.0]), Answering({"1 ab": "a"}, [1.0])
    case = {"orders": 4, "shares": True, "count": 1, "tokens": {}, "gold": {"1 ab": "a"}}
    case_of_one = evaluate.measure(ours, theirs, "case0", case, seconds=0)
    assert [one["share_prefixes"] for one in ours.asked] == [True, *3 * [True, False]]
    assert set(case_of_one["rounds"][0]) == {"slimtune", "lm_eval", "lm_eval_requests", "unshared"}


ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "fail":
        sys.exit("the model does not load")
    print(json.dumps({"heard": asked}), flush=True)
"""


def test_a_contender_answers_line_by_line(tmp_path):
    with evaluate.contender([sys.executable, "-I", "-c", ECHO], tmp_path / "log") as process:
        assert process.facts == {"ready": True}
        assert process.ask(do="measure", limit=None) == {"heard": {"do": "measure", "limit": None}}
        assert process.ask(do="日本") == {"heard": {"do": "日本"}}


def test_a_contender_that_ends_says_why(tmp_path):
    with (
        evaluate.contender([sys.executable, "-I", "-c", ECHO], tmp_path / "log") as process,
        pytest.raises(RuntimeError, match="the model does not load"),
    ):
        process.ask(do="fail")


def test_without_the_harness_the_script_says_how_to_get_it(tmp_path, capsys):
    assert evaluate.main(["--lm-eval-python", str(tmp_path / "python")]) == 2
    assert "pip install -r requirements-lm-eval.txt" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(tmp_path, capsys):
    assert evaluate.main(["--model", f"mine={tmp_path}"]) == 2
    assert "mine" in capsys.readouterr().err


def test_a_model_is_named_by_its_folder_or_by_name(tmp_path):
    named = evaluate._named([f"mine={tmp_path / 'a'}", str(tmp_path / "b")])
    assert named == [("mine", tmp_path / "a"), ("b", tmp_path / "b")]
