"""The families that Slimtune knows: a row each. A new family is a new row, and its test."""

import functools
from collections.abc import Sequence

from slimtune.data.line_encoding import SPLIT_EXPRESSION
from slimtune.models.families.family import QUANTISED, Family, Size, Thinking, Turns

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

_qwen = functools.partial(Family, turns=_CHATML, begins_text=False)

BUILT_IN = (
    _qwen(
        name="qwen2.5",
        title="Qwen2.5 (with Coder)",
        model_types=("qwen2",),
        named=r"qwen2\.5-(coder-)?\d",
        trains=True,
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        qkv_bias=True,
        quantised=QUANTISED,
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
        split=SPLIT_EXPRESSION,
        pre_tokenizer="qwen2",
    ),
    _qwen(
        name="qwen3",
        title="Qwen3",
        model_types=("qwen3",),
        named=r"qwen3-\d",
        trains=True,
        thinking=Thinking(without=_QWEN3_WITHOUT_THINKING),
        controls=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
        head_dim=128,
        qk_norm=True,
        quantised=QUANTISED,
        sizes=(
            *(_qwen3([f"Qwen3-{size}"], *shape, 40960) for size, shape in _QWEN3_SIZES.items()),
            # The 32B is published without a base model.
            *(_qwen3([f"Qwen3-{size}-Base"], *shape, 32768) for size, shape in _QWEN3_SIZES.items() if size != "32B"),
            _qwen3(["Qwen3-4B-Instruct-2507", "Qwen3-4B-Thinking-2507"], *_QWEN3_4B, 262144),
        ),
        never_dynamic=("qwen3-32b",),  # BAD_MAPPINGS in models/loader_utils.py of Unsloth 2026.10.9
        architectures=("Qwen3ForCausalLM",),
        gguf_architectures=("qwen3", "qwen3moe"),
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
    _qwen(
        name="qwen3.5",
        title="Qwen3.5",
        model_types=("qwen3_5", "qwen3_5_text", "qwen3_5_moe"),
        named=r"qwen3\.5-",
        thinking=Thinking(),
        architectures=("Qwen3_5ForCausalLM",),
        # It is published with a head that predicts several tokens. That head is neither trained nor merged, and without
        # this option the converter expects its layers.
        converter_options=("--no-mtp",),
        gguf_architectures=("qwen35",),
        rendered_by_ollama={"renderer": "qwen3.5", "parser": "qwen3.5", "requires": "0.17.6"},
    ),
    _qwen(
        name="qwen-moe",
        title="Qwen mixture of experts",
        model_types=("qwen2_moe", "qwen3_moe"),
        named=r"qwen(2\.5|3)-\d+b-a\d",
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
        controls=("<s>", "<<SYS>>", "<</SYS>>"),
        marks=("[INST]", "[/INST]", "</s>"),
    ),
)
