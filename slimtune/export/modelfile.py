"""The Modelfile for Ollama, and the chat template that goes into the GGUF beside it.

Both are shipped and must agree: Ollama since 0.30 prefers the GGUF's Jinja to the Modelfile's TEMPLATE where that shows
more capabilities, and before that a GGUF without a TEMPLATE got the bare prompt. Neither template here covers tools: a
Go template cannot write JSON as Jinja's tojson does.

The format: https://docs.ollama.com/modelfile and parser/parser.go of github.com/ollama/ollama.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from slimtune.data.chat import render_template
from slimtune.errors import Problem, SlimtuneError, fail
from slimtune.export.gguf import FILE_NAME
from slimtune.export.model_folder import sync
from slimtune.export.modelfile_reader import survives

Family = Literal["qwen2.5", "qwen3"]

# What Qwen2.5's own template says where a conversation brings no system message.
QWEN25_DEFAULT_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
STOPS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
ASSISTANT = "<|im_start|>assistant\n"
EMPTY_THINK_BLOCK = "<think>\n\n</think>\n\n"

# Qwen3 without thinking: what Qwen3's own template renders with enable_thinking=False, for conversations without tools.
# The tags are spelled in pieces because Ollama looks for them in the template's text, and then thinks by default.
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

_PROBES: tuple[tuple[Mapping[str, str], ...], ...] = (
    ({"role": "user", "content": "問い 1"},),
    ({"role": "system", "content": "S s"}, {"role": "user", "content": "u\n\nv "}),
    (
        {"role": "system", "content": "S"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a\n b"},
        {"role": "user", "content": "w"},
    ),
)


def write_modelfile(
    path: Path,
    *,
    gguf_name: str,
    family: Family,
    thinking: bool,
    system: str | None,
    num_ctx: int,
    temperature: float = 0.0,
    top_p: float = 0.8,
    top_k: int = 20,
    repeat_penalty: float = 1.0,
    chat_template: str | None = None,
) -> list[str]:
    """Write the Modelfile for `gguf_name`, a file in the same folder; returns what had to be changed, as sentences.

    system: None for the family's own default. num_ctx: tokens of prompt and answer together.
    temperature: 0 for one right letter; reasoning wants Qwen's own 0.6 with top_p 0.95 (greedy reasoning can loop).
    chat_template: the Jinja in the GGUF. Where given, the turn's opening and the default system prompt are taken from
        it instead of from `family`, and it must be ChatML otherwise.

    Raises SlimtuneError, with every problem at once, for values that the file cannot carry.
    """
    header, default_system = _opening(family, thinking, chat_template)
    # What the parser drops goes first: without it, harmless pieces could join to triple quotes or a control token.
    text, changes = _as_ollama_reads(system or "")
    text = text if text.strip() else default_system or ""
    problems = _problems(gguf_name, text, num_ctx, temperature, top_p, top_k, repeat_penalty)
    if problems:
        raise SlimtuneError(problems, summary="the Modelfile cannot be written")
    template = (
        f"{{{{ range .Messages }}}}<|im_start|>{{{{ .Role }}}}\n{{{{ .Content }}}}<|im_end|>\n{{{{ end }}}}{header}"
    )
    lines = [f"FROM ./{gguf_name}", f'TEMPLATE """{template}"""']
    if text:
        lines.append(f'SYSTEM """{text}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in STOPS]
    lines += [
        f"PARAMETER num_ctx {num_ctx}",
        f"PARAMETER temperature {temperature}",
        f"PARAMETER top_p {top_p}",
        f"PARAMETER top_k {top_k}",
        f"PARAMETER repeat_penalty {repeat_penalty}",
    ]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines) + "\n")
        sync(file)
    partial.replace(path)
    return changes


