"""The fault matrix out of reports/saga.json: rows are edges, columns faults, a cell is its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ENDS = {
    "D": "done",
    "U": "undone",
    "u": "undone before there was an order or transfer",
    "E": "ended before its first step",
    "A": "that, and taken up again",
    "N": "nothing begun",
}
TOLD = {
    "=": "told success",
    "5": "told: failed and undone",
    "3": "told: not known yet, or try again",
    "4": "told: refused",
    "†": "told nothing, the process died",
}


@dataclass(frozen=True)
class Cell:
    """One execution: its two characters, and whether it is as declared."""

    code: str
    wrong: bool

    @property
    def end(self) -> str:
        """How it ended."""
        return self.code[-1]


@dataclass(frozen=True)
class Flow:
    """One flow's table."""

    name: str
    kinds: list[str]
    rows: list[tuple[str, list[Cell | None]]]

    @property
    def wrong(self) -> int:
        """How many cells are not as declared."""
        return sum(cell is not None and cell.wrong for _, cells in self.rows for cell in cells)


def of(saga: Any) -> dict[str, Any] | None:
    """The matrix for the template, or None when no run has left one."""
    if not saga or "singles" not in saga:
        return None
    cells: dict[str, dict[tuple[str, str], Cell]] = {}
    for result in saga["singles"]:
        edge, _, kind = result["faults"][0].rpartition(": ")
        wrong = bool(result.get("wrong") or result["violations"] or result["unfired"])
        cells.setdefault(result["flow"], {})[edge, kind] = Cell(result["code"], wrong)
    return {**_counts(saga), "flows": [_flow(name, found) for name, found in cells.items()], "ends": ENDS, "told": TOLD}


def _flow(name: str, cells: dict[tuple[str, str], Cell]) -> Flow:
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    edges = dict.fromkeys(edge for edge, _ in cells)
    return Flow(name, kinds, [(edge, [cells.get((edge, kind)) for kind in kinds]) for edge in edges])


def _counts(saga: dict[str, Any]) -> dict[str, int]:
    sizes = {name: len(saga[name]) for name in ("undeclared", "unreached")}
    return {name: saga[name] for name in ("executions", "cells", "pairs")} | sizes
