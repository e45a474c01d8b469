"""The fault matrix from reports/saga.json: a row for each edge, a column for each fault, an outcome in each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RESPONSES = {
    "=": "success",
    "5": "500, failed and undone",
    "3": "503, outcome not known yet or try again",
    "4": "4xx, refused",
    "†": "no response, the process was killed",
}
"""First character of a cell: the response to the client."""

ENDS = {
    "D": "done",
    "U": "undone",
    "u": "undone before an order or transfer existed",
    "E": "ended before its first step",
    "A": "ended before its first step, then done by another attempt",
    "V": "ended before its first step, then undone by another attempt",
    "N": "no saga begun",
}
"""Second character of a cell: the end of the saga after recovery."""


@dataclass(frozen=True)
class Cell:
    """One execution: its two characters, and whether it differs from the expected outcome."""

    code: str
    is_wrong: bool

    @property
    def end(self) -> str:
        """The character for the end of the saga."""
        return self.code[-1]


@dataclass(frozen=True)
class Flow:
    """The table of one flow."""

    name: str
    kinds: list[str]
    rows: list[tuple[str, list[Cell | None]]]

    @property
    def wrong(self) -> int:
        """The number of cells that differ from the expected outcome."""
        return sum(cell is not None and cell.is_wrong for _, cells in self.rows for cell in cells)


def build_matrix(saga: Any) -> dict[str, Any] | None:
    """Return the matrix for the template, or None if saga.json is missing."""
    if not saga or "singles" not in saga:
        return None
    cells: dict[str, dict[tuple[str, str], Cell]] = {}
    for result in saga["singles"]:
        edge, _, kind = result["faults"][0].rpartition(": ")
        is_wrong = bool(result.get("wrong") or result["violations"] or result["unfired"])
        cells.setdefault(result["flow"], {})[edge, kind] = Cell(result["code"], is_wrong)
    flows = [_build_flow(name, found) for name, found in cells.items()]
    return {**_count(saga), "flows": flows, "ends": ENDS, "responses": RESPONSES}


def _build_flow(name: str, cells: dict[tuple[str, str], Cell]) -> Flow:
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    edges = dict.fromkeys(edge for edge, _ in cells)
    return Flow(name, kinds, [(edge, [cells.get((edge, kind)) for kind in kinds]) for edge in edges])


def _count(saga: dict[str, Any]) -> dict[str, int]:
    sizes = {name: len(saga[name]) for name in ("undeclared", "unreached")}
    return {name: saga[name] for name in ("executions", "cells", "pairs")} | sizes
