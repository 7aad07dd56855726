"""The model families: a row holds everything in which one family differs from the next.

To add a family, write a row in `_BUILT_IN` and its test. No other file names a family or a control token: the plan takes
shapes and LoRA targets from the row, reading data takes the control tokens, masking and asking take the end tokens, the
merge takes the quantised layers, and the export takes turns, thinking style and llama.cpp's names.

A row with `trains=False` is known but not trained: the plan refuses it by name, and the export recognises its turns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimtune.core.errors import SlimtuneError, fail
from slimtune.data import text
from slimtune.data.line_encoding import SPLIT_EXPRESSION

if TYPE_CHECKING:
    from slimtune.data.chat_template import ChatTokenizer

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

TARGETS: Mapping[str, tuple[str, ...]] = {
    "minimal": ("q_proj", "v_proj"),
    "standard": ATTENTION,
    "full": ATTENTION + MLP,
}
"""The presets of `lora.target` in a dense decoder of the Llama kind."""

# Every nn.Linear of such a decoder's layers. Embeddings, norms and lm_head keep their 16 bits: lm_head is in Unsloth's
# and in transformers' list of modules to skip.
_QUANTISED = r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.weight"


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
    as the family's own does with thinking off; None where `switch_off`, put in front of the family's own, does it.
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
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    positions: int
    head_dim: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """One family of models.

    name: the key, in lower case. title: for messages. model_types: of config.json. named: a regular expression that the
    names of its repositories begin with, in lower case. turns: of its chat template; None where they do not have that form,
    which a family that trains must have. trains: whether Slimtune trains it.
    default_system: what its template says where a conversation brings no system message. controls: tokens of its
    vocabulary that steer the model and are not written <|…|>.

    Shape, where config.json is silent: head_dim (None: hidden / heads), positions. qk_norm: query and key heads are
    normalised; qkv_bias: q, k and v have a bias. lora_targets: the presets of `lora.target`. quantised: a regular
    expression for the weights that loading in 4 bit quantises; None where that is not known. sizes: the published
    models. never_dynamic: repositories whose dynamic 4-bit weights Unsloth replaces by the plain ones.

    Export: architectures that llama.cpp's converter may be given, and its options for them; gguf_architectures: what the
    GGUF calls them; begins_text: whether training puts a beginning-of-text token before a prompt. split: the regular
    expression that its tokenizer splits text with, pre_tokenizer: llama.cpp's name for it. rendered_by_ollama: the
    Modelfile's instructions where Ollama renders the prompt with code of its own.
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
        return (*self.stops, *self.controls, *tags)


# ---- turns -----------------------------------------------------------------------------------------------------------

_CHATML = Turns("chatml", "<|im_start|>", "\n", "<|im_end|>\n", ("<|im_end|>", "<|im_start|>", "<|endoftext|>"))
_LLAMA_3 = Turns(
    "llama-3",
    "<|start_header_id|>",
    "<|end_header_id|>\n\n",
    "<|eot_id|>",
    ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|end_of_text|>"),
)
_PHI_3 = Turns(
    "phi-3", "<|", "|>\n", "<|end|>\n", ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>")
)
_PHI_4 = Turns(
    "phi-4", "<|im_start|>", "<|im_sep|>", "<|im_end|>", ("<|im_end|>", "<|im_start|>", "<|im_sep|>", "<|endoftext|>")
)
_GEMMA = Turns(
    "gemma",
    "<start_of_turn>",
    "\n",
    "<end_of_turn>\n",
    ("<end_of_turn>", "<start_of_turn>", "<eos>"),
    assistant="model",
    system_turn=False,
)

# What Qwen3's own template renders with enable_thinking=False, for conversations without tools. The tags are spelled in
# pieces because Ollama looks for them in the template's text, and then thinks by default.
_QWEN3_WITHOUT_THINKING = """\
{%- set thought_start = '<' + 'think>' %}
{%- set thought_end = '</' + 'think>' %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- set thought = '' %}
    {%- if message.role == 'assistant' and thought_end in content %}
        {%- set thought = ((content.split(thought_end) | first).split(thought_start) | last).strip('\\n') %}
        {%- set content = (content.split(thought_end) | last).lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and loop.last %}
        {{- thought_start + '\\n' + thought + '\\n' + thought_end + '\\n\\n' + content.lstrip('\\n') }}
    {%- else %}
        {{- content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' + thought_start + '\\n\\n' + thought_end + '\\n\\n' }}
{%- endif %}
"""


# ---- sizes, from the models' config.json files -----------------------------------------------------------------------


