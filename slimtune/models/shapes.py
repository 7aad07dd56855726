"""The shapes of the models that Slimtune can plan for: enough to count parameters, nothing loaded.

A shape comes from the table of known models or from a model's own `config.json`. The parameter counts follow
from it exactly; `slimtune.plan.memory.vram` turns them into bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from slimtune.core.errors import Problem, SlimtuneError, fail

Family = Literal["qwen2", "qwen3", "llama"]
FAMILIES: tuple[Family, ...] = get_args(Family)

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

# The presets of `lora.target`.
TARGETS: dict[str, tuple[str, ...]] = {
    "minimal": ("q_proj", "v_proj"),
    "standard": ATTENTION,
    "full": ATTENTION + MLP,
}


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a dense decoder of the Llama kind: RMSNorm, grouped-query attention, SwiGLU.

    name: the published name without organisation ("Qwen3-8B").
    tied: the output head is the input embedding.
    qk_norm: query and key heads are normalised (Qwen3); qkv_bias: q, k and v carry a bias (Qwen2).
    """

    name: str
    family: Family
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    qk_norm: bool
    qkv_bias: bool
    max_position_embeddings: int

    @property
    def query_size(self) -> int:
        """Features of the query and of the attention's output: heads · head_dim. Not always the hidden size."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Features of the key, and of the value: kv_heads · head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """The seven linears of one decoder layer: name -> (in features, out features)."""
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (hidden, self.query_size),
            "k_proj": (hidden, self.kv_size),
            "v_proj": (hidden, self.kv_size),
            "o_proj": (self.query_size, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def linear_parameters_per_layer(self) -> int:
        return sum(inputs * outputs for inputs, outputs in self.projections.values())

    @property
    def linear_parameters(self) -> int:
        """Weights of all decoder linears: what 4-bit loading quantises. Embeddings and head are not among them."""
        return self.layers * self.linear_parameters_per_layer

    @property
    def embedding_parameters(self) -> int:
        """Input embedding, and the output head where it is a matrix of its own."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def norm_parameters(self) -> int:
        """Two norms a layer and the final one; with QK-norm one head_dim vector each for queries and keys."""
        per_layer = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        return self.layers * per_layer + self.hidden_size

    @property
    def bias_parameters(self) -> int:
        return self.layers * (self.query_size + 2 * self.kv_size) if self.qkv_bias else 0

    @property
    def total_parameters(self) -> int:
        return self.linear_parameters + self.embedding_parameters + self.norm_parameters + self.bias_parameters

    def lora_parameters(self, rank: int, targets: Collection[str]) -> int:
        """Trainable parameters of LoRA: rank · (in + out) for every targeted linear (Hu et al. 2021, A and B).

        rank: at least 1. targets: names out of `projections`.
        Raises SlimtuneError for a rank below 1, for no target and for a target that the model does not have.
        """
        unknown = sorted(set(targets) - set(self.projections))
        problems = [Problem(f"no linear called '{name}' in {self.name}", "lora.target") for name in unknown]
        if not targets:
            problems.append(Problem("no linear is targeted", "lora.target", f"one of {', '.join(TARGETS)}"))
        if rank < 1:
            problems.append(Problem(f"rank {rank} trains nothing", "lora.rank", "a rank from 4 to 64 is usual"))
        if problems:
            raise SlimtuneError(problems)
        return self.layers * rank * sum(sum(self.projections[name]) for name in set(targets))


def _qwen2_5(
    name: str, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, tied: bool, positions: int
) -> ModelShape:
    # From 7B on, head and embedding are two matrices, padded to a larger multiple.
    vocabulary = 151936 if tied else 152064
    return ModelShape(
        name=name,
        family="qwen2",
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        tied=tied,
        qk_norm=False,
        qkv_bias=True,
        max_position_embeddings=positions,
    )


def _qwen3(
    name: str, hidden: int, intermediate: int, layers: int, heads: int, tied: bool, positions: int
) -> ModelShape:
    return ModelShape(
        name=name,
        family="qwen3",
        hidden_size=hidden,
        intermediate_size=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        vocab_size=151936,
        tied=tied,
        qk_norm=True,
        qkv_bias=False,
        max_position_embeddings=positions,
    )


def _llama_3_1_8b(name: str) -> ModelShape:
    return ModelShape(
        name=name,
        family="llama",
        hidden_size=4096,
        intermediate_size=14336,
        layers=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab_size=128256,
        tied=False,
        qk_norm=False,
        qkv_bias=False,
        max_position_embeddings=131072,
    )


