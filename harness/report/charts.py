"""Charts as SVG documents: dots on a logarithmic axis, and curves over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

COLOURS = ("#1f5fa8", "#c4501b", "#2e8540", "#7a4fa3", "#8a6d00")
LABELS, WIDTH, ROW, TOP = 260, 920, 26, 76
RIGHT = WIDTH - 70

Rows = Mapping[str, Mapping[str, float]]
"""Value (above zero) by row and series."""


def dots(title: str, unit: str, rows: Rows) -> str:
    """Return an SVG chart with a dot for each value and a colour for each series."""
    values = [value for row in rows.values() for value in row.values() if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    span = max(high - low, 1)

    def x(value: float) -> float:
        return LABELS + (math.log10(max(value, 10.0**low)) - low) / span * (RIGHT - LABELS)

    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    colour = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(series)}
    height = TOP + ROW * len(rows) + 30
    parts = [f'<text x="14" y="24" font-size="16" font-weight="600">{escape(title)}</text>']
    parts += _legend(colour)
    parts += [_tick(x(10.0**power), power, height, unit) for power in range(low, low + span + 1)]
    for number, (label, row) in enumerate(rows.items()):
        parts += _row(label, TOP + ROW * (number + 1) - 8, {name: (x(v), v) for name, v in row.items()}, colour)
    return document(WIDTH, height, parts)


def over_time(
    title: str, step: float, series: Mapping[str, Sequence[float]], marks: Sequence[tuple[float, str]] = ()
) -> str:
    """Return an SVG chart with a curve for each series, whose values are `step` seconds apart.

    `marks` are moments in seconds, each with its name. A numbered line marks each one.
    """
    most = max((value for values in series.values() for value in values), default=0) or 1
    longest = max(len(values) for values in series.values())
    left, bottom, height = 60, 300, 320

    def at(number: float, value: float) -> str:
        return f"{left + number / longest * (RIGHT - left):.1f},{bottom - value / most * (bottom - TOP):.1f}"

    colour = dict(zip(series, COLOURS, strict=False))
    parts = [f'<text x="14" y="24" font-size="16" font-weight="600">{escape(title)}</text>', *_legend(colour)]
    parts += [f'<path d="M{at(0, most)} L{at(0, 0)} L{at(longest, 0)}" fill="none" stroke="#667"/>']
    parts += [f'<text x="{left - 6}" y="{TOP + 4}" text-anchor="end" fill="#667">{most:g}</text>']
    parts += [f'<text x="{RIGHT}" y="{height - 4}" text-anchor="end" fill="#667">{longest * step:g} s</text>']
    for number, (moment, name) in enumerate(marks, 1):
        x = float(at(moment / step, 0).partition(",")[0])
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="#c3cad3" stroke-dasharray="3 3"/>'
        parts.append(f'<g><title>{escape(name)}</title>{line}<text x="{x + 2:.1f}" y="{TOP - 6}">{number}</text></g>')
    for name, values in series.items():
        points = " ".join(at(number + 0.5, value) for number, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour[name]}" stroke-width="2"/>')
    return document(WIDTH, height, parts)


def document(width: float, height: float, parts: list[str]) -> str:
    """Return an SVG document with these elements on a white background."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui"'
    return "\n".join([f'{head} font-size="12">', '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def _legend(colour: Mapping[str, str]) -> Iterator[str]:
    at = 14.0
    for name, fill in colour.items():
        yield f'<circle cx="{at + 5:.0f}" cy="44" r="5" fill="{fill}"/>'
        yield f'<text x="{at + 15:.0f}" y="48">{escape(name)}</text>'
        at += 34 + 7 * len(name)


def _tick(x: float, power: int, height: float, unit: str) -> str:
    line = f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP - 8}" y2="{height - 24:.0f}" stroke="#e2e5ea"/>'
    text = f"{10.0**power:g} {unit}".strip()
    return f'{line}<text x="{x:.0f}" y="{height - 8:.0f}" text-anchor="middle" fill="#667">{escape(text)}</text>'


def _row(label: str, y: float, row: Mapping[str, tuple[float, float]], colour: Mapping[str, str]) -> Iterator[str]:
    yield f'<text x="{LABELS - 12}" y="{y + 4:.0f}" text-anchor="end">{escape(label)}</text>'
    for name, (x, value) in row.items():
        hint = f"<title>{escape(name)}: {value:.4g}</title>"
        yield f'<circle cx="{x:.1f}" cy="{y:.0f}" r="5" fill="{colour[name]}">{hint}</circle>'
