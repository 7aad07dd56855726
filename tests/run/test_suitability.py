"""An evaluation that does not suit the training data is told before anything is loaded, and the advice works.

Each case is the quickstart's recipe with other rows. Where the advice names values to set, they are set: the finding is
gone then, and the run plans.
"""

import copy
import json
import re
import shlex

import pytest
from support import command_line
from support.faulty_recipes import Place
from support.paths import ROOT

from slimtune.core.errors import SlimtuneError
from slimtune.data.loading import load_conversations
from slimtune.recipe import loading, yaml_lines
from slimtune.run import prepare, suitability

SET = re.compile(r"(?:set|and) ((?:data|evaluate|model)\.[a-z_]+): (\"(?:[^\"\\]|\\.)*\"|\[.*?\]|[^\s,;]+)")
TOPICS = ("川", "森", "海", "山", "星", "橋", "駅", "畑", "滝", "島", "丘", "港")
ENGLISH = ("river", "wood", "sea", "hill", "star", "bridge", "train", "field", "fall", "island", "road", "harbour")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("data"), {}
    for name, count in {"train": 36, "dev": 32, "test": 32}.items():
        lines = (ROOT / f"data/quickstart/{name}.jsonl").read_text("utf-8").splitlines(keepends=True)[:count]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        rows[name] = [json.loads(line) for line in lines]
    return folder, rows


def free(
    topics, prompt="{}の様子を一文で書いてください。", answer="{}はとても静かで、朝の光にゆっくりと輝いています。"
):
    return [{"input": prompt.format(one), "output": answer.format(one)} for one in topics]


def japanese(part=slice(None)):
    return free(TOPICS[part])


def english(part=slice(None)):
    prompt, answer = "Describe what the {} is like in one sentence.", "The {} is very quiet and shines in the light."
    return free(ENGLISH[part], prompt, answer)


def argued(rows):
    return [
        row
        | {
            "output": f"条例によれば届出が要るのはこれだけである。\n回答: {row['output']}",
            "meta": row["meta"] | {"mode": "cot"},
        }
        for row in copy.deepcopy(rows)
    ]


def systems(rows, text):
    return [row | {"system": text} for row in rows]


def use(place, *, train=None, dev=None, test=None, **values):
    """Write these rows and set these values."""
    if train is not None:
        place.set(data__train=[{"path": place.write("train", train)}])
    if dev is not None:
        place.set(data__eval=place.write("dev", dev))
    if test is not None:
        place.set(evaluate__data=place.write("test", test))
    place.set(**values)


def of_gold(rows, label):
    """The questions with the right choice at this label."""
    found = copy.deepcopy(rows)
    for row in found:
        meta = row["meta"]
        old, new = meta["choices"][meta["correct"]], meta["choices"][label]
        meta["choices"] |= {label: old, meta["correct"]: new}
        lines = "\n".join(f"{key}：{text}" for key, text in meta["choices"].items())
        row["input"] = f"次のうち、届出が要るものはどれか。\n{lines}\n\n記号一文字で答えよ。"
        row["output"] = meta["correct"] = label
    return found


