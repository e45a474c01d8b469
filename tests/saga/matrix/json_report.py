"""Writes the results of a full run: reports/saga.json for programs and reports/saga.html for readers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.saga.in_process.faults import RECOVERY
from tests.saga.matrix.html_report import build_page
from tests.saga.matrix.verify_outcome import EXPECTED, Result, cell_of, find_problems, format_cell

FIELDS_OF_A_PAIR = ("flow", "faults", "code", "response", "wrong")


def write(reports: Path, results: Sequence[Result]) -> None:
    """Write both files for the results of all cells and pairs."""
    reports.mkdir(exist_ok=True)
    report = build_report(results)
    (reports / "saga.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))
    (reports / "saga.html").write_text(build_page(report))


def build_report(results: Sequence[Result]) -> dict[str, Any]:
    """Return the counts, every cell in full, and every pair in short."""
    described = [{**result, **_describe_faults(result)} for result in results]
    singles = [result for result in described if len(result["faults"]) == 1]
    pairs = [result for result in described if len(result["faults"]) == 2]
    differences = compare_edges([result for result in results if not result["faults"]])
    unknown_ends = [format_cell(cell_of(result)) for result in results if result["code"].endswith("?")]
    unfired = [format_cell(cell_of(result)) for result in results if result["unfired"]]
    return {
        "executions": len(results),
        "cells": len(singles),
        "pairs": len(pairs),
        "undeclared": differences["undeclared"] + unknown_ends,
        "unreached": differences["unreached"] + unfired,
        "singles": singles,
        "paired": [{name: result[name] for name in FIELDS_OF_A_PAIR} for result in pairs],
    }


def compare_edges(results: Iterable[Result]) -> dict[str, list[str]]:
    """Compare the edges of executions without faults with the table, in both directions."""
    seen = {(r["flow"], edge) for r in results for edge in r["seen"] if not edge.startswith(RECOVERY)}
    flows = {flow for flow, _ in seen}
    known = {(flow, edge) for flow, edge, _ in EXPECTED if flow in flows}
    return {"undeclared": _format_edges(seen - known), "unreached": _format_edges(known - seen)}


def _format_edges(edges: Iterable[tuple[str, str]]) -> list[str]:
    return sorted(" | ".join(edge) for edge in edges)


def _describe_faults(result: Result) -> dict[str, Any]:
    return {"faults": [f"{edge}: {kind}" for edge, kind in result["faults"]], "wrong": find_problems(result)}