def _qwen2_5(
    size: str, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, positions: int
) -> list[Size]:
    """positions: of the base model; all others have 32,768. From 7B on, head and embedding are two padded matrices."""
    tied = size in ("0.5B", "1.5B", "3B")
    shape = (hidden, intermediate, layers, heads, kv_heads, 151936 if tied else 152064, tied)
    others = (f"Qwen2.5-{size}-Instruct", f"Qwen2.5-Coder-{size}", f"Qwen2.5-Coder-{size}-Instruct")
    return [Size((f"Qwen2.5-{size}",), *shape, positions), Size(others, *shape, 32768)]


def _qwen3(names: Sequence[str], hidden: int, intermediate: int, layers: int, heads: int, positions: int) -> Size:
    """From 8B on, the head is a matrix of its own."""
    return Size(tuple(names), hidden, intermediate, layers, heads, 8, 151936, hidden < 4096, positions, 128)


_QWEN3_4B = (2560, 9728, 36, 32)
_QWEN3_SIZES = {
    "0.6B": (1024, 3072, 28, 16),
    "1.7B": (2048, 6144, 28, 16),
    "4B": _QWEN3_4B,
    "8B": (4096, 12288, 36, 32),
    "14B": (5120, 17408, 40, 40),
    "32B": (5120, 25600, 64, 64),
}

# ---- the rows --------------------------------------------------------------------------------------------------------

_BUILT_IN = (
    Family(
        name="qwen2.5",
        title="Qwen2.5 (with Coder)",
        model_types=("qwen2",),
        named=r"qwen2\.5-(coder-)?\d",
        turns=_CHATML,
        trains=True,
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        qkv_bias=True,
        quantised=_QUANTISED,
        sizes=(
            *_qwen2_5("0.5B", 896, 4864, 24, 14, 2, 32768),
            *_qwen2_5("1.5B", 1536, 8960, 28, 12, 2, 131072),
            *_qwen2_5("3B", 2048, 11008, 36, 16, 2, 32768),
            *_qwen2_5("7B", 3584, 18944, 28, 28, 4, 131072),
            *_qwen2_5("14B", 5120, 13824, 48, 40, 8, 131072),
            *_qwen2_5("32B", 5120, 27648, 64, 40, 8, 131072),
        ),
        architectures=("Qwen2ForCausalLM",),
        gguf_architectures=("qwen2", "qwen2moe"),
        begins_text=False,
        split=SPLIT_EXPRESSION,
        pre_tokenizer="qwen2",
    ),
    Family(
        name="qwen3",
        title="Qwen3",
        model_types=("qwen3",),
        named=r"qwen3-\d",
        turns=_CHATML,
        trains=True,
        thinking=Thinking(without=_QWEN3_WITHOUT_THINKING),
        controls=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
        head_dim=128,
        qk_norm=True,
        quantised=_QUANTISED,
        sizes=(
            *(_qwen3([f"Qwen3-{size}"], *shape, 40960) for size, shape in _QWEN3_SIZES.items()),
            # The 32B is published without a base model.
            *(_qwen3([f"Qwen3-{size}-Base"], *shape, 32768) for size, shape in _QWEN3_SIZES.items() if size != "32B"),
            _qwen3(["Qwen3-4B-Instruct-2507", "Qwen3-4B-Thinking-2507"], *_QWEN3_4B, 262144),
        ),
        never_dynamic=("qwen3-32b",),  # BAD_MAPPINGS in models/loader_utils.py of Unsloth 2026.10.9
        architectures=("Qwen3ForCausalLM",),
        gguf_architectures=("qwen3", "qwen3moe"),
        begins_text=False,
        split=SPLIT_EXPRESSION,
        pre_tokenizer="qwen2",
    ),
    Family(
        name="llama",
        title="Llama-architecture models with a ChatML template",
        model_types=("llama",),
        turns=_CHATML,
        trains=True,
        positions=2048,
    ),
    Family(
        name="qwen3.5",
        title="Qwen3.5",
        model_types=("qwen3_5", "qwen3_5_text", "qwen3_5_moe"),
        named=r"qwen3\.5-",
        turns=_CHATML,
        thinking=Thinking(),
        architectures=("Qwen3_5ForCausalLM",),
        # It is published with a head that predicts several tokens. That head is neither trained nor merged, and without
        # this option the converter expects its layers.
        converter_options=("--no-mtp",),
        gguf_architectures=("qwen35",),
        begins_text=False,
        rendered_by_ollama={"renderer": "qwen3.5", "parser": "qwen3.5", "requires": "0.17.6"},
    ),
    Family(
        name="qwen-moe",
        title="Qwen mixture of experts",
        model_types=("qwen2_moe", "qwen3_moe"),
        named=r"qwen(2\.5|3)-\d+b-a\d",
        turns=_CHATML,
        begins_text=False,
    ),
    Family(
        name="llama-3",
        title="Llama 3",
        model_types=("mllama", "llama4"),
        named=r"(meta-)?llama-[34]",
        turns=_LLAMA_3,
        sizes=(
            Size(
                ("Llama-3.1-8B", "Llama-3.1-8B-Instruct", "Meta-Llama-3.1-8B", "Meta-Llama-3.1-8B-Instruct"),
                *(4096, 14336, 32, 32, 8, 128256, False, 131072),
            ),
        ),
    ),
    Family(
        name="gemma",
        title="Gemma",
        model_types=("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n"),
        named=r"gemma-",
        turns=_GEMMA,
    ),
    Family(name="phi-3", title="Phi-3", model_types=("phi3",), named=r"phi-3", turns=_PHI_3),
    Family(name="phi-4", title="Phi-4", model_types=(), named=r"phi-4", turns=_PHI_4),
    Family(
        name="mistral",
        title="Mistral",
        model_types=("mistral", "mistral3", "mixtral", "ministral"),
        named=r"(mistral|mixtral|ministral|codestral)-",
        turns=None,
        controls=("</s>", "<s>", "[INST]", "[/INST]"),
    ),
)

