"""How errors are shown: all of them, each fault once, and nothing that a terminal would obey."""

from slimtune.core.errors import Problem, SlimtuneError, bad_data


def test_one_fault_in_many_places_is_told_once():
    alike = [Problem(f"the reply may have {500 + line} tokens", f"x.jsonl:{line}", "shorten it") for line in range(120)]
    error = SlimtuneError([Problem("another", "y"), *alike], summary="unusable")
    assert str(error).split("\n") == [
        "unusable",
        "y: another",
        "x.jsonl:0: the reply may have 500 tokens",
        "    → shorten it",
        "    120 places: x.jsonl:0, x.jsonl:1, x.jsonl:2, x.jsonl:3, x.jsonl:4, …",
    ]
    assert len(error.problems) == 121


def test_values_that_differ_are_all_told_where_they_have_no_line():
    problems = [Problem(f"was {number}, is {number + 1}", f"train.key{number}") for number in range(20)]
    assert len(str(SlimtuneError(problems)).split("\n")) == 20


def test_few_places_are_told_one_by_one():
    problems = [Problem("is empty", f"x:{line}") for line in range(1, 4)]
    assert str(SlimtuneError(problems)) == "x:1: is empty\nx:2: is empty\nx:3: is empty"


def test_a_file_s_problems_are_all_counted_and_its_first_fifty_kept():
    alike = [Problem("is empty", f"x:{line}") for line in range(1, 121)]
    others = [Problem(f"fault {chr(0x4E00 + line)}", f"x:{line}") for line in range(121, 181)]
    error = bad_data({"x": [*reversed(others), *alike], "y": []})
    assert error.summary == "180 problems in x"
    assert [problem.where for problem in error.problems] == [*(f"x:{line}" for line in range(1, 51)), "x"]
    told = str(error).split("\n")
    assert told[:3] == ["180 problems in x", "x:1: is empty", "    120 places: x:1, x:2, x:3, x:4, x:5, …"]
    assert (len(told), told[-1]) == (3 + 49 + 1, "… and 11 more")


def test_nothing_is_shown_that_a_terminal_would_obey():
    shown = str(SlimtuneError(Problem("bad \x1b[2J\ud83d\0 value\n    more", "a\rb")))
    assert shown == "a\\rb: bad \\x1b[2J\\ud83d\\x00 value\n    more"


def test_an_overlong_line_loses_its_middle():
    shown = str(SlimtuneError(Problem(f"no such file: {'x' * 100_000} end")))
    assert len(shown) < 1100 and shown.startswith("no such file: xxx") and shown.endswith("x end")
