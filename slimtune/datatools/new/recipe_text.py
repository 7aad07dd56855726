"""The recipe as a person would write it, with a remark on what one would change."""

import textwrap
from collections.abc import Mapping
from pathlib import PurePath

import yaml

from slimtune.core.visible import visible
from slimtune.datatools.new.examples import Understood
from slimtune.datatools.new.settings import RecipeSettings, number
from slimtune.plan.explain import suggestions
from slimtune.recipe.names import KindName

_WIDTH = 118
_JUDGED: Mapping[KindName, str] = {
    "multiple_choice": "the letter of the right choice",
    "generation": "free replies, compared with the answers in the file (chrF and exact match)",
    "perplexity": "how likely the model finds the answers in the file",
}


def render(
    name: str, source: str, understood: Understood, sizes: Mapping[str, int], wish: RecipeSettings, folder: str
) -> str:
    """The text of recipes/NAME.yaml. source: the file that it was made from. sizes: rows of each split. folder: of the data."""
    path = {split: _scalar(f"{folder}/{split}.jsonl") for split in ("train", "dev", "test")}
    told = ", ".join(f"{field} from '{column}'" for field, column in understood.columns.items())
    made = f"Made by `slimtune new` from {PurePath(source).name}: {sum(sizes.values()):,} {understood.kind}"
    made += f" ({told})." if told else "."
    made += f" {sizes['test']:,} of them are the test, which is never trained on"
    made += f", and {sizes['dev']:,} choose the checkpoint." if "dev" in sizes else "."
    lines = [f"# python train_unsloth.py --recipe recipes/{name}.yaml", "#", *_comment(made), f"name: {_scalar(name)}"]
    lines += _model(wish)
    lines += ["data:", "  train:", f"    - path: {path['train']}"]
    if "dev" in sizes:
        lines.append(f"  eval: {path['dev']}")
    if understood.system is not None:
        lines.append(f"  system: {_scalar(understood.system)}")
    lines += _train(wish, sizes["train"])
    if wish.small:
        lines.append("budget: {vram_gb: null}  # a model this small needs no card")
    else:
        lines.append(f"budget: {{vram_gb: {_plain(wish.vram_gb)}}}  # memory of your card, as sold")
    lines += [f"# The verdict looks at {_JUDGED[wish.kind]}.", "evaluate:", f"  data: {path['test']}"]
    lines.append(f"  kind: {wish.kind}")
    if wish.mode != "direct":
        lines.append(f"  mode: {wish.mode}")
    if wish.max_new_tokens is not None:
        lines.append(f"  max_new_tokens: {wish.max_new_tokens}  # of a reply; a longer one is cut off")
    lines += ["export:", f"  gguf: [{wish.gguf}]  # q4_k_m is the smallest; then q5_k_m, q6_k, q8_0, f16"]
    lines.append(f"  ollama_name: {_scalar(name)}")
    return "\n".join(lines) + "\n"


def _model(wish: RecipeSettings) -> list[str]:
    other = f"  # half as large and faster: {wish.smaller}" if wish.smaller else ""
    lines = ["model:", f"  base: {_scalar(wish.base)}{other}"]
    lines.append(f"  max_seq_length: {wish.max_seq_length}  # tokens of the longest question with its answer")
    if wish.thinking:
        lines.append("  thinking: true  # the answers begin with their reasoning")
    return lines


def _train(wish: RecipeSettings, rows: int) -> list[str]:
    if wish.small:
        rate = "a model of this size needs a far higher rate than a real one"
    elif wish.learning_rate < 2e-4:
        rate = "short answers collapse into one of them at higher rates"
    else:
        rate = "halve it if the answers get worse"
    unread = suggestions.OPENAI.short
    few = f"  # of {rows} rows: {unread} sees clear improvement from 50 to 100 on" if rows < 50 else ""
    lines = [f"train:{few}", f"  epochs: {wish.epochs}  # passes over the data; more than 3 memorise it"]
    lines.append(f"  learning_rate: {number(wish.learning_rate)}  # {rate}")
    lines += [f"  effective_batch_size: {wish.batch}", "  warmup_ratio: 0.1"]
    if wish.small:
        lines.append("  gradient_checkpointing: false")
    return lines


def _comment(text: str) -> list[str]:
    # What ends a line for YAML must not end the comment.
    text = visible(" ".join(text.split()))
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _scalar(text: str) -> str:
    """Text as a value on one line of YAML, in quotes where it needs them."""
    dumped = yaml.safe_dump(text, allow_unicode=True, width=float("inf"))
    if "\n" in dumped.removesuffix("\n").removesuffix("\n..."):
        dumped = yaml.safe_dump(text, allow_unicode=True, width=float("inf"), default_style='"')
    return dumped.removesuffix("\n").removesuffix("\n...")


def _plain(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
