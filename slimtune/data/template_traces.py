"""Render conversations of one shape fast: what a template does with one is recorded, and repeated for the next.

A template is given texts that note what is asked of them and what is made of them. A conversation with the same roles, of
which all questions have the same answers, has the same rendering but for its texts. Its guards are asked, and its parts
put together. Whatever is not noted for certain (most filters, formats, functions) makes the template render as usual.
"""

import operator
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import update_wrapper
from types import MethodType
from typing import Any, NoReturn, cast

from jinja2 import nodes
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from slimtune.core.errors import SlimtuneError
from slimtune.data import template_sandbox
from slimtune.data.template_sandbox import CHARACTERS, FAULTS, Sandbox

Texts = Sequence[str]
_Get = Callable[[Texts], Any]
"""What a value is for the texts of another conversation."""

_OTHER = "\u27ea"
"""In the middle of a text, it makes another one of which a template says the same."""
_CHANGING = re.compile("strftime_now|random|lipsum|cycler")
_TRIED, _SHAPES = 8, 1000
_LONGEST = 2**17  # characters of a template; the longest in use has 20,000
_METHODS = (
    *("startswith", "endswith", "strip", "lstrip", "rstrip", "split", "rsplit", "partition", "rpartition"),
    *("removeprefix", "removesuffix", "find", "rfind", "count", "lower", "upper", "__contains__", "__eq__", "__ne__"),
)
_ARITHMETIC = ("__add__", "__radd__", "__sub__", "__rsub__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_KEPT = frozenset(
    ("__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__doc__", "__init_subclass__")
)
# Of the kind of a value alone.
_KIND_TESTS = frozenset((
    "defined", "undefined", "none", "string", "mapping", "number", "integer", "float", "boolean", "sequence",
    "iterable", "callable",
))  # fmt: skip
_COMPARING_TESTS = frozenset(("==", "eq", "equalto", "!=", "ne"))
# These hand on the members of a list or a mapping as they are.
_HANDING_ON = frozenset((
    "first", "last", "list", "items", "map", "select", "reject", "selectattr", "rejectattr", "reverse", "default",
    "d", "slimtune.loop",
))  # fmt: skip


class _Unknown(RuntimeError):
    """Something was done that cannot be repeated for other texts."""


def _then(get: _Get, function: Callable[[Any], Any]) -> _Get:
    return lambda texts: function(get(texts))


@dataclass(slots=True)
class _Trace:
    """guards: what was asked, and the answers. parts: constant texts, and what to put between them."""

    guards: list[tuple[_Get, Any]] = field(default_factory=list)
    parts: list[str | _Get] = field(default_factory=list)
    broken: bool = False

    def unknown(self) -> NoReturn:
        self.broken = True  # where a template's environment catches the exception
        raise _Unknown

    def noted(self, value: Any, get: _Get) -> Any:
        """A value that was made of the conversation's texts, so that what is made of it is noted too."""
        if type(value) is str:
            return _Text(value, self, get, [get])
        if type(value) is int:
            return _Number(value, self, get)
        if type(value) is bool:
            self.guards.append((get, value))
            return value
        if type(value) in (list, tuple):
            self.guards.append((_then(get, len), len(value)))
            return [self.noted(one, _then(get, operator.itemgetter(at))) for at, one in enumerate(value)]
        self.unknown()

    def rendering(self, texts: Texts) -> str | None:
        """None where this conversation goes another way."""
        try:
            for get, expected in self.guards:
                if get(texts) != expected:
                    return None
        except FAULTS:  # it is split at another of its texts, which is empty
            return None
        return "".join([part if type(part) is str else cast(_Get, part)(texts) for part in self.parts])


class _Noted:
    """_trace: where it is noted. _get: what it is for other texts. No template reaches what begins with a stroke."""

    _trace: _Trace
    _get: _Get


class _Text(str, _Noted):
    """A text of the conversation, or one made of them. parts: of what it was put together."""

    _parts: list[str | _Get]

    def __new__(cls, value: str, trace: _Trace, get: _Get, parts: list[str | _Get]) -> "_Text":
        made = super().__new__(cls, value)
        made._trace, made._get, made._parts = trace, get, parts
        return made

    def __str__(self) -> str:
        return self

    def __bool__(self) -> bool:
        return bool(self._trace.noted(str.__len__(self) > 0, _then(self._get, bool)))

    def __add__(self, other: str) -> str:
        return _joined([self, other]) if isinstance(other, str) else self._trace.unknown()

    def __radd__(self, other: str) -> str:
        return _joined([other, self]) if isinstance(other, str) else self._trace.unknown()

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, str):  # of a mapping, which a text is not
            raise TypeError
        if not isinstance(place, slice):
            self._trace.unknown()
        get, edges = self._get, (place.start, place.stop, place.step)
        if not any(isinstance(edge, _Noted) for edge in edges):
            return self._trace.noted(str.__getitem__(self, place), _then(get, operator.itemgetter(place)))
        value = str.__getitem__(_plain(self), slice(*map(_plain, edges)))
        return self._trace.noted(value, lambda texts: get(texts)[slice(*(_for(edge, texts) for edge in edges))])


