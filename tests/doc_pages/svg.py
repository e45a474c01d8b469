"""A small SVG canvas for boxes, arrows, text and sequence diagrams. Colours work on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

INK, GREY, LINE, PAPER, PANEL = "#1b1d21", "#5c6370", "#5c6370", "#ffffff", "#f3f4f6"
GREEN, AMBER, RED, BLUE = "#2e7d4f", "#b7791f", "#b42318", "#2563a8"


@dataclass
class Canvas:
    """Collects shapes. `render` returns the SVG document."""

    width: int
    height: int
    title: str
    shapes: list[str] = field(default_factory=list)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "middle",
        size: float = 12,
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """Write one line. `anchor` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}" fill="{colour}"{weight}'
        self.shapes.append(f"<text {place}>{escape(text)}</text>")

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = PAPER,
        stroke: str = INK,
        dash: bool = False,
    ) -> None:
        """Draw a rectangle with round corners."""
        dashed = ' stroke-dasharray="4 3"' if dash else ""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"'
        self.shapes.append(f'<rect {place} fill="{fill}" stroke="{stroke}"{dashed}/>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        name: str,
        lines: Sequence[str] = (),
        *,
        dash: bool = False,
    ) -> None:
        """Draw a rectangle with a name and small lines below it."""
        self.rect(x, y, width, height, dash=dash)
        top = y + height / 2 - 7 * len(lines) + 4
        self.text(x + width / 2, top, name, bold=True, size=14)
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, top + 15 * number, line, size=11, colour=GREY)

    def arrow(self, points: Sequence[tuple[float, float]], *, colour: str = LINE, dash: bool = False) -> None:
        """Draw a line through `points` with a head at its end."""
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        dashed = ' stroke-dasharray="5 3"' if dash else ""
        self.shapes.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{dashed} marker-end="url(#head)"/>'
        )

    def render(self) -> str:
        """Return the document."""
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="context-stroke"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="system-ui, sans-serif">\n<title>{escape(self.title)}</title>\n{head}\n'
            f'<rect width="{self.width}" height="{self.height}" fill="{PAPER}"/>\n'
            + "\n".join(self.shapes)
            + "\n</svg>\n"
        )


@dataclass(frozen=True)
class Message:
    """An arrow between two lanes. The same lane twice is a note. `is_failed` draws a call without a reply."""

    source: str
    target: str
    text: str
    colour: str = LINE
    is_failed: bool = False


def draw_sequence(title: str, lanes: Sequence[str], messages: Sequence[Message], width: int = 860) -> str:
    """Draw a sequence diagram: one lane per participant, time from top to bottom."""
    step, top = 30, 60
    canvas = Canvas(width, top + step * len(messages) + 24, title)
    gap = width / len(lanes)
    x_of = {lane: gap * (number + 0.5) for number, lane in enumerate(lanes)}
    for lane, x in x_of.items():
        canvas.shapes.append(f'<path d="M{x:g} 46V{canvas.height - 10}" stroke="#c9ced6" stroke-dasharray="2 4"/>')
        canvas.rect(x - 56, 16, 112, 28, fill=PANEL)
        canvas.text(x, 35, lane, bold=True)
    for number, message in enumerate(messages):
        y = top + step * (number + 0.5)
        start, end = x_of[message.source], x_of[message.target]
        if start == end:
            canvas.rect(start - 98, y - 13, 196, 22, fill=PANEL, stroke=message.colour)
            canvas.text(start, y + 2, message.text, size=11, colour=message.colour)
            continue
        stop = start + (end - start) * 0.55 if message.is_failed else end
        canvas.arrow([(start, y + 4), (stop, y + 4)], colour=message.colour, dash=message.is_failed)
        if message.is_failed:
            canvas.text(stop + (14 if end > start else -14), y + 8, "✕", colour=RED, bold=True)
        canvas.text((start + end) / 2, y - 2, message.text, size=11, colour=message.colour)
    return canvas.render()
