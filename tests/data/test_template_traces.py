"""What is repeated of a template's rendering is what the template renders, whatever it asks of the texts."""

import itertools

import pytest
from support.chat_templates import chat_template

from slimtune.core.errors import SlimtuneError
from slimtune.data import template_sandbox, template_traces

TEXTS = ("", "a", "ab", " b\n", "<t>x</t>y", "</t>", "A 1", "10", "content", "pop")
# Each is followed by nothing, by a constant, and by the second text.
ASKING = [
    "{{ c }}", "{{ c + d }}", "{{ 'p' ~ c ~ d }}", "{% if c %}x{% endif %}", "{{ 'x' if not c else c }}", "{{ c or d }}",
    "{{ c and d }}", "{{ c == 'a' }}", "{{ c != d }}", "{{ c == d }}", "{{ 'a' == c }}", "{{ c < 'b' }}", "{{ c is string }}",
    "{{ c is sequence }}", "{{ c is iterable }}", "{{ c is number }}", "{{ c is mapping }}", "{{ c is none }}",
    "{{ c is eq('a') }}", "{{ c is in(['a', 'ab']) }}", "{{ c is sameas(d) }}", "{{ c is upper }}", "{{ 'a' in c }}",
    "{{ c in 'abc' }}", "{{ c not in 'abc' }}", "{{ c in d }}", "{{ c in ['a', d] }}", "{{ 'a' in [c, d] }}",
    "{{ 'a' < 'b' and c in d }}", "{{ c.startswith('<t>') }}", "{{ c.startswith(('a', '<')) }}", "{{ c.endswith(d) }}",
    "{{ c.strip() }}", "{{ c.strip('ab') }}", "{{ c | trim }}", "{{ (c + 'x ') | trim }}", "{{ ('x' + c).startswith('xa') }}",
    "{{ c.split('</t>')[0] }}", "{{ c.split('</t>') | last }}", "{{ (c.split('</t>') | first).lstrip('<') }}", "{{ c.split(d) | length }}",
    "{{ c.split('t') | join('-') }}", "{{ c.partition('t')[2] }}", "{{ c.split() }}", "{{ c[:2] }}", "{{ c[1:] }}", "{{ c[::-1] }}", "{{ c[0] }}",
    "{{ c[5] }}", "{{ c['text'] is defined }}", "{{ c.text is defined }}", "{{ c._get is defined }}", "{{ c.trace is defined }}", "{{ c | length }}",
    "{% if c | length > 2 %}long{% endif %}", "{{ c[(c | length) - 2:] }}", "{{ messages[c | length].role }}", "{{ (c | length) * 2 }}",
    "{{ (c | length) == 1 }}", "{{ (c | length) // 2 }}", "{{ range(c | length) | list }}", "{{ 'abc'[c | length] }}", "{{ 'abc'[: c | length] }}",
    "{% if (c | length) %}n{% endif %}", "{{ c | upper }}", "{{ c.upper() }}", "{{ c | replace('a', 'z') }}", "{{ c.replace('a', d) }}", "{{ 'aba'.replace('a', c) }}",
    "{{ c | tojson }}", "{{ messages | tojson }}", "{{ [c] | first }}", "{{ [c, d] | join(',') }}", "{{ ','.join([c, d]) }}", "{{ c * 2 }}", "{{ '%s' % c }}",
    "{{ '%s-%s' % (c, d) }}", "{{ c % 1 }}", "{{ '{}'.format(c) }}", "{{ c | default('x') }}", "{{ c | default('x', true) }}", "{{ c | int }}",
    "{{ {'a': 1, 'ab': 2}[c] }}", "{{ messages[c] is defined }}", "{{ messages | map(attribute=c) | list }}", "{{ messages[c.find('b')].role }}",
    "{{ messages[: c.find('b')] | length }}", "{{ {'a': 1}.get(c) }}", "{{ {c: 1} }}", "{% for x in c %}{{ x }}.{% endfor %}", "{{ c | list }}", "{{ [c, 'b'] | sort }}",
    "{{ [c, d] | unique | list }}", "{{ [c, d].index('a') }}", "{{ [c, d].count('a') }}", "{{ [c] == ['a'] }}", "{{ [c] }}", "{{ messages[0] }}",
    "{{ messages | map(attribute='content') | list }}", "{{ messages | map(attribute='content') | join('+') }}", "{{ messages | selectattr('content', 'equalto', 'a') | list | length }}",
    "{{ messages | selectattr('content') | map(attribute='role') | list }}", "{{ messages | rejectattr('content', 'in', ['a']) | list | length }}",
    "{{ messages | map(attribute='content') | map('upper') | list }}", "{{ messages | map(attribute='content') | map('length') | sum }}",
    "{% set ns = namespace(x=c) %}{{ ns.x }}{% set ns.x = ns.x + d %}{{ ns.x }}", "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(c) }}{% if m(c) == '<a>' %}!{% endif %}",
    "{% macro m(x) %}{{ caller(x) }}{% endmacro %}{% call(y) m(c) %}{{ y }}{% endcall %}", "{% set x %}{{ c }}{% endset %}{{ x }}{% if x %}!{% endif %}",
    "{% if c == 'a' %}{{ raise_exception('no ' + c) }}{% endif %}", "{{ raise_exception(c) }}", "{{ c.nothing() }}", "{{ c | indent }}", "{{ c.find('b') }}",
    "{{ c.find('b') + 1 }}", "{{ 1 - (c | length) }}", "{{ c.count('a') is odd }}", "{{ c.isdigit() }}", "{{ c.encode() }}", "{{ c.__class__ }}", "{% for m in messages if m.content %}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.content if loop.previtem }}{{ loop.changed(m.content) }}{% endfor %}", "{% generation %}{{ c }}{% endgeneration %}", "{{ dict(a=c).a }}",
    "{{ c | string }}", "{{ c | wordcount }}", "{{ c | escape }}", "{% filter upper %}{{ c }}{% endfilter %}", "{{ c.removeprefix('a').removesuffix(d) }}", "{{ (c, d)[0] }}", "{{ c is divisibleby(2) }}",
]  # fmt: skip


