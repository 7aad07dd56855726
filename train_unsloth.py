"""Fine-tune a Qwen with Unsloth, judge it against its base, and export it for Ollama. Also: slimtune train.

python train_unsloth.py --recipe recipes/direct.yaml
python train_unsloth.py --recipe recipes/direct.yaml --dry-run            # only the plan
python train_unsloth.py --recipe recipes/direct.yaml train.epochs=1       # override any value
"""

from slimtune.cli.app import train_unsloth

if __name__ == "__main__":
    train_unsloth()
