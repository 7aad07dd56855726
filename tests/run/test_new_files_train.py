"""The advice of `slimtune new` works: the command that it prints trains a model, and a verdict is there."""

import json
import re

import pytest
from openpyxl import Workbook
from support.command_line import run, train

pytestmark = pytest.mark.unsloth

TOPICS = ("登記", "納税", "開業", "移転", "廃業", "相続", "売買", "贈与", "輸入", "輸出", "製造", "販売",
          "保管", "運送", "広告", "採用", "解雇", "契約", "更新", "解約", "訴訟", "調停", "仲裁", "合併")  # fmt: skip
PAIRS = [(f"{topic}の届出はいつまでですか。", f"{n}日以内です。") for n, topic in enumerate(TOPICS, 3)]
FEW_STEPS = (
    "train.max_steps=2",
    "evaluate.max_items=3",
    "evaluate.max_new_tokens=8",
    "evaluate.samples=0",
    "export=null",
)


def csv(heading, option=()):
    def write(folder):
        rows = [heading, *PAIRS] if heading else PAIRS
        (folder / "t.csv").write_text("".join(f'"{one}","{other}"\n' for one, other in rows), encoding="utf-8")
        return ("t.csv", *option)

    return write


def excel(folder):
    book = Workbook()
    book.active.append(["よくある質問（2026年度）"])
    book.active.append([])
    book.active.append(["No.", "カテゴリ", "お問い合わせ内容", "ご回答", "備考"])
    for number, (question, answer) in enumerate(PAIRS, 1):
        book.active.append([number, "届出", question, answer, None])
    book.save(folder / "よくある質問.xlsx")
    return ("よくある質問.xlsx",)


FILES = {
    "excel": excel,
    "prompt/completion": csv(("prompt", "completion")),
    "instruction/output": csv(("instruction", "output")),
    "Q/A": csv(("Q", "A")),
    "質問/回答": csv(("質問", "回答")),
    "user/assistant": csv(("user", "assistant")),
    "without a heading": csv(None),
    "mapped": csv(("甲", "乙"), ("--map", "question=甲,answer=乙")),
}


@pytest.mark.parametrize(
    "kind", [kind if kind == "excel" else pytest.param(kind, marks=pytest.mark.slow) for kind in FILES]
)
def test_the_command_that_new_prints_ends_in_a_verdict(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    made = run("new", *FILES[kind](tmp_path), "--model", "builtin:tiny-qwen3")
    assert made.code == 0, made.stderr
    command = re.search("Next: python train_unsloth.py (.*)", made.stdout)[1].split()
    done = train(*command, *FEW_STEPS)
    assert done.code == 0, done.stderr
    (name,) = (path.stem for path in (tmp_path / "recipes").iterdir())
    latest = tmp_path / "outputs" / name / "latest"
    verdict = json.loads((latest / "eval/verdict.json").read_text("utf-8"))
    assert verdict["kind"] == "generation" and verdict["n"] == 3 and verdict["sentence"]
    audit = json.loads((latest / "mask_audit.json").read_text("utf-8"))
    assert audit["supervised_tokens"] > 0
