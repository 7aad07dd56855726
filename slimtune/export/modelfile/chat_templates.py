"""What a chat template does, found by rendering it: the family's turns, and the Go TEMPLATE that says the same.

The Jinja alone decides. A few short conversations are rendered with it. They show the text that opens an answer, the
system prompt that it puts in by itself, and what it writes before every system prompt. They also show whether a system
prompt has a turn of its own, joins the first question, or is refused. A TEMPLATE is found if it renders all alike.

Not compared: tools, pictures, thoughts in earlier answers, a system message after the first message. Nor are two messages
of one role in a row, which Ollama joins, and white space at a message's ends where the Jinja trims it: Ollama's templates
have no function that trims.

The beginning-of-text token is never in a TEMPLATE: llama.cpp puts it in front where the GGUF's add_bos_token says so.
The Jinja must write it not at all, or once at the very start.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from slimtune.core.errors import SlimtuneError, fail
from slimtune.data.chat_template import render_template
from slimtune.evaluate.targets.prefixes import common_length
from slimtune.export.modelfile import go_template
from slimtune.models import families
from slimtune.models.families import Turns

Messages = Sequence[Mapping[str, str]]

_TEXTS = {"system": "S. s", "user": "問い 1", "assistant": "a\n b"}
_S, _U, _A = _TEXTS.values()
_PADDED = {role: f" \n{text} " for role, text in _TEXTS.items()}
_NEXT_QUESTION = "w\n\nv"
_NO_SYSTEM = '{{ if .System }}{{ slice "this model takes no system prompt" 99 }}{{ end }}'


@dataclass(frozen=True, slots=True)
class OllamaTemplate:
    """A TEMPLATE that renders as a Jinja does.

    default_system: the Jinja's own system prompt, which belongs into SYSTEM. takes_system: False where the Jinja refuses
    a system message. trims: the roles whose text it trims. writes_bos: whether it begins with the beginning-of-text
    token. notes: what differs all the same, as sentences.
    """

    turns: Turns
    text: str
    default_system: str | None = None
    takes_system: bool = True
    trims: tuple[str, ...] = ()
    writes_bos: bool = False
    notes: tuple[str, ...] = ()


def render(jinja: str, messages: Messages, *, thinking: bool, add_generation_prompt: bool = True, bos: str = "") -> str:
    """`jinja` rendered with `bos` as its beginning-of-text token. Raises SlimtuneError where it refuses the messages."""
    # The line end goes with the block, as trim_blocks has it, so the template's own first line begins a line.
    named = f"{{% set bos_token = '{bos}' %}}\n{jinja}"
    return render_template(named, messages, add_generation_prompt=add_generation_prompt, thinking=thinking)


def bake_chat_template(template: str, *, family: str, thinking: bool) -> str:
    """The Jinja for the merged folder: `template`, or where thinking is to be off one that always closes the thought.

    Nobody passes enable_thinking=False to a served model, so the template that ships has to imply it.
    Raises SlimtuneError where `template` is not the family's own: the replacement would render something else.
    """
    row = families.get(family)
    style = row.thinking
    if style is None or thinking:
        return template
    if not render(template, _conversation(), thinking=False).endswith(style.empty):
        return template  # has no thinking to turn off, as the Instruct models of a family that thinks
    if style.without is None:
        return style.switch_off + template
    for probe in _probes(padded=_TEXTS):
        for messages, prompt in ((probe, True), ((*probe, {"role": "assistant", "content": "c"}), False)):
            wanted = render(template, messages, thinking=False, add_generation_prompt=prompt)
            if render(style.without, messages, thinking=False, add_generation_prompt=prompt) != wanted:
                raise fail(
                    f"this chat template is not that of {row.title}, and its thinking cannot be turned off for export",
                    fix="export with the base's own chat template, or with thinking on",
                )
    return style.without


def recognise(jinja: str, *, thinking: bool) -> OllamaTemplate:
    """The TEMPLATE that renders as `jinja` does with `thinking`.

    Raises SlimtuneError where no family's TEMPLATE does, with the first difference from the one that comes closest; where
    the Jinja is broken; and where the beginning-of-text token stands anywhere but once at the start.
    """
    writes_bos = _writes_bos(jinja, thinking)
    farthest = (-1, "")
    for turns in families.turns():
        found, wanted, got = _fitted(turns, jinja, thinking)
        if found is not None:
            trims = tuple(role for role in _TEXTS if _is_trimmed(jinja, role, thinking))
            found = replace(found, trims=trims, writes_bos=writes_bos)
            difference = _difference(found, jinja, thinking)
            if difference is None:
                return replace(found, notes=_notes(jinja, found))
            wanted, got = difference
        same = common_length(wanted, got, len(wanted))
        if same > farthest[0]:
            shown = slice(max(same - 20, 0), same + 40)
            farthest = same, f"it renders {wanted[shown]!r} where {turns.name} has {got[shown]!r}"
    known = ", ".join(turns.name for turns in families.turns())
    raise fail(
        f"no TEMPLATE for Ollama is known that renders as the chat template does: {farthest[1]}",
        fix=f"known are {known}; a GGUF without a Modelfile uses the chat template",
    )


def _fitted(turns: Turns, jinja: str, thinking: bool) -> tuple[OllamaTemplate | None, str, str]:
    """The family's TEMPLATE with what `jinja` adds to it; else None with a rendering, and how the family would begin it."""
    alone = render(jinja, _conversation(), thinking=thinking)
    question = turns.turn("user", _U)
    system_before, found, header = alone.rpartition(question)
    if not found:
        return None, alone, question
    try:
        asked = render(jinja, _conversation(_S), thinking=thinking)
    except SlimtuneError:
        plain = _NO_SYSTEM + _body(turns, "") + header
        return OllamaTemplate(turns, plain, takes_system=False), alone, question + header
    if not turns.system_turn:
        before, _, rest = asked.partition(_S)
        joint, _, end = rest.rpartition(_U)
        if before != turns.opening("user") or end != turns.after + header or system_before:
            return None, asked, turns.opening("user") + _S
        return OllamaTemplate(turns, _body(turns, joint) + _literal(header)), asked, asked
    opening = turns.opening("system")
    before, _, rest = asked.partition(_S)
    if not before.startswith(opening) or rest != turns.after + question + header:
        return None, asked, turns.turn("system", _S) + question + header
    preamble = before.removeprefix(opening)
    default = None
    if system_before:
        if not system_before.startswith(before) or not system_before.endswith(turns.after):
            return None, system_before, before
        default = system_before[len(before) : -len(turns.after)]
    text = _with_system(turns, preamble, default is not None) + _literal(header)
    return OllamaTemplate(turns, text, default), asked, asked


