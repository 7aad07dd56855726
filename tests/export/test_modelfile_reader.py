"""A Modelfile is read as Ollama reads it, and what it lost or gained is told one by one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.modelfiles import STOPS, parse_modelfile, write_modelfile

from slimtune.core.errors import SlimtuneError
from slimtune.export.modelfile.modelfile_reader import Refused, compare, decoded, read_modelfile, refusals, survives

TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
MEANT = {
    "FROM": ["./law.gguf"], "TEMPLATE": [TEMPLATE], "SYSTEM": ["短く答える。"], "PARAMETER stop": list(STOPS),
    "PARAMETER num_ctx": ["2048"], "PARAMETER temperature": ["0.0"], "PARAMETER top_p": ["0.8"],
    "PARAMETER top_k": ["20"], "PARAMETER repeat_penalty": ["1.0"],
}  # fmt: skip


def written(folder, system: str | None = "短く答える。") -> str:
    write_modelfile(
        folder / "Modelfile", gguf_name="law.gguf", family="qwen3", thinking=True, system=system, num_ctx=2048
    )
    return decoded((folder / "Modelfile").read_bytes())


def test_every_instruction_in_any_case_with_its_line():
    text = (
        '# a comment FROM x\n\n  From ./a.gguf\ntemplate """a\n"b"\n"""\nSYSTEM "one\ntwo"\nParameter stop "x y"\n'
        "PARAMETER stop z\nPARAMETER num_ctx  42\nadapter ./l.gguf\nLICENSE MIT\nMESSAGE user hello  there\n"
        "RENDERER qwen3.5\nPARSER qwen3.5\nREQUIRES 0.17.6"
    )
    read = read_modelfile(text)
    assert read.models == ("./a.gguf",) and read.template == 'a\n"b"\n' and read.system == "one\ntwo"
    assert read.parameters == {"stop": ("x y", "z"), "num_ctx": ("42",)}
    assert read.adapters == ("./l.gguf",)
    others = [(one.name, one.key, one.value) for one in read.instructions if one.name in ("license", "message")]
    assert others == [("license", "", "MIT"), ("message", "user", "hello  there")]
    assert (read.renderer, read.parser, read.requires) == ("qwen3.5", "qwen3.5", "0.17.6")
    assert (read.line("from"), read.line("template"), read.line("system"), read.line("parameter", "num_ctx")) == (
        3,
        4,
        7,
        11,
    )
    assert read.line("requires") == 17 and read.line("draft") == 0 and read.dropped == () and refusals(read) == []


def test_what_is_dropped_is_told_with_its_line():
    read = read_modelfile('# not　here\nFROM x\nSYSTEM """あ　い\nう\u200b"""\r\nPARAMETER stop a\n')
    assert read.system == "あい\nう"
    assert [(one.character, one.line, one.within) for one in read.dropped] == [
        ("　", 3, "SYSTEM"),
        ("\u200b", 4, "SYSTEM"),
    ]
    assert read.line("parameter") == 5  # a Windows line end is one line


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 0, "no FROM"),
        ("SYSTEM x", 0, "no FROM"),
        ("FROM x\nFRÖM y", 2, "is not an instruction"),
        ("FROM\n", 1, "is not an instruction"),
        ("FROM x\nFORM y", 2, "'FORM' is not an instruction"),
        ("FROM x\nTOOLS y", 2, "is not an instruction"),
        ('FROM x\nSYSTEM """open\n\n', 2, "the quotes of SYSTEM are not closed"),
        ('FROM x\nSYSTEM """a""" b\nPARAMETER stop c', 2, "not closed"),
        ('FROM x\nSYSTEM "', 2, "not closed"),
        ("FROM x\nMESSAGE tool hi", 2, "role must be"),
        ("FROM x\nMESSAGE User hi", 2, "role must be"),
        ("FROM x\nPARAMETER top-k 2", 2, "PARAMETER top is incomplete"),
        ("FROM x\nPARAMETER stop", 2, "in the middle"),
    ],
)
def test_what_the_parser_stops_at(text, line, what):
    with pytest.raises(Refused, match=what) as caught:
        read_modelfile(text)
    assert caught.value.line == line and isinstance(caught.value, ValueError)


def test_what_reads_well_is_refused_later():
    text = (
        "FROM x\nPARAMETER temprature 1\nPARAMETER num_ctx 2k\nPARAMETER top_p 0,8\nPARAMETER use_mmap yes\nREQUIRES new\n"
        "PARAMETER  stop a\nPARAMETER mirostat 2\nREQUIRES v0.30\nPARAMETER temperature 1e-3\n"
    )
    told = refusals(read_modelfile(text))
    assert [line for line, _ in told] == [2, 3, 4, 5, 6, 7]
    assert "not known to Ollama" in told[0][1] and "whole number" in told[1][1] and "one space" in told[5][1]


