"""Chat templates from elsewhere, rendered as Transformers does, but never without end and never without bounds.

Jinja's sandbox keeps a template from the machine, not from looping for ever or from filling the memory. Here each turn of
a loop and each call is counted, and a clock runs. Whatever makes a text or a list larger than its parts is weighed
first. The limits are far above what a conversation needs.
"""

import datetime
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, wraps
from types import BuiltinMethodType, FunctionType
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slimtune.core.errors import fail
from slimtune.core.inputs import reason

SECONDS = 5.0
"""Of the processor, for one rendering."""
_STEPS = 1_000_000
_OWN = "use the base's own chat template, unchanged"
_TEMPLATE_CHARACTERS = 2**20
CHARACTERS, _ALL_CHARACTERS = 2**24, 2**28
"""Of one text, and of all texts that a rendering puts together."""
_SLOWLY_READ = 2**20
_WIDTH = 10_000
_BITS = 2**14
_LOOKED_AT_EVERY = 16
_WIDE = re.compile(r"[0-9]{5}|%[-+ #0]*\*|%[^%a-zA-Z]*\.\*|\{[^{}]*\{")
"""In a text that formats others: a width of five digits, or one that is an argument."""
_WIDENING = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs", "to_bytes"))
_FORMATTING = frozenset(("format", "format_map"))
_WEIGHED = _WIDENING | _FORMATTING | {"replace", "join", "translate"}
_SHORT = 256
_SLOW = frozenset(("wordwrap", "urlize", "striptags", "pprint", "title", "xmlattr"))
_COUNTS = frozenset(("default", "d", "int", "float", "abs", "round", "sum"))
"""Filters whose numbers are values, not widths."""
_PICKING = frozenset(
    (
        "length",
        "count",
        "first",
        "last",
        "list",
        "items",
        "map",
        "select",
        "reject",
        "selectattr",
        "rejectattr",
        "reverse",
    )
)
"""Filters that make no text of what they are given, and nothing larger."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_MAKES_CHARACTERS = re.compile(r"\\[uUN]|%|format")

FAULTS = (
    TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError,
    NameError, SyntaxError, AssertionError, RuntimeError,
)  # fmt: skip
"""What a template that is wrong can raise while it is compiled or rendered."""


class TooMuch(SecurityError):
    """A template that would go on for too long, or needs too much memory."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Transformers' environment with limits. One rendering at a time."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        extensions: list[Any] = ["jinja2.ext.loopcontrols", _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self.filters["tojson"] = _tojson
        self.filters = {name: self._bounded(name, function) for name, function in self.filters.items()}
        self.filters["slimtune.loop"] = self._loop
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        del self.globals["lipsum"]  # words at random, as many as it is asked for
        self.concat = self._concat  # type: ignore[method-assign,assignment]
        self.begin()

    def begin(self) -> None:
        """Start the count and the clock of a rendering."""
        self.steps = self.characters = 0
        self.deadline: float | None = None  # asked for later: short renderings need no clock

    # ---- steps -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.steps += 1
        if not self.steps % _LOOKED_AT_EVERY:
            now = time.thread_time()
            self.deadline = self.deadline or now + SECONDS
            if self.steps > _STEPS or now > self.deadline:
                raise TooMuch(f"it goes on for more than {SECONDS:.0f} s or {_STEPS:,} steps")

    def _loop(self, turns: Iterable[Any]) -> Iterator[Any]:
        for turn in turns:
            self.step()
            yield turn

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.step()
        kind = type(__obj)
        if kind is LoopContext and args:  # a recursive loop
            args = (__self._loop(args[0]), *args[1:])
        elif kind in (BuiltinMethodType, FunctionType) and __obj.__name__ in _WEIGHED:
            __self._weigh_method(__obj, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    # ---- sizes -------------------------------------------------------------------------------------------------------

    def charge(self, size: int) -> None:
        """Raise TooMuch where a text of so many characters is too much. Charged before it is made."""
        self.characters += size
        if size > CHARACTERS or self.characters > _ALL_CHARACTERS:
            raise TooMuch(f"it makes more than {CHARACTERS:,} characters")

    def text(self, value: Any) -> str:
        """What is written out of a value."""
        self.charge(_size(value))
        return str(value)

    def _concat(self, parts: Iterable[str]) -> str:
        """What a block, a macro or the whole template comes to."""
        texts = list(parts)
        self.charge(sum(map(len, texts)))
        return "".join(texts)

    def _joined(self, parts: Iterable[Any]) -> str:
        """What `~` makes."""
        return self._concat(part if type(part) is str else self.text(part) for part in parts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if type(left) is str and type(right) is str:
                if (size := len(left) + len(right)) > _SHORT:
                    self.charge(size)
                return left + right
            if not isinstance(left, int | float):
                self.charge(_size(left) + _size(right))
        elif operator == "%":
            if isinstance(left, str | bytes):
                self._weigh_format(str(left), str(left).count("%"), right)
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() + right.bit_length() if operator == "*" else left.bit_length() * abs(right)
            if bits > _BITS:
                raise TooMuch(f"a number has more than {_BITS:,} binary digits")
        elif operator == "*":
            times, what = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(times, int) and not isinstance(what, int | float):
                self.charge(max(times, 0) * max(_size(what), 1))
        return super().call_binop(context, operator, left, right)

    def _weigh_format(self, form: str, places: int, *values: Any) -> None:
        if _WIDE.search(form):
            raise TooMuch("it pads a text to a width of five digits, or to one that it computes")
        self.charge(len(form) + _WIDTH.bit_length() * places + places * sum(_size(value) for value in values))

    def _weigh_method(self, method: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        name, own = method.__name__, getattr(method, "__self__", None)
        given = (*args, *kwargs.values())
        if name in _FORMATTING:
            form = own if isinstance(own, str) else getattr(getattr(method, "__wrapped__", None), "__self__", "")
            self._weigh_format(form, form.count("{"), *given)
        elif name in _WIDENING:
            self._require_narrow(given)
            self.charge(
                _size(own) * (max([8, *(one for one in given if isinstance(one, int))]) if name == "expandtabs" else 1)
            )
        elif name == "replace" and isinstance(own, str | bytes):
            self._weigh_replace(own, *given[:2])
        elif name == "join" and isinstance(own, str | bytes) and args and isinstance(args[0], list | tuple | dict):
            self.charge(_size(args[0]) + len(own) * len(args[0]))
        elif name == "translate" and args:
            table = args[0]
            widest = max(map(_size, table.values()), default=1) if isinstance(table, dict) else 1
            self.charge(_size(own) * max(widest, 1))

    def _weigh_replace(self, text: Any, old: Any = "", new: Any = "", *_: Any) -> None:
        if type(old) in (str, bytes) and type(old) is type(text):
            self.charge(len(text) + int(text.count(old)) * _size(new))

    def _require_narrow(self, values: Iterable[Any]) -> None:
        if any(isinstance(value, int) and abs(value) > _WIDTH for value in values):
            raise TooMuch(f"a width or a number of parts is more than {_WIDTH:,}")

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that weighs what it is given before it makes something of it."""
        if name in _PICKING:
            return function
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0
        plain = skipped + 1

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            if len(args) > skipped and (len(args) > plain or kwargs or name in _SLOW or type(args[skipped]) is not str):
                first = args[skipped]
                if name == "join" and not isinstance(first, list | tuple | str | dict):
                    first = list(first)
                    args = (*args[:skipped], first, *args[plain:])
                self._weigh_filter(name, first, (*args[plain:], *kwargs.values()))
            return function(*args, **kwargs)

        return bounded

    def _weigh_filter(self, name: str, first: Any, more: tuple[Any, ...]) -> None:
        size = _size(first)
        if more and name not in _COUNTS:
            self._require_narrow(more)
        if name in _SLOW and size > _SLOWLY_READ:
            raise TooMuch(f"the filter {name} is given more than {_SLOWLY_READ:,} characters")
        if name == "format":
            self._weigh_format(str(first), str(first).count("%"), *more)
        elif name == "replace":
            self._weigh_replace(str(first), *map(str, more[:2]))
        elif name == "join":
            self.charge(size + _size(more) * len(first))
        elif name in ("indent", "tojson") and more:
            self.charge(size * max([4, *(one if isinstance(one, int) else _size(one) for one in more)]))
        elif name == "sum" and any(isinstance(one, list | tuple) for one in more):
            self.charge(size * size)
        else:
            self.charge(size)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        for loop in source.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "slimtune.loop", [], [], None, None, lineno=loop.lineno)
        return super()._generate(source, name, filename, defer_init)


class _Compiler(CodeGenerator):
    """Jinja's own, with the places where something grows handed to the sandbox."""

    environment: Sandbox

    def visit_Add(self, node: nodes.BinExpr, frame: Frame) -> None:
        """A sum with a short constant grows so slowly that the clock is enough."""
        if any(isinstance(side, nodes.Const) and _size(side.value) <= _SHORT for side in (node.left, node.right)):
            self.write("(")
            self.visit(node.left, frame)
            self.write(" + ")
            self.visit(node.right, frame)
            self.write(")")
        else:
            super().visit_Add(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment._joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            super()._output_child_pre(node, frame, finalize)
            self.write("environment.text(")
        else:
            self.write("(written if type(written := (")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape:
            self.write(")")
            super()._output_child_post(node, frame, finalize)
        else:
            self.write(")) is str else environment.text(written))")


Sandbox.code_generator_class = _Compiler


class _Generation(Extension):
    """`{% generation %}` around what the model says: a mark for training, which changes nothing in the text."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _size(value: Any, depth: int = 0) -> int:
    """About as many characters as the text of a value has; counted no further than needed."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping | list | tuple | set):
        total = 0  # of each part 64, so that a list of lists of the same list is soon seen to be large
        parts = (part for pair in value.items() for part in pair) if isinstance(value, Mapping) else iter(value)
        for part in parts:
            total += 64 + (_size(part, depth + 1) if depth < 100 else 0)
            if total > CHARACTERS:
                break
        return total
    return 24


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    if len(form) > 1000 or re.search("[0-9]{3}", form):
        raise TooMuch("it writes a date in more than 1,000 characters")
    return datetime.datetime.now().strftime(form)


@lru_cache(maxsize=8)
def _compiled(template: str) -> tuple[Sandbox, Callable[..., str], bool]:
    if len(template) > _TEMPLATE_CHARACTERS:
        raise TooMuch(f"it has {len(template):,} characters, more than {_TEMPLATE_CHARACTERS:,}")
    sandbox = Sandbox()
    return sandbox, sandbox.from_string(template).render, bool(_MAKES_CHARACTERS.search(template))


def render(template: str, **values: Any) -> str:
    """The text of a chat template. Raises SlimtuneError where it is broken, refuses the values, or wants too much."""
    try:
        return unwrapped(template, **values)
    except FAULTS as error:
        raise fail(f"the chat template does not render: {reason(error)}", fix=_OWN) from error


def require_bounded(template: str, where: str) -> None:
    """Raise SlimtuneError for a template that would not end, or fill the memory, in a program that sets no limits.

    Whatever else is wrong with it, that program may see otherwise. where: its file, for the message.
    """
    try:
        unwrapped(template, messages=[{"role": "user", "content": "a"}], add_generation_prompt=True)
    except TooMuch as error:
        what = f"the chat template cannot be used: {error}"
        raise fail(what, where=where, fix=_OWN) from error
    except FAULTS:
        return


def unwrapped(template: str, **values: Any) -> str:
    """As `render`, but raises TooMuch or another of FAULTS."""
    sandbox, made, makes_characters = _compiled(template)
    sandbox.begin()
    text = made(**values)
    if makes_characters and _HALF_CHARACTER.search(text):
        raise ValueError("it writes half a character (a lone surrogate)")
    return text
