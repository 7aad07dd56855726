"""A finished run with checkpoints, a copy of them to be damaged, and a trainer that saves elsewhere."""

import shutil
from types import SimpleNamespace

import pytest

from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Conversation, Message
from slimtune.train.safeguards import saving


@pytest.fixture(scope="module")
def build(tiny_model, a_plan):
    """(directory, eval_losses=None, **plan changes) -> a trainer of 16 rows: 4 optimizer steps an epoch, 2 epochs.

    eval_losses: what the evaluations are made to say, one after the other.
    """
    from slimtune.models import load as models
    from slimtune.train.methods import sft

    folder = tiny_model("qwen3")
    tokenizer = ChatTokenizer(folder)
    rows = [Conversation((Message("user", f"第{n}条は。"), Message("assistant", "abcd"[n % 4]))) for n in range(16)]
    examples = [example for row in rows for example in tokenizer.examples(row)]

    def trainer(directory, eval_losses=None, **changes):
        plan = a_plan(
            **{
                "epochs": 2,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 2,
                "lora_dropout": 0.1,
                "learning_rate": 2e-3,
                "lr_scheduler_type": "cosine",
                "warmup_steps": 2,
                "logging_steps": 1,
                "save_steps": 3,
                "save_total_limit": 3,
                "cpu_threads": 1,
                "eval_steps": 1 if eval_losses else None,
                **changes,
            }
        )
        model, hf_tokenizer = models.load(folder, plan)
        built = sft.build_trainer(
            models.add_lora(model, plan), hf_tokenizer, examples, examples[:2], plan, directory=directory
        )
        if eval_losses:
            losses = iter(eval_losses)

            def evaluate(**ignored):
                metrics = {"eval_loss": next(losses)}
                built.log(dict(metrics))
                built.control = built.callback_handler.on_evaluate(built.args, built.state, built.control, metrics)
                return metrics

            built.evaluate = evaluate
        return built

    return trainer


@pytest.fixture(scope="module")
def finished(build, tmp_path_factory):
    """A run of 8 steps with checkpoints 3, 6 and 8, and what was said of them."""
    directory = tmp_path_factory.mktemp("finished")
    trainer = build(directory)
    saved = []
    saving.keep_whole(trainer, lambda *told: saved.append(told))
    trainer.train()
    return SimpleNamespace(trainer=trainer, folder=directory / "checkpoints", saved=saved)


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run's checkpoints, to be damaged."""
    return shutil.copytree(finished.folder, tmp_path / "copied")


@pytest.fixture
def elsewhere(finished, tmp_path):
    """The finished run's trainer, saving into a folder that has nothing yet: save(step) writes one checkpoint."""
    trainer, folder = finished.trainer, tmp_path / "checkpoints"
    before = trainer.args.output_dir, trainer.state.global_step, trainer.args.save_total_limit
    trainer.args.output_dir = str(folder)
    folder.mkdir()

    def save(step):
        trainer.state.global_step = step
        trainer._save_checkpoint(trainer.model, None)

    yield SimpleNamespace(trainer=trainer, folder=folder, save=save)
    trainer.args.output_dir, trainer.state.global_step, trainer.args.save_total_limit = before
