"""Draws the fault matrix: rows are edges, columns faults, a cell is its outcome; one page, no network."""

from __future__ import annotations

from html import escape
from typing import Any

from tests.saga.faults import Kind
from tests.saga.outcomes import declared

COLOURS = {
    "D": "#cfe8cf",
    "A": "#cfe8cf",
    "U": "#fde7c3",
    "u": "#fdf1dc",
    "E": "#dbe7f4",
    "N": "#e4e8ee",
    "?": "#f4b9b9",
}
MEANING = {
    "=": "told success",
    "5": "told: failed and undone",
    "3": "told: not known yet, or try again",
    "4": "told: refused",
    "†": "told nothing, the process died",
    "D": "done",
    "U": "undone",
    "u": "undone before there was an order or transfer",
    "E": "ended before its first step",
    "A": "that, and taken up again",
    "N": "nothing begun",
}
HEAD = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Fault matrix</title><style>
body{font:14px/1.45 system-ui;margin:1.5rem;max-width:78rem} table{border-collapse:collapse;font-size:12px;width:100%}
th,td{border:1px solid #c9ced6;padding:2px 5px;text-align:center} th:first-child,td:first-child{text-align:left}
th.k{writing-mode:vertical-rl;transform:rotate(180deg);font-weight:500;height:9.5rem} td.bad{outline:2px solid #c00}
.legend span{padding:1px 6px;border-radius:3px;margin-right:.5rem} div.scroll{overflow-x:auto}
</style>"""


def draw(report: dict[str, Any]) -> str:
    """The page for what `reports/saga.json` holds."""
    results = {(r["flow"], *_fault(r)): r for r in report["singles"]}
    flows = list(dict.fromkeys(flow for flow, _, _ in declared()))
    body = "".join(_table(flow, results) for flow in flows)
    return HEAD + _summary(report) + body


def _fault(result: dict[str, Any]) -> tuple[str, str]:
    edge, _, kind = result["faults"][0].rpartition(": ")
    return edge, kind


def _summary(report: dict[str, Any]) -> str:
    kinds = "".join(f'<span style="background:{COLOURS[c]}">{c} {MEANING[c]}</span>' for c in "DUuEAN")
    told = " · ".join(f"{c} {MEANING[c]}" for c in "=534†")
    counts = f"{report['executions']} executions: {report['cells']} cells, {report['pairs']} pairs of faults"
    gaps = f"{len(report['undeclared'])} undeclared, {len(report['unreached'])} unreached"
    return f'<h1>Every flow × edge × fault</h1><p>{counts}; {gaps}.</p><p class="legend">{kinds}</p><p>{told}</p>'


def _table(flow: str, results: dict[tuple[str, str, str], dict[str, Any]]) -> str:
    expected = {(edge, kind.value): code for (f, edge, kind), code in declared().items() if f == flow}
    heads = "".join(f'<th class="k">{escape(kind.value)}</th>' for kind in Kind)
    rows = ""
    for edge in dict.fromkeys(edge for edge, _ in expected):
        cells = (_cell(results.get((flow, edge, kind.value)), expected[edge, kind.value]) for kind in Kind)
        rows += f"<tr><td><code>{escape(edge)}</code></td>{''.join(cells)}</tr>"
    return f'<h2>{escape(flow)}</h2><div class="scroll"><table><tr><th>edge</th>{heads}</tr>{rows}</table></div>'


def _cell(result: dict[str, Any] | None, expected: str) -> str:
    code = result["code"] if result else "?"
    wrong = result is None or code != expected or result["violations"] or result["unfired"]
    title = escape(f"{result['told']}; {result['standing']}" if result else "not run")
    return f'<td class="{"bad" if wrong else ""}" style="background:{COLOURS[code[-1]]}" title="{title}">{code}</td>'
