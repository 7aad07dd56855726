"""GGUFs from elsewhere: what is wrong with each is seen, and what is right gives no alarm."""

from __future__ import annotations

import struct

import pytest
from support.check_cases import CHATML, alarms, entry, gguf, only, text

from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import render
from slimtune.export.check.check_modelfile import check_file
from slimtune.models.gguf_header import array_text, read_gguf, read_whole


def test_a_good_gguf_gives_notes_alone(tmp_path):
    path = gguf(tmp_path / "law.gguf")
    assert alarms(path) == []
    assert {one.where for one in check_file(path)} == {str(path)}
    read = read_gguf(path)
    assert array_text(read, "tokenizer.ggml.tokens", 100) == "<|im_end|>"
    assert array_text(read, "tokenizer.ggml.tokens", 102) is None


@pytest.mark.parametrize(
    ("metadata", "level", "what"),
    [
        ({"general.name": None}, "warning", "general.name is missing"),
        ({"general.license": None}, "warning", "general.license is missing"),
        ({"general.base_model.0.name": None}, "warning", "base model is not named"),
        ({"tokenizer.chat_template": None}, "warning", "no chat template"),
        ({"tokenizer.chat_template": "{% if %}"}, "warning", "does not render"),
        ({"tokenizer.chat_template": CHATML + "{# <think> #}"}, "warning", "can think"),
        ({"tokenizer.ggml.eos_token_id": 101}, "error", "ends an answer with '<|im_end|>', but"),
        ({"tokenizer.ggml.eos_token_id": None}, "error", "no token that ends generation"),
        ({"tokenizer.ggml.eos_token_id": 4000}, "error", "no token that ends generation"),
        ({"tokenizer.ggml.add_bos_token": True}, "error", "add_bos_token is true"),
        ({"qwen3.context_length": None}, "warning", "context_length"),
        ({"tokenizer.ggml.pre": "default"}, "error", "pre-tokenizer is not named"),
    ],
)
def test_what_a_gguf_says_of_itself(metadata, level, what, tmp_path):
    only(gguf(tmp_path / "law.gguf", **metadata), level, what)


def test_an_end_of_turn_token_ends_answers_as_well(tmp_path):
    metadata = {"tokenizer.ggml.eos_token_id": 101, "tokenizer.ggml.eot_token_id": 100}
    assert alarms(gguf(tmp_path / "law.gguf", **metadata)) == []


def test_silent_fallbacks_are_counted(tmp_path):
    mixed = gguf(tmp_path / "a.gguf", ("Q4_K", None), ("Q5_0", None), ("Q8_0", None), **{"general.file_type": 15})
    only(mixed, "warning", "says Q4_K_M, but of 3 matrices 1 Q5_0, 1 Q8_0")
    none = gguf(tmp_path / "b.gguf", ("Q5_0", None), **{"general.file_type": 15})
    only(none, "error", "none of its matrices has that type: 1 Q5_0")
    assert alarms(gguf(tmp_path / "c.gguf", ("Q4_K", None), **{"general.file_type": 15})) == []


@pytest.mark.parametrize(
    ("kind", "raw"),
    [("F32", struct.pack("<f", float("nan"))), ("F16", struct.pack("<H", 0x7C00)), ("BF16", b"\x80\x7f")],
)
def test_nan_and_infinity_are_found(kind, raw, tmp_path, monkeypatch):
    path = gguf(tmp_path / "law.gguf", (kind, b"\0" * 400 + raw), **{"general.file_type": None})
    only(path, "error", "1 tensors hold NaN or infinity ('blk.0.weight'")
    monkeypatch.setattr("slimtune.export.check.check_gguf.LOOKED_AT", 64)
    assert alarms(path) == [] and "searched for NaN and infinity: the first" in render(check_file(path))
    assert [one.level for one in check_file(path, deep=True)].count("error") == 1


def test_the_last_value_of_a_half_precision_tensor_is_looked_at(tmp_path, monkeypatch):
    path = gguf(tmp_path / "law.gguf", ("F16", b"\0" * 400 + struct.pack("<H", 0x7C00)), **{"general.file_type": None})
    monkeypatch.setattr("slimtune.export.check.check_gguf.LOOKED_AT", 402)  # half of four bytes
    only(path, "error", "1 tensors hold NaN or infinity")