GENERATION = {"evaluate__kind": "generation", "evaluate__max_new_tokens": 64}
# name: (change, code, a part of what is said, whether the advice is values to set)
CASES = {
    "free text judged by letters, and nothing held out": (
        lambda it: use(it, train=japanese(), data__eval=None),
        "other-task",
        "are multiple-choice questions",
        True,
    ),
    "free text judged by letters": (
        lambda it: use(it, train=japanese(), dev=free(TOPICS, "{}はどんな所ですか。一文で書いてください。")),
        "other-task",
        "are multiple-choice questions",
        True,
    ),
    "letters judged as text": (
        lambda it: it.set(**GENERATION),
        "labels-as-text",
        "32 of 32 references are labels",
        True,
    ),
    "the likelihood of letters": (lambda it: it.set(evaluate__kind="perplexity"), "labels-as-text", "how likely", True),
    "another language": (
        lambda it: use(it, train=japanese(slice(0, 9)), dev=japanese(slice(9, 12)), test=english(), **GENERATION),
        "other-language",
        "12 of 12 evaluation rows ask in",
        True,
    ),
    "questions in another language": (
        lambda it: use(it, test=[row | {"input": row["input"].replace("次のうち、届出が要るものはどれか。", "Which of these must be notified of to the town before it may begin?").replace("記号一文字で答えよ。", "Answer with the letter of the choice that is right, and with no other word.")} for row in it.rows["test"]]),
        "other-language",
        "evaluation rows ask in",
        True,
    ),
    "another instruction": (
        lambda it: use(it, test=[row | {"input": row["input"].replace("記号一文字で答えよ。", "記号だけを書くこと。")} for row in it.rows["test"]]),
        "other-prompt",
        "32 of 32 prompts of the evaluation have '記号だけを書くこと。', and",
        True,
    ),
    "no system prompt where the training has one": (
        lambda it: use(it, train=systems(it.rows["train"], "届出の係: 一文字で、答える。"), dev=systems(it.rows["dev"], "届出の係: 一文字で、答える。")),
        "other-system-prompt",
        "no system prompt",
        True,
    ),
    "a system prompt where the training has none": (
        lambda it: use(it, test=systems(it.rows["test"], 'Say "a" or "b".')),
        "other-system-prompt",
        "have the system prompt",
        True,
    ),
    "another system prompt": (
        lambda it: use(it, train=systems(it.rows["train"], "一"), dev=systems(it.rows["dev"], "一"), test=systems(it.rows["test"], "二")),
        "other-system-prompt",
        "the system prompt '二'",
        False,
    ),
    "choices in another form": (
        lambda it: use(it, test=[row | {"input": row["input"].replace("：", ". ")} for row in it.rows["test"]]),
        "other-layout",
        "'a. …'",
        True,
    ),
    "arguments where letters are trained": (
        lambda it: use(it, test=[*argued(it.rows["test"]), *it.rows["test"]], evaluate__mode="cot", evaluate__max_new_tokens=64),
        "other-mode",
        "evaluate.mode is cot",
        True,
    ),
    "letters where arguments are trained": (
        lambda it: use(it, train=argued(it.rows["train"]), dev=argued(it.rows["dev"]), test=[*argued(it.rows["test"]), *it.rows["test"]], evaluate__max_new_tokens=64),
        "other-mode",
        "answer with an argument with a label",
        True,
    ),
    "the text of a choice in place of its letter": (
        lambda it: use(it, **{name: [row | {"output": row["meta"]["choices"][row["output"]]} for row in it.rows[name]] for name in ("train", "dev", "test")}),
        "answers-are-not-labels",
        "36 of 36 training rows answer with the text of a choice",
        True,
    ),
    "one right answer": (lambda it: use(it, test=of_gold(it.rows["test"], "a")), "one-right-answer", "32 of 32", True),
    "few questions": (lambda it: it.set(evaluate__max_items=8), "few-questions", "75 points", True),
    "hardly a question": (lambda it: it.set(evaluate__max_items=3), "few-questions", "no test can tell", True),
    "answers that are cut off": (
        lambda it: use(it, train=japanese(), dev=english(slice(0, 2)), test=free(TOPICS, "{}とは何ですか。教えてください。", "{}は静かで、朝の光にゆっくりと輝いています。"), evaluate__kind="generation", evaluate__max_new_tokens=8),
        "replies-cut-off",
        "12 of 12 reference answers",
        True,
    ),
    "one answer is a paragraph": (
        lambda it: use(it, train=japanese(), test=free(TOPICS, "{}とは何ですか。教えてください。", "{}は静かです。" + "朝の光に輝いています。" * 40), model__max_seq_length=512, **GENERATION),
        "other-length",
        "times longer",
        True,
    ),
    "JSON in place of sentences": (
        lambda it: use(it, train=japanese(), test=free(TOPICS, "{}とは何ですか。教えてください。", '{{"名": "{}"}}'), **GENERATION),
        "other-answers",
        "answer with JSON",
        True,
    ),
    "no full stops": (
        lambda it: use(it, train=japanese(), test=free(TOPICS, "{}とは何ですか。教えてください。", "{}は静かで、朝の光に輝いています"), **GENERATION),
        "other-ending",
        "without a full stop",
        True,
    ),
    "Markdown": (
        lambda it: use(it, train=japanese(), test=free(TOPICS, "{}とは何ですか。教えてください。", "- {}は静かです。\n- 朝の光に輝いています。"), **GENERATION),
        "other-markdown",
        "are Markdown",
        True,
    ),
}  # fmt: skip


# Proofs that tests/evaluate/test_mismatch.py gives without a plan.
SLOW = {
    "the likelihood of letters",
    "hardly a question",
    "questions in another language",
    "another instruction",
    "a system prompt where the training has none",
    "another system prompt",
    "letters where arguments are trained",
    "one answer is a paragraph",
    "JSON in place of sentences",
    "no full stops",
    "Markdown",
}


