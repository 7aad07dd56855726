"""Fine-tune a Qwen with Unsloth, judge it against its base, and export it for Ollama.

python train_unsloth.py --recipe recipes/direct.yaml
python train_unsloth.py --recipe recipes/direct.yaml --dry-run            # the plan alone
python train_unsloth.py --recipe recipes/direct.yaml train.epochs=1       # any value overridden
"""

from slimtune.cli.app import train_unsloth

if __name__ == "__main__":
    train_unsloth()
