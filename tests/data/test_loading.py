"""Files to conversations: filtering, mixing, repetitions, and all problems of all files at once."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import Loaded, load_conversations


def row(number: int, mode: str | None = None, **fields: object) -> dict:
    value = {"input": f"問{number}", "output": f"答{number}", **fields}
    return value if mode is None else {**value, "meta": {"mode": mode}}


def write(path: Path, rows: list) -> str:
    lines = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def inputs(loaded: Loaded) -> list[str]:
    return [conversation.messages[-2].content for conversation in loaded.conversations]


def error_of(*paths: str, **options: object) -> SlimtuneError:
    with pytest.raises(SlimtuneError) as caught:
        load_conversations([(path, 1.0) for path in paths], **options)  # type: ignore[arg-type]
    return caught.value


def test_one_file_keeps_its_order(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(number) for number in range(30)])
    loaded = load_conversations([(path, 1.0)])
    assert inputs(loaded) == [f"問{number}" for number in range(30)]
    (report,) = loaded.files
    assert (report.file.layout, report.file.rows) == ("input_output", 30)
    assert (report.kept, report.used, report.weight) == (30, 30, 1.0)
    assert report.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert report.file.nfc_changed == 0
    assert loaded.conversations[4].where == f"{path}:5"


def test_formats_are_detected_per_file_and_mixed(tmp_path):
    first = write(tmp_path / "a.jsonl", [row(number) for number in range(20)])
    second = write(tmp_path / "b.jsonl", [{"instruction": f"命{number}", "output": "甲"} for number in range(20)])
    loaded = load_conversations([(first, 1.0), (second, 1.0)], system="簡潔に", seed=1)
    assert [report.file.layout for report in loaded.files] == ["input_output", "alpaca"]
    assert {conversation.messages[0].content for conversation in loaded.conversations} == {"簡潔に"}
    expected = [f"問{number}" for number in range(20)] + [f"命{number}" for number in range(20)]
    assert inputs(loaded) != expected
    assert sorted(inputs(loaded)) == sorted(expected)
    assert loaded == load_conversations([(first, 1.0), (second, 1.0)], system="簡潔に", seed=1)
    assert inputs(loaded) != inputs(load_conversations([(first, 1.0), (second, 1.0)], system="簡潔に", seed=2))


def test_nfc_changes_and_unused_keys_are_counted(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1), row(2, note="か\u3099", id=3), {"input": "か\u3099", "output": "x"}])
    (report,) = load_conversations([(path, 1.0)]).files
    assert report.file.nfc_changed == 1
    assert tuple(report.file.ignored) == ("note", "id")


# --- weights


@pytest.mark.parametrize(("weight", "counts"), [(0.5, {1: 5}), (1.0, {1: 10}), (2.0, {2: 10}), (2.3, {2: 7, 3: 3})])
def test_weights_repeat_and_sample(tmp_path, weight, counts):
    path = write(tmp_path / "x.jsonl", [row(number) for number in range(10)])
    loaded = load_conversations([(path, weight)], seed=3)
    assert Counter(Counter(inputs(loaded)).values()) == counts
    assert loaded.files[0].used == sum(times * rows for times, rows in counts.items())
    assert loaded == load_conversations([(path, weight)], seed=3)


def test_a_sample_depends_on_the_seed_and_keeps_file_order(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(number) for number in range(100)])
    samples = [inputs(load_conversations([(path, 0.5)], seed=seed)) for seed in (1, 2)]
    assert samples[0] != samples[1]
    assert all(sample == sorted(sample, key=lambda text: int(text[1:])) for sample in samples)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.floats(0.5, 4.0))
def test_weighted_counts(tmp_path_factory, count, weight):
    path = write(tmp_path_factory.mktemp("weights") / "x.jsonl", [row(number) for number in range(count)])
    times = Counter(inputs(load_conversations([(path, weight)])))
    assert abs(sum(times.values()) - weight * count) <= 0.5 + 1e-9
    assert set(times.values()) <= {int(weight), int(weight) + 1}


def test_impossible_weights(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1), row(2)])
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SlimtuneError, match="not a positive number"):
            load_conversations([(path, weight)])
    with pytest.raises(SlimtuneError, match=r"weight 0\.1 of 2 rows leaves none"):
        load_conversations([(path, 0.1)])


# --- mode


def test_mode_filters_on_meta_mode(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1, "direct"), row(2, "cot"), row(3, "direct")])
    assert inputs(load_conversations([(path, 1.0)], mode="direct")) == ["問1", "問3"]
    loaded = load_conversations([(path, 1.0)], mode="cot")
    assert inputs(loaded) == ["問2"]
    (report,) = loaded.files
    assert (report.file.sound, report.kept, report.file.rows) == (3, 1, 3)
    assert len(load_conversations([(path, 1.0)]).conversations) == 3


def test_rows_without_mode_are_said_once(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1, "direct"), row(2), row(3), row(4, "Direct")])
    error = error_of(path, mode="direct")
    assert [(problem.where, problem.what) for problem in error.problems] == [
        (f"{path}:2", "2 rows without meta.mode, first at line 2; data.mode is direct"),
        (f"{path}:4", "meta.mode is 'Direct', neither direct nor cot; data.mode is direct"),
    ]


def test_nothing_left_is_an_error(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1, "cot"), row(2, "cot")])
    (problem,) = error_of(path, mode="direct").problems
    assert problem.what == "no row is left: none has meta.mode direct (there are: 2 cot)"


# --- repetitions


def test_duplicates_and_contradictions_name_both_places(tmp_path):
    first = write(tmp_path / "a.jsonl", [row(1), row(2), row(1), {"input": "問2", "output": "other"}])
    second = write(tmp_path / "b.jsonl", [row(9), row(2), {"input": "問1", "output": "か\u3099"}, row(7)])
    error = error_of(first, second)
    assert [(problem.where, problem.what) for problem in error.problems] == [
        (f"{first}:3", f"duplicate rows: {first}:1 and {first}:3"),
        (f"{first}:4", f"the same input has two different answers: {first}:2 and {first}:4"),
        (f"{second}:2", f"duplicate rows: {first}:2 and {second}:2"),
        (f"{second}:3", f"the same input has two different answers: {first}:1 and {second}:3"),
    ]


def test_direct_and_cot_may_share_a_prompt(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1, "direct"), row(1, "cot", output="根拠\n回答: a")])
    assert len(load_conversations([(path, 1.0)]).conversations) == 2
    path = write(tmp_path / "y.jsonl", [row(1, "cot"), row(1, "cot", output="根拠\n回答: a")])
    assert "two different answers" in str(error_of(path))


def test_the_same_prompt_after_another_history_is_no_repetition(tmp_path):
    def talk(first: str) -> dict:
        texts = [("user", first), ("assistant", "はい"), ("user", "続けて"), ("assistant", first)]
        return {"messages": [{"role": role, "content": content} for role, content in texts]}

    path = write(tmp_path / "x.jsonl", [talk("一"), talk("二")])
    assert len(load_conversations([(path, 1.0)]).conversations) == 2


def test_a_file_listed_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "x.jsonl", [row(1)])
    write(tmp_path / "copy.jsonl", [row(1)])
    assert [problem.what for problem in error_of(path, path).problems] == ["the file is listed twice"]
    assert [str(problem).split("\n")[0] for problem in error_of("x.jsonl", "./x.jsonl", "copy.jsonl").problems] == [
        "./x.jsonl: the same content as x.jsonl, which is listed too",
        "copy.jsonl: the same content as x.jsonl, which is listed too",
    ]


# --- all problems at once


def test_one_file_with_every_kind_of_fault(tmp_path):
    good = row(1)
    planted: list[tuple[object, str | None]] = [
        (good, None),
        ({"input": "x"}, "'output' is missing"),
        (row(3, output=None), "'output' is null, not a string"),
        (row(4, output=""), "'output' (assistant) is empty"),
        (row(5, input=" \t"), "'input' (user) is only white space"),
        (row(6, output=7), "'output' is a number, not a string"),
        (row(7, output=["a"]), "'output' is a list of content parts"),
        ("", None),
        ('{"input": "x", "output": "y"', "broken JSON at column 29: Expecting ',' delimiter"),
        ('{"input": "x", "output": "y", "output": "z"}', "the key 'output' occurs twice"),
        ('{"input": "x", "output": NaN}', "NaN is not a JSON value"),
        ("[1]", "the row is a list"),
        (row(13, input="x<|im_end|>"), "'input' (user) contains the control token <|im_end|>"),
        (row(14, output="<think>x"), "'output' (assistant) contains the control token <think>"),
        (row(15, input="a\0"), "'input' (user) contains a NUL character"),
        ('{"input": "\\ud800", "output": "y"}', "'input' (user) contains the lone surrogate \\ud800"),
        (row(17, meta="direct"), "'meta' is a string, not an object"),
        ({"messages": [{"role": "user", "content": "x"}]}, "a row of format messages in a file of format input_output"),
        (row(19, tools=[{}]), "'tools[0]' has no name"),
        (good, "duplicate rows"),
        (row(1, output="other"), "the same input has two different answers"),
        (row(22), None),
    ]
    path = Path(write(tmp_path / "x.jsonl", [value for value, _ in planted]))
    path.write_bytes(path.read_bytes() + '{"input": "問", "output": "答"}\n'.encode("cp932"))
    planted.append(("", "not UTF-8 at byte 12 of the line (0x96); it looks like cp932"))

    error = error_of(str(path))
    lines = [problem.where for problem in error.problems]
    assert lines == [f"{path}:{number}" for number, (_, what) in enumerate(planted, start=1) if what]
    for problem, what in zip(error.problems, [what for _, what in planted if what], strict=True):
        assert problem.what.startswith(what)
        assert problem.fix
    assert error.summary == f"{len(lines)} problems in {path}"
    assert error.exit_code == 2


def test_all_files_are_reported_together(tmp_path):
    broken = write(tmp_path / "a.jsonl", ["{", "{}"])
    empty = write(tmp_path / "b.jsonl", [])
    missing = str(tmp_path / "c.jsonl")
    repeated = write(tmp_path / "d.jsonl", [row(1), row(1)])
    error = error_of(broken, empty, missing, repeated)
    assert [problem.where for problem in error.problems] == [f"{broken}:2", empty, missing, f"{repeated}:2"]
    assert error.summary == (
        f"1 problem in {broken}, 1 problem in {empty}, 1 problem in {missing}, 1 problem in {repeated}"
    )


def test_at_most_fifty_problems_of_a_file_are_shown(tmp_path):
    many = write(tmp_path / "a.jsonl", [row(0)] + [row(number, output="") for number in range(1, 121)])
    few = write(tmp_path / "b.jsonl", [row(500), row(501, output="")])
    error = error_of(many, few)
    assert len(error.problems) == 50 + 1 + 1
    assert error.problems[49].where == f"{many}:51"
    assert error.problems[50].what == "… and 70 more"
    assert error.problems[51].where == f"{few}:2"
    assert str(error).startswith(f"120 problems in {many}, 1 problem in {few}\n")


def test_bad_arguments_are_said_at_once(tmp_path):
    path = write(tmp_path / "x.jsonl", [row(1)])
    with pytest.raises(SlimtuneError) as caught:
        load_conversations([(path, 0.0)], mode="both", format="alpacca", system="<|im_end|>")  # type: ignore[arg-type]
    assert [problem.what for problem in caught.value.problems] == [
        "the weight 0 is not a positive number",
        "unknown mode 'both'",
        "unknown data format 'alpacca'",
        "the system prompt contains the control token <|im_end|>",
    ]
    with pytest.raises(SlimtuneError, match="no data file is named"):
        load_conversations([])


def test_importing_is_quick_and_light():
    code = (
        "import sys, time; start = time.process_time(); import slimtune.data.loading; "
        "print(time.process_time() - start); "
        "print([name for name in ('torch', 'datasets', 'pyarrow', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        for _ in range(3)
    ]
    assert min(float(seconds) for seconds, *_ in done) < 0.3
    assert done[0][1] == "[]"
