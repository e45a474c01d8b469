"""Draws the output of a command in two columns as an SVG for the README.

make demo | python -m harness.report.terminal > docs/img/demo.svg
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from html import escape

from harness.command_line import run_main

COLUMN, LINE, MARGIN = 590, 16, 22  # pixels
MAX_CHARACTERS = 82
_NOISE = re.compile(r"^\[ *[\d.]+s\]|^(real|user|sys)\s|^make|^The system is up")
_HEADING = "── "


def split_scenes(text: str) -> list[list[str]]:
    """Return the lines of each scene, a heading first. Messages about processes are left out."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if _NOISE.match(line) or not line.strip():
            continue
        if line.startswith(_HEADING) or not line.startswith(" "):
            found.append([])
        if found:
            found[-1].append(line if len(line) <= MAX_CHARACTERS else line[: MAX_CHARACTERS - 1] + "…")
    return found


def split_columns(scenes: Sequence[Sequence[str]]) -> tuple[list[str], list[str]]:
    """Distribute the scenes over two columns of about the same length."""
    total = sum(len(scene) + 1 for scene in scenes)
    left: list[str] = []
    right: list[str] = []
    for scene in scenes:
        column = left if not right and len(left) + len(scene) / 2 < total / 2 else right
        column += [*scene, ""]
    return left, right


def draw(text: str) -> str:
    """Return the output as an SVG document."""
    sides = split_columns(split_scenes(text))
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
    run_main(lambda: print(draw(sys.stdin.read()), end=""))
