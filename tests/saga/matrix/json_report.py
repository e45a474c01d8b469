"""What a whole run of the matrix leaves behind: reports/saga.json for programs, reports/saga.html for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.saga.in_process.faults import RECOVERY
from tests.saga.matrix.html_report import draw
from tests.saga.matrix.verify_outcome import DECLARED, Result, cell_of, named, wrongs

BRIEF = ("flow", "faults", "code", "told", "wrong")


def write(reports: Path, results: Sequence[Result]) -> None:
    """Both files, for the results of all cells and pairs."""
    reports.mkdir(exist_ok=True)
    report = summary(results)
    (reports / "saga.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    (reports / "saga.html").write_text(draw(report))


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The report: the counts on top, then every cell, and every pair in brief."""
    clean = [result for result in results if not result["faults"]]
    told = [{**result, **_in_words(result)} for result in results]
    singles = [result for result in told if len(result["faults"]) == 1]
    pairs = [result for result in told if len(result["faults"]) == 2]
    apart = edges_apart(clean)
    return {
        "executions": len(results),
        "cells": len(singles),
        "pairs": len(pairs),
        "undeclared": apart["undeclared"] + [named(cell_of(r)) for r in results if r["code"].endswith("?")],
        "unreached": apart["unreached"] + [named(cell_of(r)) for r in results if r["unfired"]],
        "singles": singles,
        "paired": [{name: result[name] for name in BRIEF} for result in pairs],
    }


def edges_apart(clean: Iterable[Result]) -> dict[str, list[str]]:
    """What the wire shows of some flows and the table does not declare, and the other way about."""
    seen = {(r["flow"], edge) for r in clean for edge in r["seen"] if not edge.startswith(RECOVERY)}
    flows = {flow for flow, _ in seen}
    known = {(flow, edge) for flow, edge, _ in DECLARED if flow in flows}
    return {"undeclared": _named(seen - known), "unreached": _named(known - seen)}


def _named(edges: Iterable[tuple[str, str]]) -> list[str]:
    return sorted(" | ".join(edge) for edge in edges)


def _in_words(result: Result) -> dict[str, Any]:
    return {"faults": [f"{edge}: {kind}" for edge, kind in result["faults"]], "wrong": wrongs(result)}