def bake_chat_template(template: str, *, family: Family, thinking: bool) -> str:
    """The Jinja for the merged folder: `template`, or for Qwen3 without thinking one that always closes the thought.

    Nobody passes enable_thinking=False to a served model, so the template that ships has to imply it. Raises
    SlimtuneError where `template` is not Qwen3's, so that the replacement would render something else.
    """
    if family == "qwen2.5":
        return template
    if thinking or not _render(template, _PROBES[0], thinking=False).endswith(ASSISTANT + EMPTY_THINK_BLOCK):
        return template  # thinks on purpose, or has no thinking to turn off (the Instruct-2507 models)
    for probe in _PROBES:
        for messages, prompt in ((probe, True), ((*probe, {"role": "assistant", "content": "c"}), False)):
            wanted = _render(template, messages, thinking=False, add_generation_prompt=prompt)
            if _render(_QWEN3_WITHOUT_THINKING, messages, thinking=False, add_generation_prompt=prompt) != wanted:
                fix = "export with the base's own chat template, or with thinking on"
                raise fail(
                    "this chat template is not Qwen3's, and its thinking cannot be turned off for export", fix=fix
                )
    return _QWEN3_WITHOUT_THINKING


def _opening(family: Family, thinking: bool, chat_template: str | None) -> tuple[str, str | None]:
    """What opens the assistant's turn, and the system prompt that the template puts in by itself."""
    if family == "qwen2.5" and thinking:
        raise fail("Qwen2.5 has no thinking to turn on", where="model.thinking", fix="set it to false")
    if chat_template is None:
        default_system = QWEN25_DEFAULT_SYSTEM if family == "qwen2.5" else None
        return ASSISTANT + ("" if family == "qwen2.5" or thinking else EMPTY_THINK_BLOCK), default_system
    user = re.escape(f"<|im_start|>user\n{_PROBES[0][0]['content']}<|im_end|>\n")
    opening = rf"(?:<\|im_start\|>system\n(?P<system>.*)<\|im_end\|>\n)?{user}(?P<header>.*)"
    found = re.fullmatch(opening, _render(chat_template, _PROBES[0], thinking=thinking), re.DOTALL)
    header = found["header"] if found else ""
    for messages in _PROBES[1:]:
        chatml = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages)
        if not found or _render(chat_template, messages, thinking=thinking) != chatml + header:
            raise fail("the chat template is not ChatML, so the Modelfile's TEMPLATE would differ from it")
    return header, found["system"] if found else None


def _render(
    template: str, messages: Sequence[Mapping[str, str]], *, thinking: bool, add_generation_prompt: bool = True
) -> str:
    return render_template(template, messages, add_generation_prompt=add_generation_prompt, thinking=thinking)


def _problems(
    gguf_name: str,
    system: str,
    num_ctx: int,
    temperature: float,
    top_p: float,
    top_k: int,
    repeat_penalty: float,
) -> list[Problem]:
    problems = []
    if not FILE_NAME.fullmatch(gguf_name):
        fix = "letters, digits, '.', '_' and '-', ending in .gguf, without a folder"
        problems.append(Problem(f"{gguf_name!r} cannot be the name of a GGUF", "export", fix))
    if '"""' in system:
        fix = "write it with other quotation marks"
        problems.append(Problem('the system prompt holds """, which ends the text in a Modelfile', "data.system", fix))
    for token in STOPS:
        if token in system:
            problems.append(Problem(f"the system prompt holds the control token {token}", "data.system", "remove it"))
    for name, value, allowed, good in (
        ("num_ctx", num_ctx, "at least 1", num_ctx >= 1),
        ("temperature", temperature, "from 0 to 2", 0 <= temperature <= 2),
        ("top_p", top_p, "above 0, at most 1", 0 < top_p <= 1),
        ("top_k", top_k, "at least 0", top_k >= 0),
        ("repeat_penalty", repeat_penalty, "above 0, at most 2", 0 < repeat_penalty <= 2),
    ):
        if not good:
            problems.append(Problem(f"{name} is {value}; it must be {allowed}", "export"))
    return problems


def _as_ollama_reads(text: str) -> tuple[str, list[str]]:
    """`text` with what Ollama's parser would drop made visible: other spaces become plain ones, the rest goes.

    Dropping a full-width space glues two words together; a plain space keeps them apart.
    """
    lost = Counter(character for character in text if not survives(character))
    changes = []
    for character, count in lost.items():
        space = unicodedata.category(character).startswith("Z")
        text = text.replace(character, " " if space else "")
        name = f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()
        became = "became a plain space" if space else "was left out"
        changes.append(f"SYSTEM: {name} {became} ({count}×), because Ollama's parser drops it")
    return text, changes