def test_the_odd_ways_of_ollamas_parser():
    assert read_modelfile('FROM x\nSYSTEM """a """ b"""').system == 'a """ b'
    assert read_modelfile('FROM x\nSYSTEM "a" b"').system == 'a" b'
    assert read_modelfile("FROM x\nPARAMETER system hidden").system == "hidden"  # one list of names
    assert read_modelfile("PARAMETER model y").models == ("y",)
    assert read_modelfile("FROM x\nSYSTEM   spaced  out  \n").system == "spaced  out"
    assert parse_modelfile("FROM x\nMESSAGE user hi") == {"from": "x", "message": "hi", "parameters": {}}
    assert decoded("\ufeffFROM x".encode()) == decoded("\ufeffFROM x".encode("utf-16-le")) == "FROM x"


def test_a_written_file_is_what_was_meant(tmp_path):
    assert compare(read_modelfile(written(tmp_path)), MEANT) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('PARAMETER stop "<|im_end|>"\n', "", "PARAMETER stop is '<|im_start|>', '<|endoftext|>', not '<|im_end|>',"),
        (
            'PARAMETER stop "<|im_end|>"\n',
            'PARAMETER stop "a"\nPARAMETER stop "<|im_end|>"\n',
            "PARAMETER stop is 'a', '<|im_end|>',",
        ),
        ("FROM ./law.gguf", "FROM ./other.gguf", "FROM is not what was meant, at character 3"),
        ("<|im_end|>\n{{ end }}", "<|im_end|>{{ end }}", "TEMPLATE is not what was meant, at character 70"),
        ('SYSTEM """短く答える。"""', 'SYSTEM """長く"""', "SYSTEM is not what was meant"),
        ('SYSTEM """短く答える。"""\n', "", "SYSTEM is missing"),
        (
            "num_ctx 2048",
            "num_ctx 4096",
            "num_ctx is not what was meant, at character 1: '2048' expected, '4096' found",
        ),
        ("PARAMETER temperature 0.0\n", "", "temperature is missing"),
        ("top_p 0.8", "top_p 0.8\nPARAMETER top_p 0.9", "top_p is '0.8', '0.9', not '0.8'"),
        ("top_k 20", "top_k x", "top_k is not what was meant"),
        ("repeat_penalty 1.0", "repeat_penalty 1.1", "repeat_penalty is not what was meant"),
        ("PARAMETER top_k 20", "PARAMETER top_k 20\nPARAMETER min_p 0.1", "min_p was not meant"),
        ("FROM ./law.gguf", "FROM ./law.gguf\nRENDERER qwen3.5", "RENDERER was not meant to be there: 'qwen3.5'"),
        ("FROM ./law.gguf", "FROM ./law.gguf\nADAPTER ./a.gguf", "ADAPTER was not meant to be there: './a.gguf'"),
        ("FROM ./law.gguf", "FROM ./law.gguf\nMESSAGE user hi", "MESSAGE user was not meant"),
    ],
)
def test_each_difference_has_a_message_of_its_own(old, new, what, tmp_path):
    text = written(tmp_path)
    assert old in text
    problems = compare(read_modelfile(text.replace(old, new, 1)), MEANT, "out/Modelfile")
    assert len(problems) == 1 and what in problems[0].what and problems[0].where == "out/Modelfile"


def test_other_stops_order_and_a_lost_space(tmp_path):
    text = written(tmp_path)
    swapped = MEANT | {"PARAMETER stop": STOPS[::-1]}
    assert "PARAMETER stop is" in compare(read_modelfile(text), swapped)[0].what
    wide = MEANT | {"SYSTEM": ["短く　答える。"]}
    assert compare(read_modelfile(text), wide)[0].what == (
        "SYSTEM lost U+3000 IDEOGRAPHIC SPACE (1×): Ollama's parser drops it"
    )


@examples(200)
@given(
    system=st.text(st.sampled_from('"\n\t #\r') | st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.lists(st.sampled_from(['"', "\n", " ", "SYSTEM x", "PARAMETER stop a", "FROM /etc/passwd", "　"])).map(
        "".join
    ),
    temperature=st.floats(0, 2),
    num_ctx=st.integers(1, 10**6),
)
def test_written_and_read_is_what_was_meant(system, temperature, num_ctx, tmp_path_factory):
    folder = tmp_path_factory.mktemp("modelfile")
    try:
        write_modelfile(
            folder / "Modelfile", gguf_name="law.gguf", family="qwen3", thinking=True, system=system, num_ctx=num_ctx,
            temperature=temperature,
        )  # fmt: skip
    except SlimtuneError as error:
        assert '"""' in str(error) or "the control token" in str(error)
        return
    read = read_modelfile(decoded((folder / "Modelfile").read_bytes()))
    meant = MEANT | {"PARAMETER num_ctx": [str(num_ctx)], "PARAMETER temperature": [str(temperature)]}
    meant["SYSTEM"] = [read.system] if read.system else []
    assert compare(read, meant) == [] and read.dropped == ()
    # Of the text itself nothing is lost but what cannot survive.
    kept = unicodedata.normalize("NFC", "".join(one for one in system if survives(one)))
    assert (read.system or "").replace(" ", "") == (kept.replace(" ", "") if kept.strip() else "")


@examples(300)
@given(st.text(st.sampled_from('FROMfrom "\n\r\t#x<　') | st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        read = read_modelfile(text)
    except Refused as error:
        assert error.what
        return
    assert read.models and all(survives(one) for value in read.models for one in value)
