"""What a row of the families' table holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

TARGETS: Mapping[str, tuple[str, ...]] = {
    "minimal": ("q_proj", "v_proj"),
    "standard": ATTENTION,
    "full": ATTENTION + MLP,
}
"""The presets of `lora.target` in a dense decoder of the Llama kind."""

# Every nn.Linear of such a decoder's layers. Embeddings, norms and lm_head keep their 16 bits: Unsloth and transformers
# skip lm_head.
QUANTISED = r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.weight"


@dataclass(frozen=True, slots=True)
class Turns:
    """How a family writes a turn: before the role, between role and text, after the text.

    stops: what ends an answer, the end-of-turn token first. assistant: the role's name in the text. system_turn: whether
    a system prompt has a turn of its own; otherwise it stands at the start of the first question's turn.
    """

    name: str
    before: str
    between: str
    after: str
    stops: tuple[str, ...]
    assistant: str = "assistant"
    system_turn: bool = True

    def opening(self, role: str) -> str:
        return f"{self.before}{self.assistant if role == 'assistant' else role}{self.between}"

    def turn(self, role: str, content: str) -> str:
        return f"{self.opening(role)}{content}{self.after}"


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a family writes its thoughts.

    opens, closes: the tags. empty: what the generation prompt adds where thinking is off. without: the Jinja that renders
    as the family's own does with thinking off; None: put `switch_off` in front of the family's own.
    """

    opens: str = "<think>"
    closes: str = "</think>"
    empty: str = "<think>\n\n</think>\n\n"
    without: str | None = None
    switch_off: str = "{%- set enable_thinking = false %}\n"


@dataclass(frozen=True, slots=True)
class Size:
    """Published models of one shape, as their config.json has it. head_dim: None for hidden / heads."""

    names: tuple[str, ...]
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int
    tied: bool
    max_position_embeddings: int
    head_dim: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """One family of models.

    name: the key, in lower case. title: for messages. model_types: of config.json. named: a regular expression for the
    start of its repositories' names, in lower case. trains: whether Slimtune trains it. turns: of its chat template, which
    a family that trains must have; where None, `marks` says what opens a question, opens an answer and ends one.
    default_system: what its template says without a system message. controls: further tokens that steer the model and are
    not written <|…|>.

    Shape, where config.json is silent: head_dim (None: hidden / heads), positions. qk_norm, qkv_bias: as in `ModelShape`.
    lora_targets: the presets of `lora.target`. quantised: a regular expression for the weights that loading in 4 bit
    quantises, if known. sizes: published models. never_dynamic: repositories whose dynamic 4-bit weights Unsloth replaces
    by the plain ones.

    Export: architectures that llama.cpp's converter may be given, and its options; gguf_architectures: their names in
    GGUF; begins_text: whether a beginning-of-text token precedes a prompt. split: the regular expression that its
    tokenizer splits text with, pre_tokenizer: llama.cpp's name for it. rendered_by_ollama: the Modelfile's instructions
    where Ollama renders the prompt with code of its own.
    """

    name: str
    title: str
    model_types: tuple[str, ...]
    turns: Turns | None
    named: str = r"(?!)"
    trains: bool = False
    thinking: Thinking | None = None
    default_system: str | None = None
    controls: tuple[str, ...] = ()
    marks: tuple[str, str, str] | None = None
    head_dim: int | None = None
    positions: int = 32768
    qk_norm: bool = False
    qkv_bias: bool = False
    lora_targets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: TARGETS)
    quantised: str | None = None
    sizes: tuple[Size, ...] = ()
    never_dynamic: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    converter_options: tuple[str, ...] = ()
    gguf_architectures: tuple[str, ...] = ()
    begins_text: bool = True
    split: str | None = None
    pre_tokenizer: str | None = None
    rendered_by_ollama: Mapping[str, str] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends an answer, the end-of-turn token first."""
        return self.turns.stops if self.turns else ()

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Every text that steers a model of this family."""
        tags = (self.thinking.opens, self.thinking.closes) if self.thinking else ()
        return (*self.stops, *(self.marks or ()), *self.controls, *tags)
