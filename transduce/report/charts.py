"""Charts as SVG text: points with intervals, lines, heat maps. Colours come from the page's style, so they follow its theme.

In: numbers and labels. Out: an `<svg>` element as text. The decision to question: no JavaScript; every point and cell has
a `<title>`, which browsers show on hover.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 14, 44
MAX_LINE_POINTS = 400


@dataclass(frozen=True)
class Point:
    """A value with its interval (low = high = value where there is none) and what a reader sees on hover."""

    value: float
    low: float
    high: float
    title: str


@dataclass(frozen=True)
class HeatMap:
    """weights: one row for each label of `rows`, one number from 0 to 1 for each label of `columns`."""

    weights: Sequence[Sequence[float]]
    rows: Sequence[str]
    columns: Sequence[str]


@dataclass(frozen=True)
class FanChart:
    """A track from above as (x, y): observed, what came, what was expected, and other guesses."""

    past: Sequence[tuple[float, float]]
    truth: Sequence[tuple[float, float]]
    expected: Sequence[tuple[float, float]]
    guesses: Sequence[Sequence[tuple[float, float]]] = ()


@dataclass(frozen=True)
class Frame:
    """The axes of a chart: where numbers lie on the paper."""

    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> float:
        """Paper position of a horizontal value."""
        return LEFT + (value - self.left) / ((self.right - self.left) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Paper position of a vertical value."""
        return HEIGHT - BOTTOM - (value - self.low) / ((self.high - self.low) or 1) * (HEIGHT - TOP - BOTTOM)


def point_chart(series: Mapping[str, Sequence[Point]], labels: Sequence[str], *, x_title: str, description: str) -> str:
    """Groups along the x axis, one point with an interval bar for each series; series are joined by a thin line."""
    points = [point for row in series.values() for point in row]
    frame = _frame((-0.5, len(labels) - 0.5), [number for point in points for number in (point.low, point.high, point.value)])
    parts = [_grid(frame), _x_labels(frame, [(index, label) for index, label in enumerate(labels)]), _x_title(x_title)]
    for number, row in enumerate(series.values()):
        shift = (number - (len(series) - 1) / 2) * 0.16
        places = [(frame.x(index + shift), point) for index, point in enumerate(row)]
        parts.append(_polyline([(x, frame.y(point.value)) for x, point in places], f"line faint s{number + 1}"))
        parts += [_interval_point(frame, x, point, style=f"s{number + 1}") for x, point in places]
    return _svg("".join(parts), description)


def line_chart(series: Mapping[str, Sequence[tuple[float, float]]], *, x_title: str, description: str) -> str:
    """Lines over a numeric x axis; long series are thinned for the paper, the ends are kept."""
    shown = {name: _thin([pair for pair in row if math.isfinite(pair[1])]) for name, row in series.items()}
    pairs = [pair for row in shown.values() for pair in row]
    if not pairs:
        return ""
    xs = [x for x, _ in pairs]
    frame = _frame((min(xs), max(xs)), [y for _, y in pairs])
    ticks = [tick for tick in nice_ticks(min(xs), max(xs), 4) if min(xs) <= tick <= max(xs)]
    parts = [_grid(frame), _x_labels(frame, [(tick, short_number(tick)) for tick in ticks]), _x_title(x_title)]
    for number, (name, row) in enumerate(shown.items(), start=1):
        parts.append(_polyline([(frame.x(x), frame.y(y)) for x, y in row], f"line s{number}"))
        if len(row) <= 40:
            parts += [_dot(frame.x(x), frame.y(y), style=f"s{number}", title=f"{name}: {y:.4g} at {x:,.0f}") for x, y in row]
    return _svg("".join(parts), description)


def fan_chart(fan: FanChart, *, description: str) -> str:
    """One length on the paper for both axes, x to the right and y upwards; the first colour is what was, the second what was guessed."""
    points = [point for line in (fan.past, fan.truth, fan.expected, *fan.guesses) for point in line]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    scale = max((max(xs) - min(xs)) / (WIDTH - 2 * LEFT), (max(ys) - min(ys)) / (HEIGHT - 2 * TOP)) or 1.0
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2

    def placed(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(WIDTH / 2 + (x - middle_x) / scale, HEIGHT / 2 - (y - middle_y) / scale) for x, y in line]

    last = list(fan.past[-1:])
    parts = [_polyline(placed([*last, *guess]), "line faint s2") for guess in fan.guesses]
    parts += [_polyline(placed([*last, *fan.expected]), "line s2"), _polyline(placed(fan.past), "line s1")]
    parts.append(_polyline(placed([*last, *fan.truth]), "line dotted s1"))
    parts += [_dot(x, y, style="s1", title="last observed step") for x, y in placed(last)]
    return _svg("".join(parts), description)


