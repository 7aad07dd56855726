"""Statutes in the XML of e-Gov, Japan's law portal, article by article.

Format: the "Standard Law XML Schema" at https://laws.e-gov.go.jp/ (Law / LawBody / MainProvision / … / Article /
Paragraph / Item / Subitem1 …). The supplementary provisions, the table of contents and the appendices are left out.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from slimtune.core import inputs
from slimtune.core.errors import Problem
from slimtune.data.text import normalised

_LABEL = re.compile(r"ParagraphNum|(Item|Subitem\d+)Title")
_SENTENCE = re.compile(r"(Paragraph|Item|Subitem\d+)Sentence")
_LINE = "line of the element"


class Article(NamedTuple):
    """number: as in the attribute Num ("5_2"). title: law, article and caption. text: a paragraph or item a line."""

    number: str
    title: str
    text: str
    line: int


class _Refused(Exception):
    """What is refused, and in which line.

    A document type declaration could define entities that grow without end or read other files.
    """

    def __init__(self, what: str, line: int, fix: str):
        self.what, self.line, self.fix = what, line, fix
        super().__init__(what)


def read_articles(text: str, path: str, problems: list[Problem]) -> list[Article]:
    """The articles of the main provisions; a law that has none is one article with the number "main".

    Ruby readings are dropped. A file in another format, or with a DOCTYPE, is added to `problems`.
    """
    try:
        root = _parse(text)
    except expat.ExpatError as error:
        what = f"broken XML at column {error.offset + 1}: {expat.ErrorString(error.code)}"
        problems.append(Problem(what, f"{path}:{error.lineno}", "get the file again"))
        return []
    except _Refused as refused:
        problems.append(Problem(refused.what, f"{path}:{refused.line}", refused.fix))
        return []
    law = next(root.iter("Law"), None)
    main = law.find("LawBody/MainProvision") if law is not None else None
    if law is None or main is None:
        fix = "take the law's XML from e-Gov (Law, LawBody, MainProvision)"
        problems.append(Problem("not a law XML: it has no main provisions", f"{path}:1", fix))
        return []
    law_title = _content(law.find("LawBody/LawTitle"))
    return [_article(part, law_title) for part in _outermost_articles(main) or [main]]


def _parse(text: str) -> Element:
    """The root, with every element's line as the attribute `_LINE`."""
    # ElementTree's own parser neither tells the line of an element nor refuses a DOCTYPE.
    builder = TreeBuilder()
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True

    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > inputs.MAX_DEPTH:
            what = f"elements that are nested more than {inputs.MAX_DEPTH} deep"
            raise _Refused(what, parser.CurrentLineNumber, "get the file again")
        builder.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        what = "a document type declaration (DOCTYPE), which law XML does not have"
        raise _Refused(what, parser.CurrentLineNumber, "delete the declaration and the entities it defines")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.Parse(text.encode(), True)
    return builder.close()


def _outermost_articles(element: Element) -> list[Element]:
    # An amending law quotes whole articles inside its own.
    if element.tag == "Article":
        return [element]
    return [article for child in element for article in _outermost_articles(child)]


def _article(element: Element, law_title: str) -> Article:
    names = [law_title, _content(element.find("ArticleTitle")), _content(element.find("ArticleCaption"))]
    line = element.attrib[_LINE]
    number = element.get("Num", f"line-{line}") if element.tag == "Article" else "main"
    return Article(number, " ".join(name for name in names if name), "\n".join(_lines(element)), int(line))


def _lines(element: Element) -> Iterator[str]:
    """The sentences of each paragraph and item behind its number, and the cells of each row of a table."""
    label = ""
    for child in element:
        if _LABEL.fullmatch(child.tag):
            label = _content(child)
        elif _SENTENCE.fullmatch(child.tag) or child.tag == "TableRow":
            parts = [_content(part) for part in child]
            # Sentences follow each other as they are, columns and cells have a space between them.
            joined = ("" if child.find("Sentence") is not None else "\u3000").join(part for part in parts if part)
            if joined:
                yield f"{label} {joined}" if label else joined
            label = ""
        else:
            yield from _lines(child)


def _content(element: Element | None) -> str:
    return "" if element is None else normalised(" ".join("".join(_visible(element)).split()))


def _visible(element: Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag != "Rt":
            yield from _visible(child)
        yield child.tail or ""
