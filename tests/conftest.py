"""Shared by all tests: no network, and tiny folders with Qwen's real chat templates."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("SLIMTUNE_TEST_GPU", ""))

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def template_folder(tmp_path_factory):
    """family -> a folder with the built-in tokenizer and that family's chat template, as Unsloth ships it."""
    from slimtune import backend
    from slimtune.builtin import tokenizer

    trained = tokenizer.train()
    made = {}

    def folder(family):
        if family not in made:
            path = tmp_path_factory.mktemp(family)
            tokenizer.save(trained, path, chat_template=backend.chat_template(family))
            made[family] = path
        return made[family]

    return folder
