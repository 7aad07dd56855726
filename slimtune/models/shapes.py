"""The shapes of models, from a family's table or config.json: enough to count parameters, nothing loaded."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import Problem, SlimtuneError, fail
from slimtune.models import families

_LARGEST = 2**31 - 1
"""Of any size in a config.json: llama.cpp and CUDA count them in 32 bits."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a dense decoder of the Llama kind: RMSNorm, grouped-query attention, SwiGLU.

    name: the published name without organisation ("Qwen3-8B"). family: a row's name (models/families/rows.py).
    tied: the output head is the input embedding. qk_norm: query and key heads are normalised. qkv_bias: q, k, v have one.
    """

    name: str
    family: str
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
        fix = f"use some of {', '.join(self.projections)}"
        problems = [Problem(f"no linear called '{name}' in {self.name}", "lora.target", fix) for name in unknown]
        if not targets:
            presets = ", ".join(families.get(self.family).lora_targets)
            problems.append(Problem("no linear is targeted", "lora.target", f"use one of {presets}"))
        if rank < 1:
            problems.append(Problem(f"rank {rank} trains nothing", "lora.rank", "use a rank from 4 to 64"))
        if problems:
            raise SlimtuneError(problems)
        return self.layers * rank * sum(sum(self.projections[name]) for name in set(targets))


def known() -> dict[str, ModelShape]:
    """The shape of every published model in the families' tables, by its name."""
    found: dict[str, ModelShape] = {}
    for family in families.rows():
        of_family: dict[str, Any] = {"family": family.name, "qk_norm": family.qk_norm, "qkv_bias": family.qkv_bias}
        for size in family.sizes:
            sizes = dataclasses.asdict(size) | {"head_dim": size.head_dim or size.hidden_size // size.heads}
            found |= {name: ModelShape(name=name, **of_family, **sizes) for name in sizes.pop("names")}
    return found


_FOUR_BIT = re.compile(r"(?P<dynamic>-unsloth)?-bnb-4bit$", re.IGNORECASE)


def find(name: str) -> ModelShape | None:
    """The shape of a published model by repository name or folder name, in any case; None for every other name.

    The whole name must match, but for organisation and 4-bit suffix: "Qwen3-8B-something" may have another shape.
    """
    key = _FOUR_BIT.sub("", Path(name).name).lower()
    return next((shape for published, shape in known().items() if published.lower() == key), None)


def is_dynamic(name: str) -> bool:
    """Whether a repository holds Unsloth's dynamic 4-bit weights: some linears left in 16 bit, about 10 % larger."""
    repository = Path(name).name.lower()
    found = _FOUR_BIT.search(repository)
    plain = [published for family in families.rows() for published in family.never_dynamic]
    return bool(found and found["dynamic"] and repository[: found.start()] not in plain)


def is_prequantised(name: str) -> bool:
    """Whether a repository, by its name, holds 4-bit weights already."""
    return _FOUR_BIT.search(Path(name).name) is not None


def of_base(base: str, folder: Path | None) -> ModelShape:
    """The shape of a base that can be trained. folder: with its config.json, None where that is not on this machine.

    Raises SlimtuneError for a family that is not supported, and where nothing on this machine tells the shape.
    """
    if folder:
        return from_config(inputs.json_object(folder / "config.json"), base)
    families.require_named(base)
    shape = find(base)
    if shape is None:
        what = f"the size of '{base}' is not known, and its config.json is not on this machine"
        other = f"set model.base to a model of a supported family: {families.supported()}"
        raise fail(what, where="model.base", fix=f"run  hf download {base} config.json  or {other}")
    return shape


def require_loadable(config: Mapping[str, Any], base: str, *, load_in_4bit: bool) -> None:
    """Raise SlimtuneError for weights that are quantised in a way that is not trained, or not as the recipe says."""
    quantisation = config.get("quantization_config")
    if not quantisation:
        return
    method = quantisation.get("quant_method") if isinstance(quantisation, Mapping) else quantisation
    if method != "bitsandbytes" or not quantisation.get("load_in_4bit"):
        what = f"the weights of '{base}' are quantised with {method!r}; only bitsandbytes 4-bit can be trained"
        raise fail(what, where="model.base", fix="use the model's 16-bit weights, or its -bnb-4bit repository")
    if not load_in_4bit:
        what = f"'{base}' holds 4-bit weights, and load_in_4bit is false"
        raise fail(what, where="model.load_in_4bit", fix="set it to true, or set model.base to the 16-bit model")


# What loading a model reads besides its sizes; each may be null.
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("rope_scaling", "rope_parameters"), (dict,)),
    **dict.fromkeys(("rope_theta", "rms_norm_eps", "initializer_range", "attention_dropout"), (int, float)),
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "mlp_bias"), (bool,)),
    **dict.fromkeys(("architectures", "layer_types"), (list,)),
    **dict.fromkeys(("hidden_act", "torch_dtype", "dtype"), (str,)),
}


def _other_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What other parts of a config.json have another type than loading needs."""
    for key, kinds in _KINDS.items():
        value = config.get(key)
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            yield f"'{key}' is {str(value)[:40]!r}, not {_NAMES[kinds]}"
    for key in ("rope_theta", "rms_norm_eps"):
        value = config.get(key)
        if isinstance(value, int | float) and not (value > 0 and math.isfinite(value)):
            yield f"'{key}' is {value}, not a positive number"
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if isinstance(rope, dict):
            kind, factor = rope.get("rope_type", rope.get("type", "default")), rope.get("factor", 1.0)
            if not isinstance(kind, str):
                yield f"the type in '{key}' is {str(kind)[:40]!r}, not text"
            if factor is not None and not (isinstance(factor, int | float) and 0 < factor < math.inf):
                yield f"the factor in '{key}' is {str(factor)[:40]!r}, not a positive number"


_NAMES: Mapping[tuple[type, ...], str] = {
    (dict,): "an object",
    (int, float): "a number",
    (bool,): "true or false",
    (list,): "a list",
    (str,): "text",
}


def from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a parsed `config.json` describes. name: what messages call the model, and the shape's name.

    Where the file is silent: as many key-value heads as heads, an untied head, and the family's head_dim and positions,
    as in the configuration classes of transformers.
    Raises SlimtuneError for an unsupported `model_type` and for missing or impossible sizes, all at once.
    """
    family = families.of_config(config, name)
    required = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    optional = ["num_key_value_heads", "head_dim", "max_position_embeddings"]
    problems = []
    for key in required + [key for key in optional if config.get(key) is not None]:
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
            told = f"'{key}' is {str(value)[:40]!r}, not a positive whole number of at most {_LARGEST:,}"
            what = f"'{key}' is missing" if key not in config else told
            problems.append(Problem(what, f"config.json of {name}", "download the model's config.json again"))
    for what in _other_faults(config):
        problems.append(Problem(what, f"config.json of {name}", "download the model's config.json again"))
    if problems:
        raise SlimtuneError(problems)

    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or family.head_dim or config["hidden_size"] // heads
    if heads % kv_heads or not head_dim:
        what = f"{heads} heads of {head_dim} features cannot share {kv_heads} key-value heads"
        raise fail(what, where=f"config.json of {name}", fix="download the model's config.json again")
    return ModelShape(
        name=name,
        family=family.name,
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias or bool(config.get("attention_bias", False)),
        max_position_embeddings=config.get("max_position_embeddings") or family.positions,
    )
