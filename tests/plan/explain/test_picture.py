"""The picture of a plan: every term in one group, every size drawn to scale, every text in a place of its own."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slimtune.core.errors import SlimtuneError
from slimtune.core.units import GIB, MIB, size_text
from slimtune.models.families import TARGETS
from slimtune.models.shapes import known
from slimtune.plan.explain import picture
from slimtune.plan.explain.picture import COLOURS, GROUPS, MARGIN, Bar
from slimtune.plan.memory import vram

# 4 + 2 + 1 + 1 = 8 GiB.
ITEMS = {"linear weights": 4 * GIB, "embeddings": 2 * GIB, "CUDA context": GIB, "MLP backward": GIB}
LONG = "a label that is far too long for its column and goes on and on, " * 8
JAPANESE = "手元のカードで動かす、とても長い名前の計画"


def predicted(model="Qwen3-8B", tokens=2048, **knobs):
    return vram.predict(known()[model], rank=16, targets=TARGETS["full"], tokens=tokens, **knobs).items


def draw(
    path, bars, *, title="Where it goes", subtitle="QLoRA", budget=9 * GIB, visible=10 * GIB, card="RTX 3080", **more
):
    return picture.plot(
        path, bars, title=title, subtitle=subtitle, budget_bytes=budget, visible_bytes=visible, card=card, **more
    )


def rgb(colour):
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def pixels(path):
    with Image.open(path) as image:
        return Counter(image.convert("RGB").get_flattened_data())


@pytest.fixture
def drawn(monkeypatch):
    """The texts of the pictures that a test draws: words and extent (left, top, right, bottom) in pixels."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    found = []
    save = Figure.savefig

    def remember(self, *args, **kwargs):
        save(self, *args, **kwargs)
        for text in self.findobj(Text):
            if text.get_text() and text.get_visible():
                assert not text.get_parse_math()  # a dollar sign is no formula
                box = text.get_window_extent()
                height = self.bbox.height
                found.append((text.get_text(), (box.x0, height - box.y1, box.x1, height - box.y0)))

    monkeypatch.setattr(Figure, "savefig", remember)
    return found


# Groups


def test_every_term_of_a_breakdown_is_in_one_group():
    grouped = Counter(name for names in GROUPS.values() for name in names)
    assert grouped == Counter(dict.fromkeys([*vram.FORMULAS, MARGIN], 1))
    assert list(COLOURS) == list(GROUPS)
    assert len(set(COLOURS.values())) == len(GROUPS)


def test_groups_by_hand():
    items = {"cross entropy": 5, "LoRA weights": 40, "linear weights": 700, "LoRA gradients": 2, "norms and biases": 1}
    sums = picture.groups(items)
    assert list(sums.items()) == [("decoder weights", 701), ("LoRA, gradients, optimizer", 42), ("passing peak", 5)]
    assert picture.groups({"embeddings": 0}) == {}


@given(st.dictionaries(st.sampled_from(sorted([*vram.FORMULAS, MARGIN])), st.integers(0, 2**40)))
def test_groups_lose_no_byte(items):
    sums = picture.groups(items)
    assert sum(sums.values()) == sum(items.values())
    assert all(sums.values())


@pytest.mark.parametrize(
    ("items", "message"), [({"embeddings": 1, "aether": 0}, "aether"), ({"embeddings": -1}, "embeddings")]
)
def test_what_cannot_be_drawn_truly_is_refused(tmp_path, items, message):
    with pytest.raises(ValueError, match=message):
        picture.groups(items)
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "p.png", [Bar("x", items)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (5 * MIB // 2, "2.5 MiB"), (40 * MIB, "40 MiB"), (GIB // 2, "512 MiB"), (1234 * GIB, "1,234.00 GiB")],
)
def test_sizes_are_written_for_a_person(size, text):
    assert size_text(size) == text


# Pictures


def test_segments_are_to_scale_and_the_chosen_bar_stands_out(tmp_path):
    path = draw(tmp_path / "p.png", [Bar("chosen", ITEMS, chosen=True), Bar("other", ITEMS)])
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1400, 324 + 2 * 80)
        assert [round(dots) for dots in image.info["dpi"]] == [150, 150]
        # The upper edges of both bars, above the words in them: 52 pixels high and 34, amid their rows.
        chosen_row = Counter(image.convert("RGB").getpixel((x, 268 + 40 - 22)) for x in range(1400))
        other_row = Counter(image.convert("RGB").getpixel((x, 268 + 80 + 40 - 14)) for x in range(1400))
    chosen = [chosen_row[rgb(COLOURS[group])] for group in picture.groups(ITEMS)]
    unit = chosen[0] / 4
    assert unit > 60
    assert chosen == pytest.approx([4 * unit, 2 * unit, unit, unit], abs=3)
    assert not any(other_row[rgb(colour)] for colour in COLOURS.values())
    paler = [tuple(round(0.45 * part + 0.55 * 255) for part in rgb(COLOURS[group])) for group in picture.groups(ITEMS)]
    assert [other_row[colour] for colour in paler] == pytest.approx(chosen, abs=1)