def _known() -> dict[str, ModelShape]:
    """Every shape of the table, by published name; the figures are those of the models' config.json files."""
    # size: hidden, intermediate, layers, heads, kv heads, tied, positions of the base model.
    qwen2_5 = {
        "0.5B": (896, 4864, 24, 14, 2, True, 32768),
        "1.5B": (1536, 8960, 28, 12, 2, True, 131072),
        "3B": (2048, 11008, 36, 16, 2, True, 32768),
        "7B": (3584, 18944, 28, 28, 4, False, 131072),
        "14B": (5120, 13824, 48, 40, 8, False, 131072),
        "32B": (5120, 27648, 64, 40, 8, False, 131072),
    }
    # size: hidden, intermediate, layers, heads, tied.
    qwen3 = {
        "0.6B": (1024, 3072, 28, 16, True),
        "1.7B": (2048, 6144, 28, 16, True),
        "4B": (2560, 9728, 36, 32, True),
        "8B": (4096, 12288, 36, 32, False),
        "14B": (5120, 17408, 40, 40, False),
        "32B": (5120, 25600, 64, 64, False),
    }
    shapes = []
    for size, (*sizes, tied, positions) in qwen2_5.items():
        hidden, intermediate, layers, heads, kv_heads = sizes
        for name, limit in (
            (f"Qwen2.5-{size}", positions),
            (f"Qwen2.5-{size}-Instruct", 32768),
            (f"Qwen2.5-Coder-{size}", 32768),
            (f"Qwen2.5-Coder-{size}-Instruct", 32768),
        ):
            shapes.append(_qwen2_5(name, hidden, intermediate, layers, heads, kv_heads, tied, limit))
    for size, (hidden, intermediate, layers, heads, tied) in qwen3.items():
        names = [(f"Qwen3-{size}", 40960)]
        if size != "32B":  # published without a base model
            names.append((f"Qwen3-{size}-Base", 32768))
        if size == "4B":
            names += [("Qwen3-4B-Instruct-2507", 262144), ("Qwen3-4B-Thinking-2507", 262144)]
        shapes += [_qwen3(name, hidden, intermediate, layers, heads, tied, limit) for name, limit in names]
    shapes += [_llama_3_1_8b("Llama-3.1-8B"), _llama_3_1_8b("Llama-3.1-8B-Instruct")]
    return {shape.name: shape for shape in shapes}


KNOWN: dict[str, ModelShape] = _known()
_BY_LOWER_CASE = {name.lower(): shape for name, shape in KNOWN.items()}

_PLAIN = "-bnb-4bit"
_DYNAMIC = "-unsloth-bnb-4bit"


def _repository(name: str) -> str:
    """The last part of "organisation/repository" or of a path, as written."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def find(name: str) -> ModelShape | None:
    """The shape of a known model by repository name or folder name, in any case; None for every other name.

    The whole name must match, apart from the organisation and the suffix of a bitsandbytes 4-bit repository:
    a name that is merely similar ("Qwen3-8B-something", "Qwen2.5-VL-7B") may have another shape.
    """
    key = _repository(name).lower().removesuffix(_DYNAMIC).removesuffix(_PLAIN)
    return _BY_LOWER_CASE.get(key.removeprefix("meta-") if key.startswith("meta-llama-") else key)


def is_dynamic(name: str) -> bool:
    """Whether a repository holds Unsloth's dynamic 4-bit weights: some linears left in 16 bit, about 10 % larger."""
    repository = _repository(name).lower()
    # Unsloth loads the plain 4-bit weights in its stead (`BAD_MAPPINGS` in models/loader_utils.py, 2026.10.9).
    return repository.endswith(_DYNAMIC) and repository != "qwen3-32b" + _DYNAMIC


def is_prequantised(name: str) -> bool:
    """Whether a repository, by its name, holds 4-bit weights already."""
    return _repository(name).lower().endswith(_PLAIN)


def dynamic_redirect(name: str) -> str | None:
    """The larger repository that Unsloth loads when asked for this 16-bit one in 4 bit; None where it does not.

    `Qwen/Qwen3-8B` becomes `unsloth/Qwen3-8B-unsloth-bnb-4bit`; the plain `unsloth/Qwen3-8B-bnb-4bit` stays what it
    is. Source: `models/mapper.py` and `models/loader_utils.get_model_name` of Unsloth 2026.10.9, known models only.
    """
    organisation, _, repository = name.rpartition("/")
    publisher = {"qwen2": "qwen", "qwen3": "qwen", "llama": "meta-llama"}
    shape = find(name)
    if shape is None or repository.lower().endswith(_PLAIN):
        return None
    if organisation.lower() not in ("unsloth", publisher[shape.family]):
        return None
    if "-Coder-" in shape.name or "-32B" in shape.name:  # only a plain 4-bit repository is used
        return None
    return f"unsloth/{repository}{_DYNAMIC}"


def from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a model's `config.json` describes.

    config: the parsed file. name: what messages call the model, and the shape's name.
    Where the file is silent: as many key-value heads as heads; head_dim 128 for Qwen3 and hidden/heads otherwise; an
    untied head; 32,768 positions (Llama: 2,048), as in the configuration classes of transformers.
    Raises SlimtuneError for an unsupported `model_type` and for missing or impossible sizes, all at once.
    """
    family = next((known for known in FAMILIES if known == config.get("model_type")), None)
    if family is None:
        raise fail(
            f"model_type {config.get('model_type')!r} is not supported",
            where=f"config.json of {name}",
            fix=f"supported are {', '.join(FAMILIES)}",
        )
    required = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    optional = ["num_key_value_heads", "head_dim", "max_position_embeddings"]
    problems = []
    for key in required + [key for key in optional if config.get(key) is not None]:
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            what = f"'{key}' is missing" if key not in config else f"'{key}' is {value!r}, not a positive whole number"
            problems.append(Problem(what, f"config.json of {name}", "download the model's config.json again"))
    if problems:
        raise SlimtuneError(problems)

    heads = config["num_attention_heads"]
    head_dim = 128 if family == "qwen3" else config["hidden_size"] // heads
    return ModelShape(
        name=name,
        family=family,
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or head_dim,
        vocab_size=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        qk_norm=family == "qwen3",
        qkv_bias=family == "qwen2" or bool(config.get("attention_bias", False)),
        max_position_embeddings=config.get("max_position_embeddings") or (2048 if family == "llama" else 32768),
    )