def _with_system(turns: Turns, preamble: str, always: bool) -> str:
    """The messages of a family with system turns. preamble: in front of every system prompt. always: even of none."""
    turn = turns.before + "{{ .Role }}" + turns.between + "{{ .Content }}" + turns.after
    if not preamble:
        return "{{ range .Messages }}" + turn + "{{ end }}"
    system = turns.turn("system", _literal(preamble) + "{{ .System }}")
    first = system if always else "{{ if .System }}" + system + "{{ end }}"
    return first + '{{ range .Messages }}{{ if ne .Role "system" }}' + turn + "{{ end }}{{ end }}"


def _body(turns: Turns, joint: str) -> str:
    """The messages of a family without system turns: the system prompt and `joint` begin the first question's."""
    system = "{{ if $system }}{{ $system }}" + _literal(joint) + '{{ $system = "" }}{{ end }}'
    user, assistant = turns.turn("user", system + "{{ .Content }}"), turns.turn("assistant", "{{ .Content }}")
    before = '{{ $system := .System }}{{ range .Messages }}{{ if eq .Role "user" }}'
    return before + user + '{{ else if eq .Role "assistant" }}' + assistant + "{{ end }}{{ end }}"


def _literal(text: str) -> str:
    """`text` of the Jinja as it may stand in a TEMPLATE. Raises SlimtuneError where it would become an action or end it."""
    if "{" in text or '"""' in text:
        what = f"the chat template writes {text!r}, which cannot stand in a Modelfile's TEMPLATE"
        raise fail(what, where="model.base", fix="use a base whose template does not write it")
    return text


def _difference(found: OllamaTemplate, jinja: str, thinking: bool) -> tuple[str, str] | None:
    """What the Jinja renders, and the TEMPLATE, of the first conversation where they differ; None for none."""
    for messages in _probes(padded=_TEXTS.keys() - set(found.trims)):
        if messages[0]["role"] == "system" and not found.takes_system:
            continue
        wanted = render(jinja, messages, thinking=thinking)
        got = go_template.render(found.text, messages, found.default_system or "")
        if wanted != got:
            return wanted, got
    return None


def _conversation(system: str | None = None, user: str = _U, answer: str | None = None) -> list[dict[str, str]]:
    turns = [("system", system), ("user", user), ("assistant", answer), ("user", answer and _NEXT_QUESTION)]
    return [{"role": role, "content": text} for role, text in turns if text is not None]


def _probes(padded: Collection[str]) -> list[list[dict[str, str]]]:
    """Conversations with and without system prompt and history. padded: roles whose text has white space at its ends."""
    system, user, answer = (_PADDED[role] if role in padded else text for role, text in _TEXTS.items())
    return [
        _conversation(),
        _conversation(None, user),
        _conversation(system, user),
        _conversation(None, user, answer),
        _conversation(system, user, answer),
    ]


def _is_trimmed(jinja: str, role: str, thinking: bool) -> bool:
    plain = _conversation(_S if role == "system" else None, _U, _A)
    padded = [turn | {"content": _PADDED[role]} if turn["content"] == _TEXTS[role] else turn for turn in plain]
    try:
        return render(jinja, padded, thinking=thinking) == render(jinja, plain, thinking=thinking)
    except SlimtuneError:
        return False  # refuses every system prompt


def _writes_bos(jinja: str, thinking: bool) -> bool:
    """Raises SlimtuneError where the beginning-of-text token is not exactly at the start, once."""
    mark = "[beginning of text]"
    without = render(jinja, _conversation(None, _U, _A), thinking=thinking)
    with_it = render(jinja, _conversation(None, _U, _A), thinking=thinking, bos=mark)
    if with_it not in (without, mark + without):
        what = "the chat template writes the beginning-of-text token elsewhere than once at the start"
        raise fail(f"{what}, where llama.cpp adds it", fix="export with the base's own chat template")
    return with_it != without


def _notes(jinja: str, found: OllamaTemplate) -> tuple[str, ...]:
    notes = []
    if found.trims:
        roles = " and ".join(found.trims)
        notes.append(
            f"TEMPLATE: the chat template trims white space at the ends of {roles} messages, which Ollama's templates cannot; "
            "they agree where messages have none there"
        )
    if "strftime_now" in jinja:
        notes.append("TEMPLATE: the chat template writes today's date; the TEMPLATE keeps the date of the export")
    if not found.takes_system:
        notes.append("TEMPLATE: the chat template takes no system prompt, and a conversation with one is refused")
    return tuple(notes)
