"""What a chat talks to: a run's export or a GGUF, as the Modelfile says; and what is refused."""

import re
import shutil

import pytest
from support.chat_runs import CONTEXT, SYSTEM, found, make_run
from support.command_line import run

from slimtune.core.errors import SlimtuneError
from slimtune.serve.chat_model import OLLAMA_DEFAULTS


def test_a_run_is_asked_as_its_modelfile_says(tmp_path):
    place = make_run(tmp_path, parameters=["PARAMETER num_predict 40", "PARAMETER min_p 0.1", "PARAMETER mirostat 1"])
    (place / "export" / "law.f16.gguf").write_bytes(b"GGUF")
    (place / "export" / "law.lora.gguf").write_bytes(b"GGUF")
    model = found(place)
    assert model.gguf == place / "export" / "law.q8_0.gguf"
    assert (model.system, model.context_length, model.reply_length) == (SYSTEM, CONTEXT, 40)
    assert model.stops == ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
    expected = {"temperature": 0.0, "top_p": 0.8, "top_k": 20, "repeat_penalty": 1.0, "min_p": 0.1, "repeat_last_n": 64}
    assert model.sampling == expected
    assert model.thinking is False
    notes = "\n".join(model.notes)
    assert "PARAMETER mirostat of the Modelfile is not used here" in notes
    assert "also exported; to try one, name its path: law.f16.gguf" in notes
    assert "lora" not in notes


def test_a_gguf_is_asked_as_the_modelfile_beside_it_says_where_that_names_it(tmp_path):
    export = make_run(tmp_path) / "export"
    beside = found(export / "law.q8_0.gguf")
    assert (beside.system, beside.sampling["top_k"], beside.thinking) == (SYSTEM, 20, None)
    assert found(export) == beside  # a folder with a Modelfile, such as the export of an adapter
    (export / "other.gguf").write_bytes(b"GGUF")
    other = found(export / "other.gguf")
    assert (other.system, other.sampling, other.stops, other.context_length) == (None, OLLAMA_DEFAULTS, (), 4096)
    assert "is FROM ./law.q8_0.gguf and so not used" in other.notes[0]
    (export / "Modelfile").unlink()
    assert "no Modelfile beside it" in found(export / "other.gguf").notes[0]


def test_a_parity_check_that_failed_is_said(tmp_path):
    place = make_run(tmp_path)
    (place / "export" / "parity.json").write_text('{"passed": true}', encoding="utf-8")
    assert not any("parity" in note for note in found(place).notes)
    (place / "export" / "parity.json").write_text('{"passed": false}', encoding="utf-8")
    assert any("its parity check failed" in note for note in found(place).notes)


def without_export(place):
    shutil.rmtree(place / "export")


def unproven(place):
    (place / "export").rename(place / "export.unverified")


def merged_alone(place):
    without_export(place)
    (place / "export" / "merged").mkdir(parents=True)


def without_modelfile(place):
    (place / "export" / "Modelfile").unlink()
    (place / "export" / "law.f16.gguf").write_bytes(b"GGUF")


def without_its_gguf(place):
    (place / "export" / "law.q8_0.gguf").rename(place / "export" / "other.gguf")


def from_elsewhere(place):
    (place / "secret.gguf").write_bytes(b"GGUF")
    (place / "export" / "Modelfile").write_text("FROM ../secret.gguf\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (without_export, r"has no export yet.*slimtune export .*--compare"),
        (unproven, r"stopped, or it is not the model that was judged.*export\.unverified/parity\.json"),
        (merged_alone, r"the run's export has no GGUF.*--fresh --gguf q8_0"),
        (
            without_modelfile,
            r"no Modelfile that names one of law\.f16\.gguf, law\.q8_0\.gguf.*name a file: slimtune chat",
        ),
        (without_its_gguf, r"it is FROM \./law\.q8_0\.gguf, which is not a GGUF beside it; there is other\.gguf"),
        (from_elsewhere, r"it is FROM \.\./secret\.gguf, which is not a GGUF beside it; there is law\.q8_0\.gguf"),
    ],
)
def test_a_run_without_something_to_talk_to(broken, message, tmp_path):
    place = make_run(tmp_path)
    broken(place)
    done = run("chat", place, "--prompt", "届出")
    assert (done.code, done.stdout) == (2, "")
    assert re.search(message, " ".join(done.stderr.split()))
    assert done.stderr.count("error: ") == 1


def test_every_wrong_value_of_a_modelfile_is_said_at_once(tmp_path):
    place = make_run(
        tmp_path,
        parameters=["PARAMETER min_p much", "PARAMETER top_p nan", "PARAMETER top_k 20", "ADAPTER ./law.lora.gguf"],
    )
    with pytest.raises(SlimtuneError) as caught:
        found(place)
    whats = " ".join(problem.what for problem in caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "min_p must be a number, not 'much'" in whats
    assert "top_p is set 2 times" in whats
    assert "top_k is set 2 times" in whats
    assert "ADAPTER" in whats
    (place / "export" / "Modelfile").write_text("FROM ./law.q8_0.gguf\nPARAMETER top_p nan\n", encoding="utf-8")
    with pytest.raises(SlimtuneError, match="PARAMETER top_p is nan"):
        found(place)
    (place / "export" / "Modelfile").write_text("FROM ./law.q8_0.gguf\n???\n", encoding="utf-8")
    with pytest.raises(SlimtuneError, match=r"not a Modelfile: .*'\?+' is not an instruction"):
        found(place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such model: nowhere"),
        (["nowhere.gguf"], "there is no such GGUF"),
        (["builtin:tiny-qwen3"], "neither a run nor a GGUF"),
        (["http://localhost:1/v1#m"], "neither a run nor a GGUF"),
        (["FILE", "--compare"], "a GGUF does not hold its base"),
        (["FILE", "--system", "a<|im_start|>b"], "the system prompt contains the control token <|im_start|>"),
        (["FILE", "--prompt", "届出"], "the GGUF's header is damaged"),
        (["FILE", "--temperature", "3"], "--temperature"),
    ],
)
def test_targets_and_options_that_are_refused(arguments, message, tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"PK\x03\x04")
    done = run("chat", *(file if argument == "FILE" else argument for argument in arguments))
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr
