"""The report page: complete, self-contained, and safe for any text."""

import itertools
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from transduce.report.charts import HeatMap, Point, heat_map, line_chart, nice_ticks, point_chart, short_number
from transduce.report.page import marked

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
    """Tags close in order, and nothing is loaded from elsewhere."""
    parser = Balance()
    parser.feed(text)
    assert not parser.open
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://", text)


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
    assert marked("", "a b") == ""


def test_the_style_travels_with_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["transduce"]
    assert "report/*.css" in patterns and (ROOT / "transduce" / "report" / "page.css").is_file()
