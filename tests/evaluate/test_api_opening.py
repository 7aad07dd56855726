"""Opening a server as a target: its address, its key, its models, and everything that is not such a server."""

import socket
import time

import pytest
from support.api_server import Answer, ApiServer, chat, error, models

from slimtune.core.errors import SlimtuneError
from slimtune.evaluate.targets.api_target import api_key_for, base_url, open_api


def test_a_model_that_the_server_does_not_have_is_answered_with_those_it_has():
    with (
        ApiServer(lambda body: error(404, "model not found"), models("law-direct", "qwen3:8b")) as server,
        pytest.raises(SlimtuneError, match="the server has no model 'law-dircet'") as caught,
    ):
        open_api(server.url, "law-dircet")
    text = str(caught.value)
    assert "did you mean 'law-direct'? It has: law-direct, qwen3:8b" in text
    assert "ollama pull law-dircet" in text


def test_a_server_that_lists_no_models_need_not():
    with ApiServer(lambda body: chat("c"), error(404, "not found")) as server:
        open_api(server.url, "m").close()
    with (
        ApiServer(lambda body: error(404, "not found"), error(404, "not found")) as server,
        pytest.raises(
            SlimtuneError, match="not an OpenAI-compatible server, or it has no model 'm': 404 Not Found: not found"
        ),
    ):
        open_api(server.url, "m")


def test_another_kind_of_server_is_recognised():
    with (
        ApiServer(lambda body: Answer("<html>"), Answer("<html>")) as server,
        pytest.raises(SlimtuneError, match=r"not an OpenAI-compatible server, .*: 200 OK: not JSON: <html>"),
    ):
        open_api(server.url, "m")
    moved = Answer("", 308, {"Location": "https://example.org/v1"})
    with ApiServer(lambda body: moved, moved) as server:
        with pytest.raises(SlimtuneError, match=r"redirects to https://example.org/v1\n.*use the address"):
            open_api(server.url, "m", api_key="sk-secret")
        assert len(server.requests) == 1


def test_nobody_at_the_address_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        started = time.monotonic()
        with pytest.raises(SlimtuneError, match=r"not reachable: .*refused") as caught:
            open_api(f"http://127.0.0.1:{taken.getsockname()[1]}", "m")
    assert time.monotonic() - started < 2
    assert "ollama serve" in str(caught.value)


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ApiServer(lambda body: chat("c")) as server:
        open_api(server.url, "m").close()
    with pytest.raises(SlimtuneError, match="not reachable"):
        open_api("http://server.invalid", "m")
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
    with pytest.raises(SlimtuneError, match="the proxy that the environment names cannot be used"):
        open_api("http://server.invalid", "m")


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("http://localhost:11434/v1/", "http://localhost:11434/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host/api", "https://host/api/v1"),
        ("https://host/v1beta/openai/", "https://host/v1beta/openai"),
        ("http://[::1]:8080#part", "http://[::1]:8080/v1"),
    ],
)
def test_an_address_is_given_with_or_without_its_version(given, base):
    assert base_url(given) == base


@pytest.mark.parametrize("given", ["localhost:11434", "ftp://host", "http://", "http://host/v1?key=1", "http://a b:x/"])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(SlimtuneError, match=r"not a valid URL|only plain http and https addresses"):
        base_url(given)


@pytest.mark.parametrize("given", ["http://me:secret@host/v1", "https://secret@host", "ftp://me:secret@host"])
def test_a_password_in_an_address_is_refused_and_not_repeated(given):
    with pytest.raises(SlimtuneError, match="SLIMTUNE_API_KEY") as caught:
        base_url(given)
    assert "secret" not in str(caught.value)


def test_openais_key_does_not_cross_a_network_in_clear_text():
    both = {"SLIMTUNE_API_KEY": "own", "OPENAI_API_KEY": "general"}
    assert api_key_for("http://server/v1", both) == "own"
    assert api_key_for("https://server/v1", {"OPENAI_API_KEY": "general"}) == "general"
    assert api_key_for("http://127.0.0.1:8000/v1", {"OPENAI_API_KEY": "general"}) == "general"
    assert api_key_for("http://server/v1", {"OPENAI_API_KEY": "general"}) is None
    assert api_key_for("https://server/v1", {}) is None
