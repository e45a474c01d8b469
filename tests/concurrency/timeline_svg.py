"""Draws a counterexample as a timeline: one bar for each operation, from its start to its end."""

from __future__ import annotations

from html import escape

from harness.report.charts import document
from tests.concurrency.linearizability import NEVER, Counterexample, Op

WIDTH, ROW, LEFT, TOP = 920, 30, 20, 60


def draw_timeline(counterexample: Counterexample) -> str:
    """Return an SVG document. The operation whose result no order explains is red."""
    ops = counterexample.ops
    first, last = min(o.start for o in ops), max(o.end if o.end < NEVER else o.start for o in ops)
    scale = (WIDTH - 2 * LEFT) / ((last - first) or 1.0)
    states = " or ".join("/".join(filter(None, map(str, state))) for state in counterexample.states)  # type: ignore[call-overload]
    parts = [f'<text x="{LEFT}" y="24" font-size="16" font-weight="600">{escape(counterexample.key)}</text>']
    subtitle = f"First state: {escape(states)}. Width: {last - first:.4f} s."
    parts.append(f'<text x="{LEFT}" y="44" fill="#667">{subtitle}</text>')
    for row, op in enumerate(ops):
        left, right = ((min(at, last) - first) * scale + LEFT for at in (op.start, op.end))
        parts.append(_draw_bar(op, left, max(right - left, 2), TOP + row * ROW, op is counterexample.wrong))
    return document(WIDTH, TOP + len(ops) * ROW + 20, parts)


def _draw_bar(op: Op, x: float, width: float, y: float, is_wrong: bool) -> str:
    fill = "#f4b9b9" if is_wrong else "#dbe7f4"
    bar = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" rx="4" fill="{fill}"/>'
    at, anchor = (x + 6, "start") if x < WIDTH / 2 else (x + width - 6, "end")
    return f'{bar}<text x="{at:.1f}" y="{y + 15}" text-anchor="{anchor}">{escape(f"{op.client}: {op}")}</text>'
