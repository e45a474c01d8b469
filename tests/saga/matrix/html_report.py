"""Builds the HTML page of the fault matrix: a row for each edge, a column for each fault, an outcome in each cell.

A click on a cell shows its response, its end state and the command that repeats it. The columns on the right count the
pairs of faults. A click on a count shows the outcome of each pair. The page needs no network.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from harness.report.matrix import ENDS, RESPONSES
from tests.saga.in_process.faults import Kind
from tests.saga.matrix.spec_rows import describe_row
from tests.saga.matrix.verify_outcome import EXPECTED, SECOND_FAULTS, replay_command

COLOURS = {
    "D": "#cfe8cf",
    "A": "#cfe8cf",
    "V": "#fde7c3",
    "U": "#fde7c3",
    "u": "#fdf1dc",
    "E": "#dbe7f4",
    "N": "#e4e8ee",
    "?": "#f4b9b9",
}
MEANING = RESPONSES | ENDS
HEAD = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Fault matrix</title><style>
body{font:14px/1.45 system-ui;margin:1.5rem auto 16rem;max-width:86rem;padding:0 1rem;color:#1c2733}
h2{margin:2.2rem 0 .4rem} h3{margin:1rem 0 .3rem;font-size:13px} table{border-collapse:collapse;font-size:12px}
th,td{border:1px solid #c9ced6;padding:2px 6px;text-align:center} th:first-child,td:first-child{text-align:left}
.gap{border-width:0 1px;background:#fff} td.q{text-align:left;color:#55606d;border:0;padding-left:.8rem;max-width:26rem}
th.k{writing-mode:vertical-rl;transform:rotate(180deg);font-weight:500;height:10rem}
td a{display:block;color:inherit;text-decoration:none} td.bad{outline:3px solid #c00}
.legend span{padding:1px 8px;border-radius:3px;margin-right:.5rem;display:inline-block} div.scroll{overflow-x:auto}
.case{display:none} .case:target{display:block;position:fixed;left:0;right:0;bottom:0;max-height:15rem;overflow:auto;
background:#fff;border-top:3px solid #4a6785;padding:.6rem 1.5rem;box-shadow:0 -6px 18px #0003}
.case pre{background:#f2f4f7;padding:.3rem .6rem;margin:.3rem 0;white-space:pre-wrap}
.case ul{columns:2;padding-left:1rem}
</style>"""


def build_page(report: dict[str, Any]) -> str:
    """Return the page for the content of reports/saga.json."""
    flows = list(dict.fromkeys(flow for flow, _, _ in EXPECTED))
    return HEAD + _summary(report) + "".join(_flow(flow, report) for flow in flows)


def _summary(report: dict[str, Any]) -> str:
    ends = "".join(f'<span style="background:{COLOURS[c]}">{c} {MEANING[c]}</span>' for c in "DUuEAVN")
    responses = " · ".join(f"<b>{c}</b> {MEANING[c]}" for c in "=534†")
    counts = f"{report['executions']} executions: {report['cells']} cells, {report['pairs']} pairs of faults"
    gaps = f"{len(report['undeclared'])} undeclared, {len(report['unreached'])} unreached"
    wrong = sum(bool(result["wrong"]) for result in (*report["singles"], *report["paired"]))
    return f"""<h1>Every flow × edge × fault</h1>
<p>{counts}. {gaps}. <b>{wrong} differ from the expected outcome</b>. Recovery and every invariant check follow each
execution. Click a cell to see its details and the command that repeats it. The columns on the right count the second
faults, during the request or during recovery.</p><p class="legend">{ends}</p><p>{responses}</p>"""


def _flow(flow: str, report: dict[str, Any]) -> str:
    singles = {_faults(r)[0]: r for r in report["singles"] if r["flow"] == flow}
    pairs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in report["paired"]:
        if result["flow"] == flow:
            pairs.setdefault(_faults(result)[0], []).append(result)
    edges = dict.fromkeys(edge for f, edge, _ in EXPECTED if f == flow)
    rows = "".join(_row(flow, edge, singles, pairs) for edge in edges)
    return f"""<h2 id="{_anchor(flow)}">{escape(flow)}</h2>
<div class="scroll"><table><tr><th>edge</th>{_heads(Kind)}<th class="gap"></th>
{_heads(SECOND_FAULTS, ", then a second fault")}</tr>
{rows}</table></div>{"".join(_case(result) for result in singles.values())}
{"".join(_pairs_case(flow, first, results) for first, results in pairs.items())}"""


