"""The Modelfile for Ollama, and the chat template that goes into the GGUF beside it.

Both are shipped and must agree: Ollama since 0.30 may prefer the GGUF's Jinja to the Modelfile's TEMPLATE when that shows
more capabilities, and without a TEMPLATE older versions send the bare prompt. Neither covers tools: a Go template cannot
write JSON as Jinja's tojson does.

The format: https://docs.ollama.com/modelfile and parser/parser.go in github.com/ollama/ollama.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any, Literal

from slimtune.errors import Problem, SlimtuneError, fail
from slimtune.export.gguf import FILE_NAME
from slimtune.export.model_folder import sync

Family = Literal["qwen2.5", "qwen3"]

# What Qwen2.5's own template says when a conversation brings no system message.
QWEN25_DEFAULT_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
STOPS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
EMPTY_THINK_BLOCK = "<think>\n\n</think>\n\n"

# Ollama puts SYSTEM in front of .Messages itself, unless the request brings a system message.
_CHATML = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"

# Qwen3 without thinking, minimal: conversations without tools render as with Qwen3's own template and
# enable_thinking=False. The tags are spelled in two pieces because Ollama looks for "<think>" in the template's text and
# then lets clients turn thinking on, which this model was not trained for.
_QWEN3_WITHOUT_THINKING = """\
{%- set no_thought = '<' + 'think>\\n\\n</' + 'think>\\n\\n' %}
{%- set thought_end = '</' + 'think>' %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and thought_end in content %}
        {%- set content = content.split(thought_end)[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and loop.last %}
        {{- no_thought + content.lstrip('\\n') }}
    {%- else %}
        {{- content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' + no_thought }}
{%- endif %}
"""