def both(renderer, template, texts):
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts, strict=True)]
    found = []
    for render in (
        lambda: renderer.render("", messages, {"tools": None}),
        lambda: template_sandbox.render(template, messages=messages, tools=None),
    ):
        try:
            found.append(render())
        except SlimtuneError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("asking", ASKING)
def test_whatever_a_template_asks_of_its_texts(asking):
    template = "{% set c = messages[0].content %}{% set d = messages[1]['content'] %}" + asking + "!{{ d }}"
    renderer = template_traces.Renderer(template)
    for texts in itertools.product(TEXTS, TEXTS[1::3]):
        repeated, rendered = both(renderer, template, texts)
        assert repeated == rendered and type(repeated) is str


def test_qwens_templates_are_repeated(monkeypatch):
    """Without this they would still be right, and slow."""
    for family in ("qwen2.5", "qwen3", "qwen3-instruct"):
        template = chat_template(family)
        renderer = template_traces.Renderer(template)
        assert len(set(both(renderer, template, ("q", "a")))) == 1
        with monkeypatch.context() as patch:
            patch.setattr(template_sandbox, "render", None)
            messages = [{"role": "user", "content": "問い\n二"}, {"role": "assistant", "content": " b"}]
            assert "問い\n二<|im_end|>" in renderer.render("", messages, {"tools": None})


def test_what_changes_by_itself_is_not_repeated():
    for template in ("{{ strftime_now('%f') }}{{ messages[0].content }}", "{{ [1, 2] | random }}"):
        renderer = template_traces.Renderer(template)
        renderer.render("", [{"role": "user", "content": "a"}], {})
        assert not renderer._shapes


def test_a_text_whose_origin_was_lost_is_noticed(monkeypatch):
    """What is recorded is tried on other texts before it is repeated."""
    monkeypatch.setattr(
        template_traces._Text, "__add__", lambda one, other: str.__add__(template_traces._plain(one), other)
    )
    template = "{{ messages[0].content + '!' }}"
    renderer = template_traces.Renderer(template)
    for text in ("first", "second", "third"):
        assert renderer.render("", [{"role": "user", "content": text}], {"tools": None}) == f"{text}!"
