"""A report's page, read back: its elements, its text by section, and whether it is closed and self-contained."""

from html.parser import HTMLParser

from slimtune.run import report

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes, text by section, and every tag that does not close as it should."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.unbalanced, self.sections, self.marked, self.styles = [], [], {}, [], ""
        self._open, self._section = [], ""
        self.feed(html)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("section", "header"):
            self._section = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if "style" in self._open:
            self.styles += data
        self.sections[self._section] = self.sections.get(self._section, "") + data.replace("\N{NO-BREAK SPACE}", " ")
        if "mark" in self._open:
            self.marked.append(data)


def page(run):
    path = report.write(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def assert_self_contained(seen):
    assert seen.unbalanced == []
    tags = [tag for tag, _ in seen.elements]
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(tags)
    for tag, attributes in seen.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    assert "url(" not in seen.styles
    assert "@import" not in seen.styles
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for tag, attributes in seen.elements if tag == "a"} <= {f"#{name}" for name in ids}
