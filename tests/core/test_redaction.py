"""Keys are cut out of what is shown and written, wherever they stand and however they are spelt."""

import json

import pytest

from slimtune.core import files, redaction
from slimtune.core.redaction import redact, redacted_command, shown, without_keys
from slimtune.evaluate.answer_file import AnswerFile

KEY = 'geheim/"Schlüssel"+9'


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("SLIMTUNE_API_KEY", KEY)
    return KEY


@pytest.mark.parametrize(
    "name",
    ["OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "my_password"],
)
def test_the_values_of_the_environment_are_cut(monkeypatch, name):
    monkeypatch.setenv(name, "words-of-its-own")
    assert without_keys("a words-of-its-own b") == "a … b"


def test_every_spelling_of_a_key_is_cut(key):
    spelt = [
        key,
        json.dumps(key),
        json.dumps(key, ensure_ascii=False),
        "http://h/?x=geheim%2F%22Schl%C3%BCssel%22%2B9&y",
    ]
    assert [without_keys(text) for text in spelt] == ["…", '"…"', '"…"', "http://h/?x=…&y"]


def test_a_word_is_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "ollama")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/somebody")
    assert without_keys("ollama serve in /home/somebody") == "ollama serve in /home/somebody"


def test_a_key_that_was_given_is_cut(monkeypatch):
    monkeypatch.setattr(redaction, "_given", set())
    redaction.keep_secret("given-by-hand")
    redaction.keep_secret(None)
    assert without_keys("given-by-hand") == "…"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("hf_abcdefghijklmnop!", "hf_…!"),
        ("ghp_abcdefghijkl ghs_abcdefghijkl github_pat_11ABCDEF_x", "ghp_… ghs_… github_pat_…"),
        ("xoxb-123456789-abc gsk_abcdef123 AKIAABCDEFGHIJKLMNOP", "xoxb-… gsk_… AKIA…"),
        ("https://user:pass@word@host/v1#m", "https://…@host/v1#m"),
        ("https://h/v1?api_key=abc&x=1#m and ?access_token=abc", "https://h/v1?api_key=…&x=1#m and ?access_token=…"),
        ("Authorization: Bearer abcdefgh12", "Authorization: Bearer …"),
        ("slimtune evaluate --api-key abc x", "slimtune evaluate --api-key … x"),
    ],
)
def test_what_has_the_form_of_a_key_is_cut_from_messages(text, cut):
    assert redact(text) == cut


@pytest.mark.parametrize(
    "text",
    ["max_tokens=5", "eos_token=<|im_end|>", "task-list-of-things", "the bearer tokens", "a@b.c", "http://h/a@b"],
)
def test_other_text_stays(text):
    assert redact(text) == text


def test_addresses_are_shown_without_passwords():
    told = "http://u:pw@h/v1 http:/u:pw@h/v1 https://h/?key=abc data/sk-learned-by-heart.jsonl a@b C:/x"
    assert shown(told) == "http://…@h/v1 http:/…@h/v1 https://h/?key=… data/sk-learned-by-heart.jsonl a@b C:/x"


def test_what_follows_an_option_for_keys_is_cut_from_a_command():
    command = ["slimtune", "evaluate", "--api-key", "two words", "--token=abc", "http://u:p@h/v1#m", "a b"]
    shown = ["slimtune", "evaluate", "--api-key", "…", "--token=…", "http://…@h/v1#m", "a b"]
    assert redacted_command(command) == shown


def test_files_are_written_without_keys(tmp_path, key):
    files.write_text(tmp_path / "a", f"x {key}")
    files.write_json(tmp_path / "b", {"x": key, "form": "sk-in-a-persons-data"})
    answers = AnswerFile(tmp_path / "c")
    answers.keep([{"id": "q", "text": f"the key is {key}"}])
    assert (tmp_path / "a").read_text() == "x …"
    assert json.loads((tmp_path / "b").read_text()) == {"x": "…", "form": "sk-in-a-persons-data"}
    assert json.loads((tmp_path / "c").read_text()) == {"id": "q", "text": "the key is …"}
