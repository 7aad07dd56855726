"""Shared by all tests: no network, and tiny folders with Qwen's real chat templates.

Training follows the processor: bf16 where it has the instructions, else fp32. UNSLOTH_CPU_BF16=1 or 0 in the environment
runs the tests as on the other kind, emulated and slower; Slimtune, Unsloth and the tests' own processes all read it.
"""

import os

from support.chat_templates import chat_template
from support.examples import THOROUGH
from support.ggufs import bare_gguf, thinking_gguf, tiny_gguf  # noqa: F401  fixtures
from support.paths import ROOT
from support.scheduling import (  # noqa: F401  hooks
    pytest_collection_finish,
    pytest_configure,
    pytest_runtest_teardown,
    pytest_xdist_make_scheduler,
)
from support.warm_children import warm_children  # noqa: F401  fixture

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", os.environ.get("SLIMTUNE_TEST_GPU", ""))
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores have workers of their own


import pytest
from hypothesis import settings

# Without a deadline: a busy machine is no error. `make test-all` tries more examples.
settings.register_profile("quick", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("SLIMTUNE_HYPOTHESIS", "quick"))


@pytest.fixture(scope="session")
def template_folder(tmp_path_factory):
    """family -> a folder with the built-in tokenizer and that family's chat template, as Unsloth ships it."""
    from tokenizers import Tokenizer

    from scripts.builtin import tokenizer
    from slimtune.models import builtin

    trained = Tokenizer.from_file(str(builtin.resolve("builtin:tiny-qwen3") / "tokenizer.json"))
    made = {}

    def folder(family):
        if family not in made:
            path = tmp_path_factory.mktemp(family)
            tokenizer.save(trained, path, chat_template=chat_template(family))
            made[family] = path
        return made[family]

    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """(family, tied=True) -> a folder with a random model of that family, with its tokenizer and template."""
    from scripts.builtin import models

    made = {}

    def folder(family, tied=True):
        if (family, tied) not in made:
            path = tmp_path_factory.mktemp(f"{family}-{'tied' if tied else 'untied'}") / "model"
            models.build_random_model(path, family=family, tied=tied, chat_template=chat_template(family))
            made[family, tied] = path
        return made[family, tied]

    return folder


@pytest.fixture(scope="session")
def a_plan():
    """A small CPU plan; keyword arguments change values."""
    import dataclasses

    from slimtune.models import hardware
    from slimtune.models import shapes as models
    from slimtune.plan import lengths, make
    from slimtune.plan.request import Data
    from slimtune.recipe.schema import Recipe
    from slimtune.run.prepare import request_of

    def plan(**changes):
        recipe = Recipe.model_validate(
            {
                "name": "test",
                "data": {"train": [{"path": "unused"}]},
                "model": {"base": "tiny", "max_seq_length": 512},
                "train": {"effective_batch_size": 4, "epochs": 1, "per_device_train_batch_size": 4},
            }
        )
        cpu = hardware.Hardware("cpu", "test processor", 2**33, hardware.detect().bf16, 2, None)
        data = Data(lengths.Lengths((50,) * 10, (2,) * 10, True))
        made = make.make(request_of(recipe), data, models.find("Qwen3-0.6B"), cpu)
        # One thread: a tiny model waits longer for a second one than it gains.
        return dataclasses.replace(made, **{"cpu_threads": 1, **changes})

    return plan


@pytest.fixture
def make_trainer(tiny_model, a_plan, tmp_path):
    """(family, examples, held_out=(), **plan changes) -> the project's own trainer on a random 4-bit model."""

    def make(family, examples, held_out=(), **changes):
        from slimtune.models import load as models
        from slimtune.train.methods import sft

        plan = a_plan(**changes)
        model, tokenizer = models.load(tiny_model(family), plan)
        return sft.build_trainer(models.add_lora(model, plan), tokenizer, examples, held_out, plan, directory=tmp_path)

    return make


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """The quickstart's run, with one GGUF and in `make test` a single epoch: (its folder, what the screen said).

    Whoever changes it puts it back.
    """
    import io

    from slimtune.core.console import Console
    from slimtune.recipe import loading as recipe
    from slimtune.run import pipeline

    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        given = [f"run.output_dir={tmp_path_factory.mktemp('good')}/outputs", "export.gguf=[f16]"]
        given += [] if THOROUGH else ["train.epochs=1", "train.learning_rate=8e-3"]
        run = pipeline.run(recipe.load(ROOT / "recipes/quickstart.yaml", given), Console(file=screen))
    return run.resolve(), " ".join(screen.getvalue().split())