class _Number(_Noted):
    """A number made of the conversation's texts, such as a length. No int: Python would take it for a place unasked."""

    def __init__(self, value: int, trace: _Trace, get: _Get):
        self._value, self._trace, self._get = value, trace, get

    def __bool__(self) -> bool:
        return bool(self._trace.noted(self._value != 0, _then(self._get, bool)))


def _plain(value: Any) -> Any:
    """A value as it is for the conversation that is recorded, without notes."""
    if isinstance(value, _Text):
        return str.__add__(value, "")
    return value._value if isinstance(value, _Number) else value


def _for(value: Any, texts: Texts) -> Any:
    return value._get(texts) if isinstance(value, _Noted) else value


def _method(kind: type, name: str) -> Callable[..., Any]:
    call = getattr(kind, name)

    def done(self: Any, *args: Any) -> Any:
        if not all(one is None or isinstance(one, str | int | _Number) for one in args):
            if name in ("__eq__", "__ne__") and not isinstance(args[0], tuple | list | dict):
                return NotImplemented
            self._trace.unknown()
        value = call(_plain(self), *map(_plain, args))
        if value is NotImplemented:
            return value
        get = self._get
        if not any(isinstance(one, _Noted) for one in args):
            return self._trace.noted(value, lambda texts: call(get(texts), *args))
        return self._trace.noted(value, lambda texts: call(get(texts), *[_for(one, texts) for one in args]))

    return done


def _refused(self: _Noted, *_: Any, **__: Any) -> NoReturn:
    self._trace.unknown()


for _kind, _base, _names in ((_Text, str, _METHODS), (_Number, int, _ARITHMETIC)):
    for _name in (set(dir(_base)) | {"__rmod__", "__rmul__"}) - _KEPT - set(_kind.__dict__):
        if callable(getattr(_base, _name, None)) or _name in ("__rmod__", "__rmul__"):
            setattr(_kind, _name, _refused)
    for _name in _names:
        setattr(_kind, _name, _method(_base, _name))


def _joined(parts: Iterable[str]) -> str:
    """Texts in one, which notes what it is made of."""
    every = list(parts)
    noted = [part for part in every if isinstance(part, _Text)]
    if not noted:
        return "".join(every)
    pieces = [piece for part in every for piece in (part._parts if isinstance(part, _Text) else [part])]

    def get(texts: Texts) -> str:
        return "".join([piece if isinstance(piece, str) else piece(texts) for piece in pieces])

    return _Text("".join(map(_plain, every)), noted[0]._trace, get, pieces)


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value surely holds nothing that is noted."""
    if isinstance(value, _Noted) or depth > 100:
        return False
    if isinstance(value, dict):
        return all(_is_plain(one, depth + 1) for pair in value.items() for one in pair)
    if isinstance(value, list | tuple):
        return all(_is_plain(one, depth + 1) for one in value)
    return value is None or isinstance(value, str | int | float | Undefined)


class _In(NodeTransformer):
    """Makes `a in b` a filter: Python's own asks a plain text whether a noted one is in it, which nothing notes."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if not any(operand.op in ("in", "notin") for operand in node.ops):
            return node
        if len(node.ops) > 1:
            raise _Unknown
        (operand,) = node.ops
        asked = nodes.Filter(node.expr, "slimtune.in", [operand.expr], [], None, None, lineno=node.lineno)
        return asked if operand.op == "in" else nodes.Not(asked, lineno=node.lineno)