def test_a_file_that_is_cut_off_or_damaged(tmp_path):
    only(gguf(tmp_path / "a.gguf", cut=100), "error", "cut off: 1 of 1 tensors")
    whole = gguf(tmp_path / "b.gguf").read_bytes()
    for length in (3, 20, 200, 1000):
        (tmp_path / "b.gguf").write_bytes(whole[:length])
        only(tmp_path / "b.gguf", "error", "damaged" if length > 3 else "")
    (tmp_path / "b.gguf").write_bytes(whole[:8] + b"\xff" * 16 + whole[24:])
    only(tmp_path / "b.gguf", "error", "damaged")
    with pytest.raises(SlimtuneError, match="no such file"):
        check_file(tmp_path / "c.gguf")


def header(*, version=3, tensors=0, entries=1, rest=b"", order="<"):
    return b"GGUF" + struct.pack(f"{order}IQQ", version, tensors, entries) + rest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "damaged: the file ends in the middle of it"),
        (header(order=">"), "it is for big-endian machines"),
        (header(version=1), "its version is 1"),
        (header(version=2**20), "its version is 1,048,576"),
        (header(entries=2**40), "damaged: it counts 0 tensors and 1,099,511,627,776 entries"),
        (header(tensors=2**62, entries=0), "damaged: it counts"),
        (header(rest=struct.pack("<Q", 2**62)), "damaged: a text would have"),
        (header(rest=text("k") + struct.pack("<I", 99)), "an entry has the unknown type 99"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 9, 2)), "an array in an array"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 8, 2**61)), "an array would have"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 8, 2**61)), "an array would have"),
        (header(rest=text("k") + struct.pack("<IIQ", 9, 0, 10**6)), "an array would have 1,000,000 entries"),
        (header(rest=struct.pack("<Q", 2) + b"\xff\xfe"), "damaged: not UTF-8"),
        (header(entries=2, rest=(text("k") + entry(1)) * 2), "'k' is there twice"),
        (header(rest=text("general.alignment") + entry(3)), "general.alignment is not a power of two"),
        (header(tensors=1, entries=0, rest=text("t") + struct.pack("<I", 9)), "'t' has 9 dimensions"),
        (header(tensors=1, entries=0, rest=text("t") + struct.pack("<IQIQ", 1, 5, 12, 0)), "'t' has rows of 5, which Q4_K"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_is_one_sentence(content, told, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(content + b"\0" * (100 if content else 0))
    found = only(path, "error", told)
    assert found.where == str(path) and found.fix


def test_every_place_where_a_file_may_be_cut_or_flipped_is_a_finding_or_harmless(tmp_path):
    """Nothing but findings, whatever the bytes."""
    whole = gguf(tmp_path / "a.gguf").read_bytes()
    for place in range(0, len(whole), 29):
        for content in (
            whole[:place],
            whole[:place] + b"\xff" + whole[place + 1 :],
            whole[:place] + whole[place + 1 :],
        ):
            (tmp_path / "a.gguf").write_bytes(content)
            assert all(one.where == str(tmp_path / "a.gguf") for one in check_file(tmp_path / "a.gguf"))


def test_tensors_that_are_not_in_a_row_cannot_be_loaded(tmp_path):
    path = gguf(tmp_path / "a.gguf", ("F32", None), ("F32", None))
    second = text("blk.1.weight") + struct.pack("<IQQIQ", 2, 256, 1, 0, 1024)
    assert path.read_bytes().count(second) == 1
    path.write_bytes(path.read_bytes().replace(second, second[:-8] + struct.pack("<Q", 0)))
    only(path, "error", "1 tensors are not where they should be, first 'blk.1.weight'")


def test_a_split_model_needs_all_of_its_files(tmp_path):
    split = {"split.count": 2, "split.no": 0}
    first = gguf(tmp_path / "law-00001-of-00002.gguf", **split)
    with pytest.raises(SlimtuneError, match=r"law-00002-of-00002\.gguf: no such file"):
        read_whole(first)
    gguf(tmp_path / "law-00002-of-00002.gguf", cut=50, **split)
    with pytest.raises(SlimtuneError, match=r"law-00002-of-00002\.gguf: the file is cut off"):
        read_whole(first)
    with pytest.raises(SlimtuneError, match="its name does not say so"):
        read_whole(first.rename(tmp_path / "law.gguf"))