def told(place):
    """What is found, by code, and whether it is refused."""
    recipe = loading.load(str(place.save()))
    try:
        return {one.code: one for one in prepare.prepare(recipe).warnings}, None
    except SlimtuneError as error:
        return {}, error


def apply(place, fix):
    """Type the command that the advice gives, and set what it says; whether it names values."""
    for command in re.findall(r"slimtune (data split [^,]+?)(?:,| makes|$)", fix):
        assert command_line.run(*shlex.split(command)).code == 0
    values = {key.replace(".", "__"): yaml_lines.parse_value(text) for key, text in SET.findall(fix)}
    place.set(**values)
    return bool(values)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_it_is_told_and_the_advice_works(name, tmp_path, data, monkeypatch):
    change, code, what, mechanical = CASES[name]
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, data)
    change(place)
    found, error = told(place)
    if error:
        (problem,) = error.problems
        said, fix = problem.what, problem.fix
    else:
        assert code in found, found
        said, fix = found[code].what, found[code].fix
    assert what in said, said
    assert apply(place, fix) == mechanical, fix
    if mechanical:
        found, error = told(place)
        assert error is None and code not in found, (fix, error, found.get(code))


def test_questions_without_choices_are_told_once_and_by_plan_and_check(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, data)
    use(place, train=japanese(), test=free(TOPICS, "{}とは何ですか。教えてください。"))
    place.set(data__eval=None)
    _, error = told(place)
    (problem,) = error.problems
    assert "none of 12 rows has choices" in problem.what
    checked = command_line.run("data", "check", "--recipe", place.save(), "--json")
    assert checked.code == 2 and problem.what in checked.stdout
    apply(place, problem.fix)
    _, error = told(place)
    # 512 tokens of a reply are more than the model's context: one value for all prompts.
    assert len({problem.fix for problem in error.problems}) == 1
    apply(place, error.problems[0].fix)
    found, error = told(place)
    assert error is None and not found


def test_too_little_room_for_a_reply_names_the_room_that_there_is(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, data)
    use(place, train=japanese(), test=free(TOPICS, "{}とは何ですか。教えてください。"), evaluate__kind="generation")
    place.set(data__eval=None)
    _, error = told(place)
    longest = max(int(re.search(r"may have (\d+)", one.what)[1]) for one in error.problems)
    assert error.problems[0].fix.endswith(
        f"or evaluate.max_new_tokens: {256 + 512 - longest} (--max-new-tokens {256 + 512 - longest})"
    )
    place.set(evaluate__max_new_tokens=256 + 512 - longest)
    assert told(place)[1] is None
    place.set(evaluate__max_new_tokens=256 + 513 - longest)
    assert told(place)[1] is not None


@pytest.mark.parametrize("advice", ["model.max_seq_length", "data.max_overlong"])
def test_either_advice_about_long_examples_works(advice, tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, data)
    long = [row | {"input": "長い前置きがある。" * 60 + row["input"]} for row in place.rows["train"][:5]]
    use(place, train=[*long, *place.rows["train"][5:]])
    _, error = told(place)
    (problem,) = error.problems
    values = dict(re.findall(r"((?:model|data)\.[a-z_]+)=([\d.]+\d|\d)", problem.fix))
    assert values.keys() == {"model.max_seq_length", "data.max_overlong"}
    place.set(**{advice.replace(".", "__"): yaml_lines.parse_value(values[advice])})
    assert told(place)[1] is None


def test_the_check_finds_what_the_plan_finds(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, data)
    use(place, train=japanese(), test=english(), **GENERATION)
    place.set(data__eval=None, evaluate__max_new_tokens=4)
    found, _ = told(place)
    assert {"other-language", "replies-cut-off"} <= found.keys()
    checked = command_line.run("data", "check", "--recipe", place.save(), "--json")
    assert checked.code == 0, checked.stdout
    shared = {one["code"]: one["what"] for one in json.loads(checked.stdout)["findings"]}
    assert {code: shared.get(code) for code in found} == {code: one.what for code, one in found.items()}
    shown = " ".join(command_line.run("plan", place.save()).stdout.split())
    assert f"warning: evaluate.data: {found['other-language'].what}" in shown


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_no_false_alarm_about_the_recipes_that_are_shipped(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = loading.load(str(path))
    sources, data = [(one.path, one.weight) for one in recipe.data.train], recipe.data
    rows = load_conversations(sources, mode=data.mode, system=data.system).conversations
    assert suitability.judge_of(recipe, None)(rows) == []
