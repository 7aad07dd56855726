"""The chat templates of a model folder, and the variables that its tokenizer gives them, as Transformers reads both."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError, fail

_TEMPLATE_BYTES = 2**20  # the longest that is in use has 20 kB
_MOST_TEMPLATES = 100
_CONFIG = "tokenizer_config.json"
_DEFAULT, _WITH_TOOLS = "default", "tool_use"
# SPECIAL_TOKENS_ATTRIBUTES in tokenization_utils_base.py of Transformers 5.17; other tokens are no variables.
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class Template:
    """source: the Jinja. path: the file that holds it."""

    source: str
    path: Path


def read(directory: Path) -> Mapping[str, Template]:
    """The folder's templates by name; a single one is "default". Raises SlimtuneError where there is none.

    chat_template.jinja and additional_chat_templates/NAME.jinja go before what tokenizer_config.json holds, which is one
    template, or a list of {"name", "template"}.
    """
    found: dict[str, Template] = {}
    own = directory / "chat_template.jinja"
    if inputs.exists(own):
        found[_DEFAULT] = _of_file(own)
    more = directory / "additional_chat_templates"
    if inputs.is_folder(more):
        with inputs.reading(more):
            paths = sorted(path for path in more.iterdir() if path.suffix == ".jinja")
        found |= {path.stem: _of_file(path) for path in paths[:_MOST_TEMPLATES]}
    if not found and inputs.exists(directory / _CONFIG):
        found = _of_config(directory / _CONFIG)
    if not found:
        raise _no_template(directory)
    return found


def choose(templates: Mapping[str, Template], directory: Path, *, with_tools: bool) -> Template:
    """The template for a conversation with or without tools. Raises SlimtuneError where none is the default."""
    if with_tools and _WITH_TOOLS in templates:
        return templates[_WITH_TOOLS]
    if _DEFAULT not in templates:
        what = f"{directory} has several chat templates ({', '.join(sorted(templates))[:200]}), and none is the default"
        raise fail(what, fix="save the one to use as chat_template.jinja")
    return templates[_DEFAULT]


def variables(directory: Path) -> dict[str, str]:
    """`bos_token`, `eos_token` and the like, by name, as far as the folder names them."""
    path, legacy = directory / _CONFIG, directory / "special_tokens_map.json"
    named = inputs.json_object(path) if inputs.exists(path) else {}
    if "added_tokens_decoder" not in named and inputs.exists(legacy):
        named |= inputs.json_object(legacy)
    texts = {name: _text(named.get(name)) for name in _TOKENS}
    return {name: text for name, text in texts.items() if text is not None}


def _text(token: Any) -> str | None:
    """A token, which is a text or an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _of_file(path: Path) -> Template:
    return Template(inputs.read_text(path, most=_TEMPLATE_BYTES), path)


def _of_config(path: Path) -> dict[str, Template]:
    value = inputs.json_object(path).get("chat_template")
    if isinstance(value, str):
        return {_DEFAULT: Template(value, path)}
    found = {}
    for one in value if isinstance(value, list) else []:
        name, source = (one.get("name"), one.get("template")) if isinstance(one, dict) else (None, None)
        if not (isinstance(name, str) and isinstance(source, str)):
            fix = 'write each as {"name": "default", "template": "…"}, or use a model folder as it was published'
            raise fail("a chat template of the list has no name or no text", where=str(path), fix=fix)
        found[name] = Template(source, path)
    return found


def _no_template(directory: Path) -> SlimtuneError:
    return fail(f"{directory} has no chat template", fix="use an instruction-tuned model, not a bare base")
