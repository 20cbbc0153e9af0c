"""The report page: complete, self-contained, and safe for any text."""

import io
import itertools
import re
import tomllib
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transduce.report.charts import HeatMap, Point, heat_map, line_chart, nice_ticks, point_chart, short_number
from transduce.report.exhibits import Hearing, Sight
from transduce.report.media import draw, exhibit_note
from transduce.report.page import marked
from transduce.report.pixels import jpeg_uri, png_uri, ramp

ROOT = Path(__file__).resolve().parents[1]


class Balance(HTMLParser):
    """Fails on a closing tag that closes nothing."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_html(text: str) -> None:
    """Tags close in order, names are unique, and nothing is loaded from elsewhere: pictures stand in the page itself."""
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    assert not re.search(r"src\s*=|url\(|@import|https?://", text)
    assert all(re.match(r'"(data:image/(png|jpeg);base64,|#)', found) for found in re.findall(r"href\s*=\s*(.{30})", text))
    names = re.findall(r'\sid="([^"]*)"', text)
    assert len(names) == len(set(names)) and set(re.findall(r'href="#([^"]*)"', text)) <= set(names)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 3.3), (-5, 5), (7, 7), (0, 0), (1200, 98000), (0.0001, 0.0003)])
def test_ticks_are_round_and_cover_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high, 5)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 8
    assert len({round(after - before, 9) for before, after in itertools.pairwise(ticks)}) == 1


def test_numbers_are_short() -> None:
    assert [short_number(value) for value in (0, 0.25, 1500, 2e6)] == ["0", "0.25", "1.5k", "2M"]


def test_a_heat_map_has_a_cell_for_each_pair_and_shades_by_weight() -> None:
    drawn = heat_map(HeatMap([[1.0, 0.0, 0.25]], ["<b>"], ["a", "&", "</s>"]), description="x")
    check_html(drawn)
    assert drawn.count('class="cell"') == 3 and 'fill-opacity="0.250"' in drawn
    assert "&lt;b&gt; from a: 1.000" in drawn and "<b>" not in drawn


def test_a_point_chart_shows_every_series_with_intervals() -> None:
    row = [Point(10, 8, 12, "one"), Point(20, 15, 25, "two")]
    drawn = point_chart({"a": row, "b": row}, ["1-2", "3-9"], x_title="words", description="x")
    check_html(drawn)
    assert drawn.count("<circle") == 4 and drawn.count('class="bar s2"') == 2 and "3-9" in drawn
    heights = [float(found) for found in re.findall(r'class="dot s1" cx="[\d.]+" cy="([\d.]+)"', drawn)]
    assert heights[0] > heights[1]  # higher value, higher on the paper


def test_a_line_chart_thins_long_series_and_skips_what_is_not_finite() -> None:
    drawn = line_chart({"a": [(step, 5.0) for step in range(5000)], "b": [(0, float("nan"))]}, x_title="step", description="x")
    check_html(drawn)
    assert "nan" not in drawn
    assert max(len(points.split()) for points in re.findall(r'points="([^"]*)"', drawn)) <= 401
    assert line_chart({"a": []}, x_title="step", description="x") == ""


def test_differences_are_marked_and_escaped() -> None:
    assert marked("a <x> dog", "a big dog") == "a <mark>&lt;x&gt;</mark> dog"
    assert marked("2021-05-03", "2021-06-03") == "2021-0<mark>5</mark>-03"
    assert marked("", "a b") == "" and marked("EH R", "ER") == "<mark>EH R</mark>"


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(uri.split(",", 1)[1])))


def test_pixels_become_pictures_that_others_read() -> None:
    generator = np.random.default_rng(1)
    for size, mode in ((1, "L"), (2, "LA"), (3, "RGB")):
        pixels = generator.integers(0, 256, (3, 5, size), dtype=np.uint8)
        picture = opened(png_uri(pixels))
        assert picture.mode == mode and np.array_equal(np.asarray(picture).reshape(pixels.shape), pixels)
    palette = ramp(((0, 0, 0), (200, 100, 0)), 3)
    assert palette.tolist() == [[0, 0, 0], [100, 50, 0], [200, 100, 0]]
    rows = np.array([[[0], [1]], [[2], [1]]], dtype=np.uint8)
    assert np.array_equal(np.asarray(opened(png_uri(rows, palette=palette)).convert("RGB")), palette[rows[:, :, 0]])
    small = opened(jpeg_uri(np.full((40, 80, 3), 90, dtype=np.uint8), largest=20))
    assert small.size == (20, 10) and small.format == "JPEG"


def test_a_picture_stands_once_and_each_word_lights_what_it_looked_at() -> None:
    looks = np.zeros((2, 2, 2), dtype=np.float32)
    looks[0, 0, 1], looks[1] = 0.5, 0.25
    drawn = draw(Sight(np.full((16, 16, 3), 200, dtype=np.uint8), ("<a>", "dog"), looks), "worst-1")
    check_html(drawn)
    assert drawn.count("data:image/jpeg") == 1 and drawn.count('href="#worst-1"') == 2 and "&lt;a&gt;" in drawn
    first, second = (np.asarray(opened(f"x,{found}"))[:, :, 1] for found in re.findall(r"data:image/png;base64,([^\"]*)", drawn))
    assert first[0, 1] == 0 and (np.delete(first.flatten(), 1) > 200).all(), "dark but where it looked"
    assert not second.any(), "a look at everything darkens nothing"
    blind = Sight(np.zeros((4, 4, 3), dtype=np.uint8), ("a",), None)
    assert draw(blind, "x").count("<svg") == 1 and "no attention" in exhibit_note([None, blind]) and exhibit_note([None]) == ""


def test_a_recording_is_drawn_over_its_time() -> None:
    wave = np.array([[-0.5, 0.5], [-0.1, 0.2]], dtype=np.float32)
    features = np.arange(8, dtype=np.float32).reshape(4, 2)  # low bins quiet, high bins a little louder
    heard = Hearing(2.0, wave, features, ("A", "<"), ((0.5, 1.0), (1.5, 1.5)), np.eye(3, 4, dtype=np.float32))
    drawn = draw(heard, "x")
    check_html(drawn)
    assert '<rect class="span" x="220.0"' in drawn and 'width="220.0"' in drawn, "half a second of 880 pixels for two seconds"
    assert "&lt;: 1.50 to 1.50 s" in drawn and "when each token was said, attention" in exhibit_note([heard])
    spectrum, attention = (np.asarray(opened(f"x,{found}")) for found in re.findall(r"data:image/png;base64,([^\"]*)", drawn))
    assert spectrum.shape == (2, 4) and spectrum[1, 0] == 0 and spectrum[0, 3] == 23, "low bins are at the bottom"
    assert attention.shape == (3, 4) and attention[0, 0] == 23 and attention[0, 1] == 0
    silent = Hearing(0.1, 0 * wave, 0 * features, (), (), None)
    check_html(draw(silent, "x"))
    assert exhibit_note([silent]).endswith("waveform, features.") and 'class="span"' not in draw(silent, "x")


def test_long_recordings_do_not_make_long_pages() -> None:
    generator = np.random.default_rng(1)
    noise = Hearing(
        30.0,
        generator.normal(size=(420, 2)).astype(np.float32),
        generator.normal(size=(420, 64)).astype(np.float32),
        ("e",) * 400,
        tuple((step * 0.07, step * 0.07 + 0.05) for step in range(400)),
        generator.random((400, 420)).astype(np.float32),
    )
    drawn = draw(noise, "x")
    assert len(drawn) < 300_000 and 'width="2400"' in drawn


def test_the_style_travels_with_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["transduce"]
    assert "report/*.css" in patterns and (ROOT / "transduce" / "report" / "page.css").is_file()