def test_without_a_chosen_one_all_bars_have_full_colours(tmp_path):
    one = pixels(draw(tmp_path / "one.png", [Bar("x", ITEMS)]))
    two = pixels(draw(tmp_path / "two.png", [Bar("x", ITEMS), Bar("y", ITEMS)]))
    for group in picture.groups(ITEMS):
        assert two[rgb(COLOURS[group])] > 1.6 * one[rgb(COLOURS[group])] > 0
    assert not one[rgb(COLOURS["kept activations"])]


def test_what_is_left_and_what_is_too_much_is_written(tmp_path, drawn):
    over = ITEMS | {"kept activations": 2 * GIB}
    draw(tmp_path / "p.png", [Bar("a", ITEMS, chosen=True, remark="1,208 tokens/s"), Bar("b", over)])
    words = Counter(text for text, _ in drawn)
    # The key and the end of its row both tell the chosen one's total.
    assert words["8.00 GiB"] == 2
    assert words["10.00 GiB"] == 2  # the other's total and the card
    for text in ("1.00 GiB left", "1.00 GiB too much", "1,208 tokens/s", "budget", "RTX 3080", "9.00 GiB"):
        assert words[text] == 1, text
    assert (words["4.00"], words["2.00"], words["1.00"]) == (2, 3, 4)  # embeddings and kept; context and peak
    assert words["peak: MLP backward"] == 1
    assert words["0 B"] == 1  # the chosen one keeps no activations
    assert pixels(tmp_path / "p.png")[rgb("#B84300")] > 4 * 50


def test_the_passing_peak_is_named_only_where_it_is_the_same(tmp_path, drawn):
    draw(tmp_path / "p.png", [Bar("a", {"cross entropy": GIB}), Bar("b", {"attention backward": GIB})])
    assert "passing peak" in [text for text, _ in drawn]


HARD = {
    "one": [Bar("plan", predicted())],
    "nothing": [Bar("", {}), Bar("", {}, remark="no GPU")],
    "tokens": [
        Bar(f"{n:,} tokens", predicted(tokens=n), n == 2048, "1,208 tokens/s") for n in (1024, 2048, 4096, 8192)
    ],
    "far over": [
        Bar("16 bit", predicted("Qwen3-14B", quantisation="16bit"), True, "does not fit"),
        Bar("4 bit", ITEMS),
    ],
    "hundredfold": [Bar("", {"linear weights": 1000 * GIB, "embeddings": MIB}, True)],
    "tiny": [Bar("a", dict.fromkeys([*vram.FORMULAS, MARGIN], MIB), True), Bar("b", {"CUDA context": 1})],
    "eight": [
        Bar(label, predicted(tokens=2048 * (number + 1), checkpoint_skip_layers=4 * number), number == 3, remark)
        for number, (label, remark) in enumerate(
            itertools.islice(itertools.product([LONG, JAPANESE * 4, "w" * 300, "x"], [LONG, "8 tokens/s"]), 8)
        )
    ],
}


SHORT, VERY_LONG = ("Qwen3-8B: $2^x$", "NVIDIA GeForce RTX 3080"), (JAPANESE * 20, LONG)
QUICK = {("one", SHORT), ("hundredfold", VERY_LONG), ("eight", VERY_LONG)}


