"""Whether a Modelfile's TEMPLATE renders what the chat template inside its GGUF does."""

from itertools import cycle

from slimtune.core.errors import SlimtuneError
from slimtune.core.findings import Finding
from slimtune.data.chat_template import render_template
from slimtune.export.check.check_gguf import can_think
from slimtune.export.modelfile import go_template
from slimtune.export.modelfile.modelfile_reader import first_difference

_NEWER = "Ollama from 0.30 prefers the GGUF's template where that has more capabilities"
_SAME = "make TEMPLATE render what the GGUF's template does, which training used"


def _turns(*contents: str, system: str = "") -> tuple[dict[str, str], ...]:
    made = [{"role": role, "content": content} for role, content in zip(cycle(("user", "assistant")), contents)]
    return ({"role": "system", "content": system}, *made) if system else tuple(made)


PROBES = (
    _turns("What is a contract?"),
    _turns("賃貸人は、どのような義務を負うか。"),
    _turns("a"),
    _turns("line one\nline two\n\nline four"),
    _turns("選択肢\na. 甲\nb. 乙\nc. 丙\nd. 丁", system="法令の質問に、一文字で答える。"),
    _turns("Question", system="Answer in one word."),
    _turns("u", system="first line\nsecond line"),
    _turns("one", "two", "three"),
    _turns("問い", "答え", "次の問い", system="短く答える。"),
    _turns("1", "2", "3", "4", "5"),
    _turns("1", "2\n2", "3", "4", "5", "6", "7", system="s"),
    _turns("def f(x):\n    return {x: '%'}", "ok <b>&amp;</b>", 'it\'s "quoted"'),
)


def compare_templates(template: str, jinja: str, system: str) -> list[Finding]:
    """Render PROBES with both. system: the Modelfile's SYSTEM, which Ollama puts before a conversation without one.

    One problem where they differ, with the first difference; a note where they agree or cannot be compared.
    """
    thinks = can_think(jinja)

    def trained_for(thinking: bool) -> list[str]:
        given = ({"role": "system", "content": system},) if system else ()
        asked = [probe if probe[0]["role"] == "system" else (*given, *probe) for probe in PROBES]
        return [render_template(jinja, one, add_generation_prompt=True, thinking=thinking) for one in asked]

    try:
        served = [go_template.render(template, probe, system) for probe in PROBES]
    except go_template.NotUnderstood as reason:
        return [Finding("note", f"TEMPLATE was not compared with the GGUF's chat template, because it uses {reason}")]
    try:
        # Ollama lets a template that can think do so, where the client says nothing.
        trained = trained_for(thinks)
        closed = trained_for(False) if thinks else trained
    except SlimtuneError as error:
        told = " ".join(str(error).split())[:120]
        return [
            Finding("note", f"TEMPLATE was not compared with the GGUF's chat template, which does not render: {told}")
        ]
    if served == trained:
        return [Finding("note", f"TEMPLATE renders {len(PROBES)} conversations as the GGUF's chat template does")]
    if served == closed:
        what = f"TEMPLATE is the GGUF's template with thinking off, but {_NEWER}: the model thinks unless the client turns it off"
        return [Finding("error", what, "put a chat template without thinking into the GGUF; slimtune export does")]
    different = [i for i, (one, two) in enumerate(zip(trained, served, strict=True)) if one != two]
    what = f"TEMPLATE renders {len(different)} of {len(PROBES)} conversations differently from the GGUF's chat template"
    shown = first_difference(trained[different[0]], served[different[0]])
    if not system and all(PROBES[i][0]["role"] != "system" for i in different):
        what += ", those without a system message"
    return [Finding("error", f"{what}: {shown}", _SAME)]
