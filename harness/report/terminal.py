"""Draws what a command printed as a picture for the README: two columns of text, as SVG.

make demo | python -m harness.report.terminal > docs/img/demo.svg
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from html import escape

COLUMN, LINE, MARGIN, WIDEST = 590, 16, 22, 82  # pixels, but for the last: characters
_NOISE = re.compile(r"^\[ *[\d.]+s\]|^(real|user|sys)\s|^make|^The system is up")
_HEADING = "── "


def scenes(text: str) -> list[list[str]]:
    """The headings with what was said under each; how processes came and went is left out."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if _NOISE.match(line) or not line.strip():
            continue
        if line.startswith(_HEADING) or not line.startswith(" "):
            found.append([])
        if found:
            found[-1].append(line if len(line) <= WIDEST else line[: WIDEST - 1] + "…")
    return found


def columns(found: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Scene by scene into two columns of much the same length."""
    total = sum(len(scene) + 1 for scene in found)
    left: list[str] = []
    right: list[str] = []
    for scene in found:
        column = left if not right and len(left) + len(scene) / 2 < total / 2 else right
        column += [*scene, ""]
    return left, right


def draw(text: str) -> str:
    """An SVG document."""
    sides = columns(scenes(text))
    height = 2 * MARGIN + LINE * max(len(side) - 1 for side in sides)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * COLUMN} {height}" font-size="11.5"'
        ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" fill="#1b1d21">',
        '<rect width="100%" height="100%" rx="8" fill="#f6f7f8"/>',
    ]
    for number, side in enumerate(sides):
        parts += [_line(line, number * COLUMN + MARGIN, MARGIN + LINE * row + 6) for row, line in enumerate(side)]
    return "\n".join([*filter(None, parts), "</svg>\n"])


def _line(line: str, x: float, y: float) -> str:
    if not line:
        return ""
    look = (
        ' font-weight="700"' if line.startswith(_HEADING) else ' fill="#5c6370"' if line.startswith("       ") else ""
    )
    return f'<text x="{x:.0f}" y="{y:.0f}" xml:space="preserve"{look}>{escape(line)}</text>'


if __name__ == "__main__":
    sys.stdout.write(draw(sys.stdin.read()))