@pytest.mark.parametrize(
    ("bars", "title", "card"),
    [
        pytest.param(bars, *words, id=f"{name}-{length}", marks=[] if (name, words) in QUICK else pytest.mark.slow)
        for name, bars in HARD.items()
        for length, words in (("short", SHORT), ("long", VERY_LONG))
    ],
)
def test_no_text_overlaps_another_or_leaves_the_picture(tmp_path, drawn, bars, title, card):
    path = draw(tmp_path / "p.png", bars, title=title, subtitle=title * 5, card=card)
    with Image.open(path) as image:
        width, height = image.size
    assert height == 324 + 80 * len(bars)
    for words, (left, top, right, bottom) in drawn:
        assert 0 <= left < right <= width, words
        assert 0 <= top < bottom <= height, words
    for (words, one), (others, two) in itertools.combinations(drawn, 2):
        across = min(one[2], two[2]) - max(one[0], two[0])
        down = min(one[3], two[3]) - max(one[1], two[1])
        # A line box is a little higher than its letters.
        assert across <= 0 or down <= 3, (words, others)


def test_no_line_crosses_the_words_in_a_bar(tmp_path, drawn, monkeypatch):
    at = []
    line = picture._Pen.line
    monkeypatch.setattr(picture._Pen, "line", lambda self, x, *rest: (at.append(x), line(self, x, *rest)))
    draw(tmp_path / "p.png", [Bar("x", {"linear weights": 20 * GIB})])
    assert len(set(at)) == 2
    ((left, _, right, _),) = [box for words, box in drawn if words == "20.00"]
    assert not any(left - 3 < x < right + 3 for x in at)


def test_words_on_colours_can_be_read():
    """At least 4.5 : 1, the contrast that WCAG 2.2 asks of text."""

    def luminance(colour):
        parts = [part / 255 for part in rgb(colour)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, other):
        darker, lighter = sorted([luminance(one), luminance(other)])
        return (lighter + 0.05) / (darker + 0.05)

    for colour in COLOURS.values():
        assert contrast(colour, "#ffffff" if colour in picture._DARK else picture._INK) > 4.5
        assert contrast(picture._paler(colour), picture._INK) > 4.5
    for ink in (picture._GREY, picture._WARNING):
        assert contrast(ink, "#ffffff") > 4.5
        assert contrast(ink, picture._BAND) > 4.5


def test_what_no_font_has_is_a_question_mark(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(picture, "_JAPANESE_FONTS", ("A Font That Nobody Has",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "p.png", [Bar("法\n律 $x$", ITEMS)], title="direct 法律 →")
    words = [text for text, _ in drawn]
    assert "direct ?? →" in words
    assert "? ? $x$" in words


def test_the_same_plan_gives_the_same_bytes(tmp_path):
    one = draw(tmp_path / "one.png", HARD["tokens"]).read_bytes()
    assert draw(tmp_path / "two.PNG", HARD["tokens"]).read_bytes() == one


# Files


def test_nothing_is_left_when_writing_fails(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(self, path, **options):
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    path = tmp_path / "p.png"
    path.write_bytes(b"the picture before")
    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(SlimtuneError, match=r"p\.png: the disk is full"):
        draw(path, [Bar("x", ITEMS)], overwrite=True)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("p.png", b"the picture before")]


def test_a_picture_of_ours_is_replaced_and_another_is_not(tmp_path):
    path = draw(tmp_path / "p.png", [Bar("x", ITEMS)])
    before = path.read_bytes()
    draw(path, [Bar("y", ITEMS)])
    assert path.read_bytes() != before
    other = before.replace(b"Slimtune", b"Painter!")
    path.write_bytes(other)
    with pytest.raises(SlimtuneError, match="the file has appeared while the command ran"):
        draw(path, [Bar("x", ITEMS)])
    assert path.read_bytes() == other


def test_a_folder_in_the_pictures_place_is_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SlimtuneError, match=r"folder\.png: (cannot be written|the file has appeared)"):
        draw(tmp_path / "folder.png", [Bar("x", ITEMS)])
    assert [file.name for file in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("count", [0, 9])
def test_one_to_eight_bars(tmp_path, count):
    with pytest.raises(ValueError, match=f"{count} bars"):
        draw(tmp_path / "p.png", [Bar("x", ITEMS)] * count)


def test_importing_loads_nothing_heavy_and_drawing_no_pyplot_and_no_torch(tmp_path):
    check = (
        "import sys, pathlib; from slimtune.plan.explain.picture import Bar, plot\n"
        "heavy = {'matplotlib', 'numpy', 'torch'} & set(sys.modules)\n"
        f"plot(pathlib.Path({str(tmp_path / 'p.png')!r}), [Bar('x', {{'embeddings': 2**30}})], title='t', subtitle='s',"
        " budget_bytes=2**31, visible_bytes=2**32, card='c')\n"
        "print(heavy, {'matplotlib.pyplot', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() set()"
    assert (tmp_path / "p.png").is_file()