class _Recording(Sandbox):
    """The sandbox with texts that note. Raises _Unknown for what it does not know how to note."""

    def __init__(self) -> None:
        super().__init__()
        self.filters["slimtune.in"] = lambda one, other: one in other
        self.filters = {name: self._noting(name, function) for name, function in self.filters.items()}
        self.tests = {name: self._testing(name, cast(Any, function)) for name, function in self.tests.items()}
        self.trace = _Trace()

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_In().visit(source), *args, **kwargs)

    def _noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

        def noting(*args: Any, **kwargs: Any) -> Any:
            given = args[skipped:]
            if all(map(_is_plain, (*given, *kwargs.values()))):
                return function(*args, **kwargs)
            first, *more = given
            if isinstance(first, _Text):
                if name == "string":
                    return first
                if name == "trim" and not kwargs and all(map(_is_plain, more)):
                    return first.strip(*more)
                if name in ("length", "count"):
                    return self.trace.noted(len(_plain(first)), _then(first._get, len))
                if name in ("default", "d") and len(more) < 2 and not kwargs:
                    return first
            elif isinstance(first, list | tuple) and name in ("length", "count"):
                return len(first)
            elif (
                name in _HANDING_ON and not isinstance(first, _Noted) and all(map(_is_plain, (*more, *kwargs.values())))
            ):
                return function(*args, **kwargs)
            if name == "slimtune.in" and (
                isinstance(other := more[0], _Text) or (_is_plain(first) and isinstance(other, list | tuple))
            ):
                return first in other
            self.trace.unknown()

        return update_wrapper(noting, function)

    def _testing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

        def testing(*args: Any) -> Any:
            if not all(map(_is_plain, args[skipped:])):
                if name in _KIND_TESTS:
                    return function(*args[:skipped], *map(_plain, args[skipped:]))
                if name not in _COMPARING_TESTS:
                    self.trace.unknown()
            return function(*args)

        return update_wrapper(testing, function)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        own = isinstance(__obj, MethodType) and isinstance(__obj.__self__, _Noted)
        known = own or isinstance(__obj, Macro | LoopContext) or __obj is Namespace
        given = (value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars"))  # Jinja's own
        if not known and not all(map(_is_plain, (*args, *given))):
            __self.trace.unknown()
        return super().call(__context, __obj, *args, **kwargs)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, _Noted):
            self.trace.unknown()
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator_: str, left: Any, right: Any) -> Any:
        if _is_plain(left) and _is_plain(right):
            return super().call_binop(context, operator_, left, right)
        if operator_ != "+":
            self.trace.unknown()
        return operator.add(left, right)

    def text(self, value: Any) -> str:
        if isinstance(value, _Text):
            return value
        return super().text(value) if _is_plain(value) else self.trace.unknown()

    def _concat(self, parts: Iterable[str]) -> str:
        return _joined(parts)


class Renderer:
    """Renders one template with the same variables; the messages and the settings may differ."""

    def __init__(self, template: str):
        self._template = template
        self._shapes: dict[Hashable, list[_Trace]] = {}
        self._tried: dict[Hashable, int] = {}
        self._recording: tuple[_Recording, Callable[..., str]] | None = None
        if len(template) <= _LONGEST and not _CHANGING.search(template):
            sandbox = _Recording()
            try:
                self._recording = sandbox, sandbox.from_string(template).render
            except FAULTS:
                return  # which rendering will tell of

    def render(self, settings: Hashable, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
        """As `template_sandbox.render` with these messages and values. settings: what the values are, as a key."""
        texts = [one["content"] for one in messages]
        key = (settings, tuple([one["role"] for one in messages]))
        if self._recording and all(len(one) == 2 for one in messages):
            for trace in self._shapes.get(key, ()):
                found = trace.rendering(texts)
                if found is not None and len(found) <= CHARACTERS:
                    return found
            if self._tried.get(key, 0) < _TRIED:
                return self._recorded(key, messages, values)
        return template_sandbox.render(self._template, messages=messages, **values)

    def _recorded(self, key: Hashable, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
        assert self._recording
        if len(self._tried) > _SHAPES:
            self._tried.clear()
            self._shapes.clear()
        self._tried[key] = self._tried.get(key, 0) + 1
        usual = template_sandbox.render(self._template, messages=messages, **values)
        sandbox, render = self._recording
        trace = sandbox.trace = _Trace()
        turns = [
            {**one, "content": trace.noted(one["content"], operator.itemgetter(at))} for at, one in enumerate(messages)
        ]
        sandbox.begin()
        try:
            found = render(messages=turns, **values)
        except FAULTS:
            return usual
        if not trace.broken:
            trace.parts = found._parts if isinstance(found, _Text) else [found]
            texts = [one["content"] for one in messages]
            if trace.rendering(texts) == usual and self._repeats(trace, texts, messages, values):
                self._shapes.setdefault(key, []).append(trace)
        return usual

    def _repeats(
        self, trace: _Trace, texts: Texts, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any]
    ) -> bool:
        """Whether it also is what the template does with other texts: one that was not noted would stay as it was."""
        others = [
            f"{one[: len(one) // 2]}{_OTHER}{at}{one[len(one) // 2 :]}" if one else one for at, one in enumerate(texts)
        ]
        repeated = trace.rendering(others)
        turns = [{**one, "content": other} for one, other in zip(messages, others, strict=True)]
        try:
            return repeated == template_sandbox.render(self._template, messages=turns, **values)
        except SlimtuneError:
            return False