def heat_map(table: HeatMap, *, description: str) -> str:
    """Rows top to bottom, columns left to right; the stronger the colour, the larger the weight."""
    cell = 22
    left = 12 + 7.4 * max(_width(label) for label in table.rows)
    top = 12 + 7.4 * max(_width(label) for label in table.columns)
    parts = []
    for column, label in enumerate(table.columns):
        x = left + column * cell + cell / 2 + 4
        parts.append(f'<text class="piece" transform="translate({x:.0f} {top - 6:.0f}) rotate(-90)">{escape(label)}</text>')
    for row, label in enumerate(table.rows):
        y = top + row * cell
        parts.append(f'<text class="piece" x="{left - 6:.0f}" y="{y + cell / 2 + 4:.0f}" text-anchor="end">{escape(label)}</text>')
        for column, weight in enumerate(table.weights[row]):
            title = f"{escape(label)} from {escape(table.columns[column])}: {weight:.3f}"
            place = f'x="{left + column * cell:.0f}" y="{y:.0f}" width="{cell - 1}" height="{cell - 1}"'
            parts.append(f'<rect class="blank" {place}/>')
            parts.append(f'<rect class="cell" {place} fill-opacity="{weight:.3f}"><title>{title}</title></rect>')
    width, height = left + cell * len(table.columns) + 6, top + cell * len(table.rows) + 6
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="map" role="img" aria-label="{escape(description)}" {size}>{"".join(parts)}</svg>'


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that cover low to high."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(size * power for size in (1, 2, 5, 10) if span / (size * power) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def short_number(value: float) -> str:
    """1500 -> 1.5k, 2000000 -> 2M; small numbers as they are."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _frame(horizontal: tuple[float, float], values: Sequence[float]) -> Frame:
    ticks = nice_ticks(min(values), max(values), 5)
    return Frame(*horizontal, ticks[0], ticks[-1])


def _grid(frame: Frame) -> str:
    lines = []
    for tick in nice_ticks(frame.low, frame.high, 5):
        y = frame.y(tick)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short_number(tick)}</text>')
    return "".join(lines)


def _x_labels(frame: Frame, labels: Sequence[tuple[float, str]]) -> str:
    y = HEIGHT - BOTTOM + 18
    return "".join(f'<text class="tick" x="{frame.x(at):.1f}" y="{y}" text-anchor="middle">{escape(label)}</text>' for at, label in labels)


def _x_title(text: str) -> str:
    return f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(text)}</text>'


def _interval_point(frame: Frame, x: float, point: Point, *, style: str) -> str:
    bar = f'<line class="bar {style}" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.y(point.low):.1f}" y2="{frame.y(point.high):.1f}"/>'
    return bar + _dot(x, frame.y(point.value), style=style, title=point.title)


def _dot(x: float, y: float, *, style: str, title: str) -> str:
    return f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(title)}</title></circle>'


def _polyline(places: Sequence[tuple[float, float]], style: str) -> str:
    return f'<polyline class="{style}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'


def _thin(row: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_LINE_POINTS points: means of neighbours, with the last point as it is."""
    size = math.ceil(len(row) / MAX_LINE_POINTS)
    if size <= 1:
        return list(row)
    mean: Callable[[Sequence[float]], float] = lambda numbers: sum(numbers) / len(numbers)  # noqa: E731
    groups = [row[start : start + size] for start in range(0, len(row), size)]
    return [*((mean([x for x, _ in group]), mean([y for _, y in group])) for group in groups), row[-1]]


def _width(label: str) -> float:
    """Characters of a label on the paper; wide scripts count double."""
    return sum(1.7 if ord(mark) > 0x1100 else 1 for mark in label)


def _svg(content: str, description: str) -> str:
    return f'<svg class="chart" role="img" aria-label="{escape(description)}" viewBox="0 0 {WIDTH} {HEIGHT}">{content}</svg>'
