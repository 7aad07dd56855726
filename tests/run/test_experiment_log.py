"""The experiment log: filled in from the folder, never guessed."""

import json

import pytest
from support import fake_run

from slimtune.run import experiment_log

HEADINGS = [
    "実験ID",
    "日付",
    "Gitコミット",
    "モデル",
    "データファイル",
    "主要ハイパーパラメータ",
    "学習時間",
    "評価コマンドと結果",
    "ラベル分布",
    "所感・次のアクション",
]


def sections(text):
    parts = text.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip() for part in parts}


@pytest.fixture
def run(tmp_path):
    return fake_run.write(tmp_path)


def test_a_complete_run(run):
    path = experiment_log.write(run)
    assert path == run / "experiment_log.md"
    log = sections(path.read_text(encoding="utf-8"))
    assert list(log) == HEADINGS
    assert "`direct/20261122T050000Z`" in log["実験ID"]
    assert "2026-11-22 14:00:00 JST（2026-11-22T05:00:00Z）" in log["日付"]
    assert log["Gitコミット"] == "`b0a3fa9c0ffee0000000000000000000000000ab`（未コミットの変更あり）"
    assert "`unsloth/Qwen3-8B-bnb-4bit`" in log["モデル"]
    assert "リビジョン: 指定なし" in log["モデル"]
    assert f"| 学習 | data/law/direct_norag.train.jsonl | {'33' * 32} | 重み 1.0 |" in log["データファイル"]
    assert "| 学習 | 311 | 98304 | 622 |" in log["データファイル"]
    assert "- 学習: 35 分 11 秒" in log["学習時間"]
    assert "train_unsloth.py --recipe recipes/direct.yaml train.epochs=3" in log["評価コマンドと結果"]
    assert "better: 26.7 % → 95.8 %" in log["評価コマンドと結果"]
    assert "p < 0.001" in log["評価コマンドと結果"]
    assert "| correct / n | 32 / 120 | 115 / 120 |" in log["評価コマンドと結果"]
    assert "- 差: +69.2 ポイント（95 % 区間 +" in log["評価コマンドと結果"]
    assert "- 学習データとの重複: なし、文脈のみ共通 2 件" in log["評価コマンドと結果"]
    assert "| 学習データ | 78 | 77 | 79 | 77 |" in log["ラベル分布"]
    assert "| 評価問題の正解 | 30 | 30 | 30 | 30 |" in log["ラベル分布"]
    assert log["所感・次のアクション"] == ""


def test_contamination_is_told_with_the_score_without_it(tmp_path):
    run = fake_run.write(tmp_path, contaminated=True)
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))["評価コマンドと結果"]
    found = "3 件（exact 1, normalised 1, near duplicate 1）、文脈のみ共通 2 件"
    assert f"- 学習データとの重複: {found}。重複のない 117 問の正解: ベース 31、チューニング後 112" in log


def test_an_old_verdict_has_neither_interval_nor_contamination(run):
    path = run / "eval" / "verdict.json"
    verdict = json.loads(path.read_text(encoding="utf-8"))
    for key in ("difference_interval", "contamination", "kind"):
        del verdict[key]
    path.write_text(json.dumps(verdict), encoding="utf-8")
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))["評価コマンドと結果"]
    assert "- 差: +69.2 ポイント（区間 記録なし）" in log
    assert "- 学習データとの重複: 検査なし" in log


def test_texts_are_judged_by_their_own_measure(run):
    fake_run.write_perplexity(run)
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))["評価コマンドと結果"]
    assert "| perplexity | 19.63 | 6.02 |" in log
    assert "- 差: -1.182 nats per token（95 % 区間 -" in log


def test_the_trainers_value_beats_the_planned_one(run):
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))["主要ハイパーパラメータ"]
    assert "| デバイスあたりバッチサイズ | 1 | トレーナーの実際の値 |" in log
    assert "| 勾配累積ステップ | 8 | 計画（plan.json） |" in log
    assert "| 重み減衰 | 記録なし |  |" in log


def test_an_empty_folder_says_so_under_every_heading(tmp_path):
    log = sections(experiment_log.write(tmp_path).read_text(encoding="utf-8"))
    assert list(log) == HEADINGS
    assert [heading for heading in HEADINGS[:-1] if experiment_log.MISSING not in log[heading]] == []
    assert log["所感・次のアクション"] == ""


def test_a_broken_file_is_named_and_the_rest_written(run):
    (run / "eval" / "verdict.json").write_text("{broken", encoding="utf-8")
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))
    assert "読み取れなかったファイル: eval/verdict.json" in log["実験ID"]
    assert "判定: 記録なし" in log["評価コマンドと結果"]
    assert "| ベースの予測 | 記録なし | 記録なし | 記録なし | 記録なし |" in log["ラベル分布"]


def test_notes_of_a_person_survive(run):
    path = experiment_log.write(run)
    notes = "\n学習率を下げて再実験。\n\n### 明日\n- 4b で比較\n"
    path.write_text(path.read_text(encoding="utf-8") + notes, encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    assert experiment_log.write(run).read_text(encoding="utf-8") == before
    assert sections(before)["所感・次のアクション"].startswith("学習率を下げて再実験。")


def test_values_can_neither_end_a_cell_nor_become_html(run):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["trainer"]["optim"] = f"x | y\n{fake_run.EVIL}"
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    text = experiment_log.write(run).read_text(encoding="utf-8")
    assert "| オプティマイザ | x \\| y &lt;script>alert(1)&lt;/script> | トレーナーの実際の値 |" in text
    assert "<script" not in text


def test_values_can_neither_end_code_nor_become_a_link(run):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    manifest["name"] = "a`b\u202e ![x](http://h)"
    manifest["trainer"]["optim"] = r"a\|b"
    manifest["command"] = ["slimtune", "train", "```\n# head\n````\n", "\x1b[31m"]
    (run / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))
    assert r"`a'b\u202e ![x\](http://h)/" in log["実験ID"]
    assert r"| a\\\|b |" in log["主要ハイパーパラメータ"]
    command = log["評価コマンドと結果"]
    assert command.startswith("`````sh\nslimtune train '```\n# head\n````\n'") and r"\x1b[31m" in command
    assert list(log) == HEADINGS


def test_notes_that_are_not_utf_8_stay(run):
    path = experiment_log.write(run)
    path.write_bytes(path.read_bytes() + b"\nna\xefve\n")
    assert "na\\xefve\n" in experiment_log.write(run).read_text(encoding="utf-8")


def test_a_value_of_another_type_leaves_out_its_file_alone(run):
    path = run / "eval" / "verdict.json"
    verdict = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**verdict, "base": {**verdict["base"], "label_mass": ["x"]}}), encoding="utf-8")
    log = sections(experiment_log.write(run).read_text(encoding="utf-8"))
    assert "読み取れなかったファイル: eval/verdict.json" in log["実験ID"]
    assert "| 学習 | 311 | 98304 | 622 |" in log["データファイル"]
