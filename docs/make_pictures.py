"""Draw the README's pictures: the top of a run's report, a plan, and a preview of training data.

python docs/make_pictures.py outputs/quickstart/latest

Needs Chromium on the PATH (or named by $SLIMTUNE_CHROMIUM). Writes docs/report.png, docs/plan.png and docs/preview.png.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import browser  # noqa: E402

from slimtune.cli import app as cli  # noqa: E402
from slimtune.run import report  # noqa: E402

RECIPE = ROOT / "recipes" / "direct.yaml"
WIDTH, HEIGHT, SCALE = 1280, 1100, 1.5


def draw_report(run: Path, out: Path) -> None:
    """The top of the run's report, rendered anew, as on a desktop in the light."""
    chromium = browser.find()
    if chromium is None:
        sys.exit("no Chromium on the PATH; $SLIMTUNE_CHROMIUM can name one")
    with tempfile.TemporaryDirectory() as folder, browser.Browser(chromium) as opened:
        page = Path(folder) / report.FILE_NAME
        page.write_text(report.render(run), encoding="utf-8")
        opened.visit(page, width=WIDTH, height=HEIGHT, scale=SCALE)
        opened.screenshot(out)


def draw_plan(out: Path) -> None:
    """Where the card's memory goes, as `slimtune plan recipes/direct.yaml --plot` draws it."""
    cli.app(["plan", str(RECIPE), "--plot", str(out), "--overwrite"], standalone_mode=False)


def draw_preview(out: Path) -> None:
    """A question of the quickstart as its model sees it."""
    chromium = browser.find()
    if chromium is None:
        sys.exit("no Chromium on the PATH; $SLIMTUNE_CHROMIUM can name one")
    with tempfile.TemporaryDirectory() as folder, browser.Browser(chromium) as opened:
        page = Path(folder) / "preview.html"
        command = ["data", "preview", "data/quickstart/train.jsonl", "--recipe", "recipes/quickstart.yaml", "-n", "1"]
        cli.app([*command, "--html", str(page)], standalone_mode=False)
        opened.visit(page, width=800, height=600, scale=SCALE)
        opened.screenshot(out)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    draw_report(Path(sys.argv[1]), DOCS / "report.png")
    os.chdir(ROOT)  # the paths in a recipe are relative to the working directory
    draw_plan(DOCS / "plan.png")
    draw_preview(DOCS / "preview.png")
