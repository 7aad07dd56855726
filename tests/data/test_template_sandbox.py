"""Templates from elsewhere end, whatever they do, and honest ones give Transformers' text."""

import resource
import time

import pytest

from slimtune.core.errors import SlimtuneError
from slimtune.data import template_sandbox
from slimtune.data.chat_template import render_template

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a ß 語"}]


def rendered(template):
    return render_template(template, TURNS, add_generation_prompt=True, thinking=False)


def repeated(first, again, times=40):
    return f"{{% set x = {first} %}}" + f"{{% set x = {again} %}}" * times


SLOW = pytest.mark.slow
ENDLESS = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for i in range(3) recursive %}{{ loop(range(99999)) if loop.depth < 5 }}{% endfor %}",
    pytest.param("{% set b = 'x' * 9999999 %}{% for i in range(99999) %}{{ b.count('xy') }}{% endfor %}", marks=SLOW),
    pytest.param("{{ range(99999)|map('string')|join('x' * 9999) }}", marks=SLOW),
    "{% block a %}{{ self.a() }}{% endblock %}",
]
WIDE = [
    "{{ 'x' * 10**9 }}", "{{ [0] * 10**9 }}", "{{ '%1000000000s' % 1 }}", "{{ '%*s' % (1000000000, 1) }}",
    "{{ '{:1000000000}'.format(1) }}", "{{ '{:{}}'.format(1, 10**9) }}", "{{ '%s'|format('x' * 9**9) }}",
    "{{ 'x'.center(10**9) }}", "{{ 'x'|center(10**9) }}", "{{ 'x'.ljust(10**9) }}", "{{ 'x'.zfill(10**9) }}",
    "{{ '\t'.expandtabs(10**9) }}", "{{ 'a\n'|indent(10**9) }}", "{{ [1]|batch(10**9, 'x')|list }}",
    "{{ [1]|slice(10**9)|list }}", "{{ messages|tojson(indent=10**9) }}", "{{ (1).to_bytes(10**9, 'big') }}",
    "{{ 10 ** (10 ** 8) }}", "{{ lipsum(n=10**9) }}", "{{ strftime_now('%1000000000d') }}",
    "{{ ('x ' * 5000000)|wordwrap }}",
    "{{ ([messages] * 9999)|sum(start=[])|length }}", "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
    "x" * 2_000_000,
]  # fmt: skip
DOUBLED = [
    ("'ab'", "x ~ x"), ("'ab'", "x + x"), ("'ab'", "[x, x]|join"), ("'aa'", "x|replace('a', x)"),
    ("'aa'", "x.replace('a', x)"), ("'aa'", "'%s%s' % (x, x)"), ("'aa'", "'{0}{0}'.format(x)"),
    ("'aa'", "''.join([x, x])"), ("[1]", "x + x"), ("'a'", "x.translate({97: x + x})"), ("2", "x * x"),
]  # fmt: skip


@pytest.mark.parametrize("template", ENDLESS + WIDE + [repeated(*pair) + "{{ x|length }}" for pair in DOUBLED])
def test_a_template_without_end_or_bounds_is_refused(template, monkeypatch):
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.2)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(SlimtuneError, match="the chat template does not render: "):
        rendered(template)
    assert time.process_time() - started < 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024


@pytest.mark.parametrize(
    "end",
    [
        "{{ x ~ 'a' }}",
        *(pytest.param(f"{{{{ {end} }}}}", marks=SLOW) for end in ("x", "x|tojson", "'%s' % x", "x|string")),
    ],
)
def test_a_list_of_lists_of_lists_is_never_written_out(end):
    with pytest.raises(SlimtuneError, match="more than 16,777,216 characters"):
        rendered(repeated("[1]", "[x, x]", 60) + end)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{", "unexpected 'end of template'"),
        ("{% foo %}", "unknown tag 'foo'"),
        ("{{ 1/0 }}", "division by zero"),
        ("{{ none + 1 }}", "unsupported operand"),
        ("{{ messages[9].content }}", "no element 9"),
        ("{{ ''.__class__.__mro__ }}", "is unsafe"),
        ("{% include 'x' %}", "no loader"),
        ("{{ raise_exception('no') }}", ": no\n"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
        ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested blocks"),
        ("{{ '\\ud800' }}", "half a character"),
        ("{{ '%c' % 55296 }}", "half a character"),
    ],
)
def test_a_broken_template_is_one_sentence(template, told):
    with pytest.raises(SlimtuneError, match=f"the chat template does not render: .*{told}|{told}"):
        rendered(template)


def test_only_what_would_not_end_is_refused_for_a_program_without_limits():
    for template in ("{{ 1/0 }}", "{{", "{{ messages[0].content }}"):
        template_sandbox.require_bounded(template, "a.gguf")
    with pytest.raises(SlimtuneError, match=r"a\.gguf: the chat template cannot be used: it makes more than"):
        template_sandbox.require_bounded("{{ 'x' * 10**9 }}", "a.gguf")


HONEST = [
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.previtem is defined }}{% endfor %}",
    "{% for m in messages[::-1] if m.role == 'user' %}{{ m.content|trim|upper ~ loop.revindex }}{% else %}-{% endfor %}",
    "{% for k, v in messages[0].items() %}{{ k + v + k }}{% if loop.first %}{% continue %}{% endif %}{% endfor %}",
    "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.content + m.role %}{% endfor %}{{ ns.t }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') ~ 1 ~ none ~ f([1, 'b']) }}{% set y %}{{ f(2) }}{% endset %}{{ y }}",
    "{{ messages|tojson(indent=2) }}{{ messages|map(attribute='role')|join(', ') }}{{ '%5d|%s' % (3, 'x') }}",
    "{{ '{:>8}|{}'.format('a', 123456) }}{{ 'a-b'.split('-') }}{{ [1] * 3 }}{{ 2 ** 10 }}{{ 7 % 3 }}{{ 'x'|default(99999) }}",
    "{% for x in [[1, [2]], [3]] recursive %}{{ x if x is number else loop(x) }};{% endfor %}{{ undefined_thing }}",
    "{% generation %}{% set z = 1 %}{{ messages[1].content }}{% endgeneration %}{{ z is defined }}",
    "{{ messages[0].content.center(9, '*') }}{{ 'a b'|replace(' ', '_') }}{{ 'abc'[::-1] }}{{ true }}{{ 1.5 * 10**9 }}",
    "{% filter upper %}{{ messages[0].content }}{% endfilter %}{{ 'x'|center(5) }}{{ ['b', 'a']|sort }}{{ '<b>'|e }}",
]  # fmt: skip


@pytest.mark.parametrize("template", HONEST)
def test_an_honest_template_gives_the_text_of_transformers(template):
    from transformers.utils.chat_template_utils import _compile_jinja_template

    theirs = _compile_jinja_template(template).render(messages=TURNS, add_generation_prompt=True, enable_thinking=False)
    assert rendered(template) == theirs