def _heads(kinds: Iterable[Kind], more: str = "") -> str:
    return "".join(f'<th class="k">{escape(kind.value + more)}</th>' for kind in kinds)


def _row(flow: str, edge: str, singles: Any, pairs: Any) -> str:
    cells = "".join(_cell(flow, edge, kind, singles) for kind in Kind)
    pair_cells = "".join(_pairs_cell(flow, edge, kind, pairs) for kind in SECOND_FAULTS)
    gap, row = '<td class="gap"></td>', escape(describe_row(flow, edge))
    return f"""<tr><td><code>{escape(edge)}</code></td>{cells}{gap}{pair_cells}<td class="q">{row}</td></tr>"""


def _cell(flow: str, edge: str, kind: Kind, singles: Any) -> str:
    result = singles.get((edge, kind.value))
    code = result["code"] if result else "?"
    title = escape(f"{kind.value}: {MEANING.get(code[0], '')}, {MEANING.get(code[-1], '')}")
    return _linked_cell(_anchor(flow, edge, kind.value), code, COLOURS[code[-1]], title, not result or result["wrong"])


def _pairs_cell(flow: str, edge: str, kind: Kind, pairs: Any) -> str:
    results = pairs.get((edge, kind.value), [])
    if not results:
        return "<td>–</td>"
    wrong = sum(bool(result["wrong"]) for result in results)
    title = f"{len(results)} second faults, {wrong} with a wrong outcome"
    colour = COLOURS["?" if wrong else "D"]
    return _linked_cell(_anchor(flow, edge, kind.value, "then"), str(len(results)), colour, title, wrong)


def _linked_cell(anchor: str, text: str, colour: str, title: str, bad: object) -> str:
    mark = ' class="bad"' if bad else ""
    return f'<td{mark} style="background:{colour}" title="{title}"><a href="#{anchor}">{text}</a></td>'


def _case(result: dict[str, Any]) -> str:
    cell = (result["flow"], _faults(result))
    [(edge, kind)] = cell[1]
    wrong = "".join(f"<p><b>{escape(line)}</b></p>" for line in result["wrong"])
    state = " · ".join(f"{name} {value}" for name, value in result["end_state"].items())
    return f"""<div class="case" id="{_anchor(result["flow"], edge, kind)}"><b>{escape(result["flow"])}</b>,
<code>{escape(edge)}</code>: {escape(kind)}{wrong}<pre>{escape(replay_command(cell))}</pre>
Response: {escape(result["response"])}. {escape(state)}. Journal: {escape(", ".join(result["sagas"]) or "empty")}.<br>
Calls: {escape(" → ".join(result["seen"]))}</div>"""


def _pairs_case(flow: str, first: tuple[str, str], results: list[dict[str, Any]]) -> str:
    lines = "".join(f"<li>{_second(result)}</li>" for result in results)
    return f"""<div class="case" id="{_anchor(flow, *first, "then")}"><b>{escape(flow)}</b>,
<code>{escape(first[0])}</code>: {escape(first[1])}, then<ul>{lines}</ul></div>"""


def _second(result: dict[str, Any]) -> str:
    faults = _faults(result)
    edge, kind = faults[1]
    line = f"<code>{escape(edge)}</code> {escape(kind)}: {result['code']}"
    if not result["wrong"]:
        return line
    command = escape(replay_command((result["flow"], faults)))
    return f"{line} <b>{escape('; '.join(result['wrong']))}</b> <pre>{command}</pre>"


def _faults(result: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return (edge, kind) of each fault. The name of an edge of recovery contains the separator, too."""
    return tuple((edge, kind) for edge, _, kind in (fault.rpartition(": ") for fault in result["faults"]))


def _anchor(*parts: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in "--".join(parts))
