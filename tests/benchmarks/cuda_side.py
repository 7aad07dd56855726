"""Holds what the acceptance does and looks at against Unsloth's CUDA side, on a machine without a card.

Run as a process of its own by test_cuda_side.py, like tests/train/cuda_branch_trainer.py: UNSLOTH_ALLOW_CPU=1 makes
`import unsloth` take its CUDA branch; the two patches of TRL's classes that a CUDA machine gets are applied here.
usage: cuda_side.py MODEL_FOLDER WORK_FOLDER
"""

import json
import sys
from pathlib import Path

from slimtune.models import backend

import peft  # isort: skip
import torch  # isort: skip
import transformers  # isort: skip
import unsloth.models.rl  # isort: skip
import unsloth.trainer  # isort: skip
from unsloth.utils import attention_dispatch  # isort: skip
from unsloth_zoo.fused_losses import fused_linear  # isort: skip

from benchmarks import acceptance_cases, acceptance_recipe, measured_training, packing_check, random_model, what_ran
from benchmarks.acceptance_cases import Case
from slimtune.models import cards
from slimtune.models.families import TARGETS
from slimtune.train import audit as mask_audit
from slimtune.train.methods import sft

TOKENS = 1024


def main(folder, work):
    transformers.training_args.is_torch_bf16_gpu_available = lambda: True
    unsloth.models.rl._patch_trl_rl_trainers_impl("sft_trainer")
    unsloth.trainer._patch_sft_trainer_auto_packing(backend.trl)

    case = Case("tiny", (TOKENS,))
    stand_in = cards.CARDS["rtx3080"]
    prepared = acceptance_recipe.prepared(
        case, TOKENS, folder=folder, work=work, vram_gb=10, on_card=True, stand_in=stand_in
    )
    plan, tokenizer = prepared.plan, prepared.tokenizer
    examples = [example for conversation in prepared.train for example in tokenizer.examples(conversation)]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16")
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules=list(plan.lora_targets), task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    model.max_seq_length = plan.max_seq_length
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trainer = sft.build_trainer(model, hf_tokenizer, examples, (), plan, directory=work)
    audit = mask_audit.audit(trainer, examples, tokenizer, refined_rows=0)

    few = examples[1:5]
    batch, how = packing_check.packed_batch(trainer, few)
    spoiled = {**batch, "labels": batch["labels"].clone()}
    spoiled["labels"][0, 2] = 7
    report = {
        "packed_by": how,
        "batch": {name: list(value.shape) for name, value in batch.items()},
        "lengths": [len(example.input_ids) for example in few],
        "labels_survive": packing_check.labels_survive(batch, few),
        "spoiled_labels_survive": packing_check.labels_survive(spoiled, few),
        "check": packing_check.check(model, trainer, few, torch.bfloat16),
        "rows": measured_training.rows(trainer, plan.row_length),
        "audited": [audit.rows, audit.batches],
        "steps": case.steps,
        "attention": attention(),
        "attention_names": [name for name in what_ran.ATTENTION if hasattr(attention_dispatch, name)],
        "loss": loss(),
        "loaded": {name: loaded(shape, work) for name, shape in acceptance_cases.TOY_SHAPES.items()},
    }
    print(json.dumps(report))


def attention():
    """Unsloth's dispatcher on CPU tensors: two packed examples of three and five tokens."""
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(1, heads, 8, 64) for heads in (4, 2, 2))
    lengths = torch.tensor([3, 5], dtype=torch.int32)
    bounds = torch.tensor([0, 3, 8], dtype=torch.int32)
    config = attention_dispatch.AttentionConfig(backend=attention_dispatch.SDPA, n_kv_heads=2, n_groups=2)
    context = attention_dispatch.AttentionContext(
        bsz=1, q_len=8, kv_seq_len=8, n_heads=4, head_dim=64, requires_grad=False, seq_info=(lengths, bounds, 5),
        attention_mask=None, causal_mask=None,
    )  # fmt: skip
    with what_ran.attention_calls() as calls:
        attention_dispatch.run_attention(config=config, context=context, Q=queries, K=keys, V=values)
    return dict(calls)


def loss():
    """Unsloth's fused loss counts itself; on a CPU it goes in chunks of rows."""
    from unsloth_zoo.fused_losses.cross_entropy_loss import unsloth_fused_ce_loss

    hidden = torch.randn(1, 16, 64, requires_grad=True)
    head, labels = torch.randn(128, 64), torch.randint(0, 128, (1, 16))
    before = what_ran.loss_counters()
    unsloth_fused_ce_loss(None, hidden, head, None, labels, torch_compile=False).backward()
    assert fused_linear.CALLS  # the counters that `what_ran` reads
    return what_ran.loss_path(before, what_ran.loss_counters())


def loaded(shape, work):
    """A folder of random_model, loaded and adapted by Unsloth's CUDA loader; a played card answers what it asks."""
    from unittest.mock import patch

    import unsloth.models._utils as utils
    import unsloth.models.llama as llama
    import unsloth.models.loader as loader

    folder = random_model.build(shape, work / f"{shape.name}-bnb-4bit")
    empty = torch.empty

    def empty_on_the_cpu(*size, device=None, pin_memory=False, **options):
        return empty(*size, **options)  # buffers for offloaded checkpoints, the RoPE tables' first places

    card = {"get_device_capability": lambda *args: (8, 6), "device_count": lambda: 1, "current_device": lambda: 0}
    with (
        patch.multiple(torch.cuda, **card),
        patch.multiple(loader, ALLOW_PREQUANTIZED_MODELS=True, ALLOW_BITSANDBYTES=True),
        patch.multiple(llama, get_device_stats=lambda: ("a card", "", 10), DEVICE_TYPE_TORCH="cpu"),
        patch.multiple(utils, DEVICE_TYPE_TORCH="cpu"),
        patch.object(torch, "empty", empty_on_the_cpu),
        backend.quiet(),
    ):
        model, tokenizer = backend.FastLanguageModel.from_pretrained(
            str(folder),
            max_seq_length=TOKENS,
            dtype=torch.float16,
            load_in_4bit=True,
            device_map={"": "cpu"},
            use_gradient_checkpointing="unsloth",
            use_exact_model_name=True,
            offload_embedding=False,
            offload_layers=0,
        )
        targets = list(TARGETS["full"])
        adapted = backend.FastLanguageModel.get_peft_model(
            model, r=16, lora_alpha=32, target_modules=targets, checkpoint_skip_layers=1, max_seq_length=TOKENS
        )
    linears = [module for module in adapted.modules() if type(module).__name__ == "Linear4bit" and module.bias is None]
    return {
        "model": type(adapted.get_base_model()).__name__,
        "nf4": all(linear.weight.quant_state.nested for linear in linears),
        "trainable": sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad),
        "expected": shape.lora_parameters(16, TARGETS["full"]),
        "tokens": len(tokenizer),
        "template": tokenizer.chat_template == (folder / "chat_template.jinja").read_text(encoding="utf-8"),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
