"""The report in Chromium, as people see it: silent, alone, within its window; phones and a desktop, light and dark."""

import pytest
from support import browser, fake_run

from slimtune.run import report

CHROMIUM = browser.find()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH; $SLIMTUNE_CHROMIUM can name one")

WINDOWS = [(width, dark) for width in (320, 390, 1280) for dark in (False, True)]
LIGHT, DARK = "rgb(245, 246, 248)", "rgb(15, 18, 22)"


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser(CHROMIUM) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report.write(fake_run.write(tmp_path_factory.mktemp("runs"), contaminated=True))


@pytest.mark.parametrize(("width", "dark"), WINDOWS)
def test_the_report_is_silent_alone_and_fits(chromium, page, width, dark):
    seen = chromium.visit(page, width=width, dark=dark)
    assert seen.complaints == []
    assert seen.requests == []
    assert (seen.width, seen.too_wide) == (width, [])
    assert chromium.evaluate("getComputedStyle(document.body).backgroundColor") == (DARK if dark else LIGHT)
    assert chromium.evaluate("document.querySelector('h2').innerText") == "Before and after"
    chromium.open_details()
    assert (chromium.width(), chromium.too_wide()) == (width, [])


def test_it_begins_with_the_verdict(chromium, page):
    chromium.visit(page, width=390)
    seen = chromium.evaluate("document.elementFromPoint(195, 100).closest('header').innerText")
    assert "contaminated: 3 of 120 test questions" in seen


def test_what_the_checks_are_to_catch_is_caught(chromium, tmp_path):
    """The negative control: a page that logs an error, asks for a picture and is too wide."""
    guilty = tmp_path / "guilty.html"
    guilty.write_text(
        '<!doctype html><meta name="viewport" content="width=device-width"><body id="b">'
        '<div style="width: 900px">wide</div><p style="position: absolute; left: -40px">left</p>'
        '<img src="https://example.com/picture.png"><script>console.error("broken")</script></body>',
        encoding="utf-8",
    )
    seen = chromium.visit(guilty, width=390)
    assert ("error", "broken") in seen.complaints
    assert seen.requests == ["https://example.com/picture.png"]
    assert seen.width > 390
    assert [element.split(".")[0] for element in seen.too_wide] == ["div", "p"]


def test_a_refused_script_is_a_complaint(chromium, page, tmp_path):
    """The page's own policy is in force: what slips into it does not run, and is seen."""
    poisoned = tmp_path / "poisoned.html"
    html = page.read_text(encoding="utf-8")
    poisoned.write_text(html.replace("<main>", "<main><script>document.title = 'run'</script>"), encoding="utf-8")
    seen = chromium.visit(poisoned, width=390)
    assert any("Content Security Policy" in text for _, text in seen.complaints)
    assert chromium.evaluate("document.title") != "run"