# ---- looking up ------------------------------------------------------------------------------------------------------

_rows: dict[str, Family] = {}


def register(family: Family) -> None:
    """Add a family, for example one of a program that uses Slimtune.

    Raises ValueError where the name is taken, or where the family trains and has no turns.
    """
    if family.name in _rows:
        raise ValueError(f"the family {family.name!r} is registered already")
    if family.trains and not family.turns:
        raise ValueError(f"the family {family.name!r} needs turns to be trained")
    _rows[family.name] = family
    if family.trains:
        tags = (family.thinking.opens, family.thinking.closes) if family.thinking else None
        text.reserve(family.control_tokens, thought=tags)


def rows() -> tuple[Family, ...]:
    return tuple(_rows.values())


def get(name: str) -> Family:
    """The family of this name, as `ModelShape.family` has it. Raises KeyError for an unknown one."""
    return _rows[name]


def supported() -> str:
    """The families that can be trained, as messages name them."""
    return ", ".join(family.title for family in rows() if family.trains)


def end_tokens() -> tuple[str, ...]:
    """What ends an answer of any family that trains: end-of-turn tokens, then end-of-text tokens."""
    trained = [family for family in rows() if family.trains]
    return tuple(dict.fromkeys([*(family.stops[0] for family in trained), *(family.stops[-1] for family in trained)]))


def turns() -> tuple[Turns, ...]:
    """Every known way to write turns, once."""
    return tuple(dict.fromkeys(family.turns for family in rows() if family.turns))


def of_config(config: Mapping[str, Any], name: str) -> Family:
    """The family that trains a model with this config.json. name: what messages call the model.

    Raises SlimtuneError, naming the supported families, for a `model_type` that none of them has.
    """
    kind = config.get("model_type")
    found = [family for family in rows() if kind in family.model_types]
    for family in found:
        if family.trains:
            return family
    of = f" ({found[0].title})" if found else ""
    raise _refused(f"model_type {kind!r}{of} is not supported", f"config.json of {name}")


def require_named(base: str) -> None:
    """Raise SlimtuneError where the name of a repository says that its family is not supported.

    For a base whose config.json is not on this machine. An unknown name passes.
    """
    repository = base.rstrip("/").rsplit("/", 1)[-1].lower()
    for family in sorted(rows(), key=lambda family: family.trains):  # "qwen3-30b-a3b" also begins like a Qwen3
        if re.match(family.named, repository):
            if not family.trains:
                raise _refused(f"'{base}' is a {family.title} model, which Slimtune cannot train", "model.base")
            return


def require_template(family: Family, tokenizer: ChatTokenizer, base: str) -> None:
    """Raise SlimtuneError where a model's chat template does not end turns as its family does, so that masking fails."""
    try:
        end = tokenizer.end_of_turn_text
    except SlimtuneError as error:
        raise _refused(
            f"the chat template of '{base}' cannot be used: {error.problems[0].what}", "model.base"
        ) from error
    if end != family.stops[0]:
        what = f"the chat template of '{base}' ends a turn with {end}, where {family.title} have {family.stops[0]}"
        raise _refused(what, "model.base")


def _refused(what: str, where: str) -> SlimtuneError:
    return fail(what, where=where, fix=f"set model.base to a model of a supported family: {supported()}")


for _row in _BUILT_IN:
    register(_row)
