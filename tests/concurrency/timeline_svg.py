"""A counterexample as a picture: an operation a bar, from its call to its answer."""

from __future__ import annotations

from html import escape

from harness.report.charts import document
from tests.concurrency.linearizability import NEVER, Counterexample, Op

WIDTH, ROW, LEFT, TOP = 920, 30, 20, 60


def timeline(counterexample: Counterexample) -> str:
    """An SVG document; the answer that nothing explains is red."""
    ops = counterexample.ops
    first, last = min(o.call for o in ops), max(o.back if o.back < NEVER else o.call for o in ops)
    scale = (WIDTH - 2 * LEFT) / ((last - first) or 1.0)
    where = " or ".join("/".join(filter(None, map(str, state))) for state in counterexample.states)  # type: ignore[call-overload]
    parts = [f'<text x="{LEFT}" y="24" font-size="16" font-weight="600">{escape(counterexample.key)}</text>']
    parts.append(f'<text x="{LEFT}" y="44" fill="#667">{escape(where)}; {last - first:.4f} s from left to right</text>')
    for row, op in enumerate(ops):
        left, right = ((min(at, last) - first) * scale + LEFT for at in (op.call, op.back))
        parts.append(_bar(op, left, max(right - left, 2), TOP + row * ROW, op is counterexample.wrong))
    return document(WIDTH, TOP + len(ops) * ROW + 20, parts)


def _bar(op: Op, x: float, width: float, y: float, wrong: bool) -> str:
    fill = "#f4b9b9" if wrong else "#dbe7f4"
    bar = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="22" rx="4" fill="{fill}"/>'
    at, anchor = (x + 6, "start") if x < WIDTH / 2 else (x + width - 6, "end")
    return f'{bar}<text x="{at:.1f}" y="{y + 15}" text-anchor="{anchor}">{escape(f"{op.client}: {op}")}</text>'
