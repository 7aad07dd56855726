"""BM25 by hand, the cache, and recall by hand."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.datatools.retrieval import index as indexes
from slimtune.datatools.retrieval import terms
from slimtune.datatools.retrieval.corpus import Passage
from slimtune.datatools.retrieval.index import Hit, build, recall


def passage(name: str, text: str) -> Passage:
    return Passage(name, "", text, f"corpus.jsonl:{name}")


PETS = [passage("1", "cat cat dog"), passage("2", "dog"), passage("3", "bird bird"), passage("4", "dog")]


def found(hits: list[Hit]) -> list[str]:
    return [hit.passage.id for hit in hits]


def test_ngrams_are_pairs_of_japanese_characters_and_whole_other_words() -> None:
    assert terms.ngrams("第5条の規定") == ["第", "5", "条の", "の規", "規定"]
    assert terms.ngrams("ＡＢＣ社、Straße 12.5") == ["abc", "社", "strasse", "12", "5"]
    assert terms.ngrams("ｶﾞｽ ガス") == ["ガス", "ガス"]
    assert terms.ngrams("。、 …") == []


def test_scores_are_bm25_worked_by_hand() -> None:
    # 4 passages of 7 words; "cat" stands twice in one of them, which is 3 words long.
    idf = math.log(1 + (4 - 1 + 0.5) / (1 + 0.5))
    length = 1 - 0.75 + 0.75 * 3 / (7 / 4)
    (hits,) = build(PETS).search(["cat"], 1)
    assert found(hits) == ["1"]
    assert hits[0].score == pytest.approx(idf * 2 / (2 + 1.5 * length), rel=1e-6)


def test_equal_scores_keep_the_order_of_the_passages() -> None:
    index = build(PETS)
    # The shortest passages with "dog" come first, then the longer one, then what has no such word.
    assert found(index.search(["dog"], 9)[0]) == ["2", "4", "1", "3"]
    assert [found(hits) for hits in index.search(["unknown", ""], 3)] == [["1", "2", "3"]] * 2
    assert found(build(PETS[::-1]).search(["dog"], 2)[0]) == ["4", "2"]


def test_the_title_is_searched_too() -> None:
    titled = [passage("1", "本文"), Passage("2", "金融商品取引法", "本文", "x:1")]
    assert found(build(titled).search(["金融商品"], 1)[0]) == ["2"]


def test_a_passage_of_signs_only_is_never_nearer_than_another() -> None:
    assert found(build([passage("1", "……"), passage("2", "届出")]).search(["届出書"], 2)[0]) == ["2", "1"]


def test_a_corpus_without_words_is_refused() -> None:
    with pytest.raises(SlimtuneError, match="no passages"):
        build([])
    with pytest.raises(SlimtuneError, match="letter or a digit"):
        build([passage("1", "……")])


def test_the_cache_gives_the_same_hits_without_splitting_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = build(PETS, cache=tmp_path)
    queries = ["cat dog", "bird", "nothing"]
    expected = fresh.search(queries, 3)
    split: list[str] = []

    def counting(text: str) -> list[str]:
        split.append(text)
        return terms.ngrams(text)

    monkeypatch.setattr(indexes, "terms_of", lambda kind: counting)
    again = build(PETS, cache=tmp_path)
    assert (fresh.from_cache, again.from_cache, split) == (False, True, [])
    assert again.search(queries, 3) == expected == build(PETS).search(queries, 3)
    assert len(list(tmp_path.iterdir())) == 1


def test_another_corpus_is_another_entry_of_the_cache(tmp_path: Path) -> None:
    build(PETS, cache=tmp_path)
    assert not build(PETS[::-1], cache=tmp_path).from_cache
    assert not build([*PETS[:3], passage("4", "fish")], cache=tmp_path).from_cache
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["data.csc.index.npy", "vocab.index.json", "sha256.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_cache_is_made_anew_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    expected = build(PETS, cache=tmp_path).search(["dog cat"], 4)
    (folder,) = tmp_path.iterdir()
    file = folder / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger=indexes.__name__):
        mended = build(PETS, cache=tmp_path)
    assert caplog.messages == [f"The index in {folder} is damaged; it is rebuilt."]
    assert not mended.from_cache
    assert mended.search(["dog cat"], 4) == expected
    assert build(PETS, cache=tmp_path).from_cache


@pytest.mark.parametrize("kind", ["folder", "folder with our marker", "file"])
def test_what_is_not_ours_in_the_cache_stays_and_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    expected = build(PETS, cache=tmp_path).search(["dog cat"], 4)
    (folder,) = tmp_path.iterdir()
    if kind == "folder with our marker":
        (folder / "sha256.json").unlink()
    else:
        folder.rename(tmp_path / "aside")
        folder.mkdir()
    mine = folder / "mine.txt"
    if kind == "file":
        folder.rmdir()
        mine = folder
    mine.write_text("somebody's work", encoding="utf-8")
    caplog.clear()
    found = build(PETS, cache=tmp_path)
    assert found.search(["dog cat"], 4) == expected
    assert "The index is not kept for the next run" in caplog.messages[-1]
    assert mine.read_text("utf-8") == "somebody's work"


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert not build(PETS, cache=tmp_path / "file/cache").from_cache
    assert "not kept for the next run" in caplog.text


def test_the_cache_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        build(PETS, cache=tmp_path / name)
        files.append(
            {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        )
    assert files[0] == files[1]
    assert len(files[0]) > 4


def test_progress_counts_the_passages() -> None:
    seen: list[tuple[int, int]] = []
    build(PETS, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_sudachi_finds_a_word_in_another_spelling() -> None:
    pytest.importorskip("sudachipy")
    corpus = [passage("1", "犬を飼う。"), passage("2", "附属の書類。")]
    (hits,) = build(corpus, terms="sudachi").search(["付属"], 2)
    assert found(hits) == ["2", "1"]
    assert hits[0].score > 0 == hits[1].score


def test_sudachi_takes_a_line_longer_than_the_analyser_does() -> None:
    pytest.importorskip("sudachipy")
    # Pieces of 10,000 characters end between two of these words, so none is cut.
    assert terms.terms_of("sudachi")("法律、。" * 20_000) == ["法律"] * 20_000


def test_sudachi_that_is_not_installed_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms.importlib.util, "find_spec", lambda name: None if "sudachidict" in name else object())
    with pytest.raises(SlimtuneError, match="pip install sudachipy sudachidict-core"):
        build(PETS, terms="sudachi")


def test_recall_worked_by_hand() -> None:
    def hits(*texts: str) -> list[Hit]:
        return [Hit(passage(str(rank), text), 1.0 / rank) for rank, text in enumerate(texts, start=1)]

    answers = [
        hits("第１条 甲", "乙", "丙"),  # equal but for width and spacing: rank 1
        hits("甲", "前 乙 後", "丙"),  # contains the context: rank 2
        hits("甲", "乙", "丙の前半"),  # lies within the context: rank 3
        hits("甲", "乙", "丙"),  # not found
        hits("甲"),  # no context to find: does not count
    ]
    gold = ["第1条甲", "乙", "丙の前半と後半", "丁", ""]
    assert recall(answers, gold, (1, 2, 3)) == {1: 0.25, 2: 0.5, 3: 0.75}
    with pytest.raises(SlimtuneError, match="no question has a context"):
        recall([hits("甲")], [""], (1,))
