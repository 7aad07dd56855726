"""The list of what the GPU acceptance measures. No torch.

Each case is a process of its own and loads one model once. Everything that a plan could choose is pinned, so that a case
differs from its model's baseline in one knob only.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from slimtune.models.shapes import ModelShape, known

LENGTHS = (1024, 2048, 4096, 8192)
KNOB_TOKENS = 4096

# What a plan may choose by itself, set to Unsloth's defaults.
PINNED: dict[str, Any] = {
    "model.offload_embedding": False,
    "model.offload_layers": 0,
    "train.checkpoint_skip_layers": 0,
    "train.double_buffer": True,
    "train.per_device_train_batch_size": 1,
    "train.gradient_accumulation_steps": 1,
}


@dataclass(frozen=True)
class Case:
    """One process of the acceptance.

    tokens: of a micro-batch, one measurement each, ascending; empty: as the plan chooses. knob: what the case turns, ""
    for a model's baseline. values: recipe values by "section.key", over `PINNED`, or instead of it where `as_planned`.
    timed_steps: after the warm-up; one more is recorded allocation by allocation. expected_seconds: on a fast card, for
    the deadline only.
    """

    model: str
    tokens: tuple[int, ...]
    knob: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    as_planned: bool = False
    check_packing: bool = False
    timed_steps: int = 6
    warm_up_steps: int = 3  # kernels are compiled, buffers grow to their size
    expected_seconds: float = 45.0

    @property
    def name(self) -> str:
        return f"{self.model} {self.knob}".strip().lower().replace("-instruct", "")

    @property
    def steps(self) -> int:
        return self.warm_up_steps + self.timed_steps + 1

    @property
    def settings(self) -> dict[str, Any]:
        """Recipe values of the case, by "section.key"."""
        return self.values if self.as_planned else PINNED | self.values

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


def from_json(value: dict[str, Any]) -> Case:
    """The case that `Case.as_json` wrote."""
    given = {key: given for key, given in value.items() if key != "name"}
    return Case(**{**given, "tokens": tuple(value["tokens"])})


def on_a_card() -> list[Case]:
    """The acceptance on a GPU, what matters most first."""
    large = "Qwen3-8B"
    baselines = [
        Case(large, LENGTHS, check_packing=True, expected_seconds=75),
        Case("Qwen2.5-7B-Instruct", LENGTHS, check_packing=True, expected_seconds=65),
        Case("Qwen3-4B", LENGTHS, check_packing=True, expected_seconds=60),
    ]
    knobs: dict[str, dict[str, Any]] = {
        "offload-embedding": {"model.offload_embedding": True},
        "skip-3-layers": {"train.checkpoint_skip_layers": 3},
        "one-staging-buffer": {"train.double_buffer": False},
        "offload-4-layers": {"model.offload_layers": 4},
        "rank-8": {"lora.rank": 8},
    }
    first, *others = [Case(large, (KNOB_TOKENS,), knob, values) for knob, values in knobs.items()]
    planned = Case(large, (), "as-planned", {"model.max_seq_length": 2048}, as_planned=True)
    return [*baselines, first, planned, *others]


def toy() -> list[Case]:
    """The same at toy size: every line but the CUDA calls, on a CPU."""

    def small(model: str, tokens: tuple[int, ...], knob: str = "", **more: Any) -> Case:
        return Case(model, tokens, knob, timed_steps=2, warm_up_steps=1, expected_seconds=20, **more)

    pairs = {"train.per_device_train_batch_size": 2}
    return [
        small("toy-qwen3", (512, 1024), values=pairs, check_packing=True),
        small(
            "toy-qwen2.5", (), "as-planned", values={"model.max_seq_length": 512}, as_planned=True, check_packing=True
        ),
    ]


_TOY = replace(
    known()["Qwen3-0.6B"],
    name="toy-qwen3",
    hidden_size=128,
    intermediate_size=256,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=2048,
    max_position_embeddings=2048,
)
TOY_SHAPES: dict[str, ModelShape] = {
    "toy-qwen3": _TOY,
    "toy-qwen2.5": replace(_TOY, name="toy-qwen2.5", family="qwen2.5", tied=False, qk_norm=False, qkv_bias=True),
}


def shape_of(model: str) -> ModelShape:
    """The shape of a case's model."""
    return TOY_SHAPES.get(model) or known()[model]
