"""The table: what was asked for, what was measured, and how far apart the two are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One row. `gate` has to be met, `reach` is to be striven for; `more` tells which side of them is the good one."""

    name: str
    measured: float
    gate: float
    reach: float
    more: bool
    raw: str = ""

    @property
    def verdict(self) -> str:
        """`reach`, `gate` or `MISSED`."""
        sign = 1 if self.more else -1
        if sign * self.measured >= sign * self.reach:
            return "reach"
        return "gate" if sign * self.measured >= sign * self.gate else "MISSED"

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        return {**asdict(self), "verdict": self.verdict}


def at_least(name: str, measured: float, gate: float, reach: float, raw: str = "") -> Line:
    """A line that is the better the more it measures."""
    return Line(name, measured, gate, reach, True, raw)


def at_most(name: str, measured: float, gate: float, reach: float, raw: str = "") -> Line:
    """A line that is the better the less it measures."""
    return Line(name, measured, gate, reach, False, raw)


def as_text(lines: Sequence[Line], before: dict[str, float]) -> str:
    """The table for people; `before` holds what the baseline measured, by name."""
    rows = [("", "measured", "gate", "reach", "verdict", "baseline", "raw")]
    for line in lines:
        was = before.get(line.name)
        then = f"{was:.4g}" if was is not None else "-"
        rows.append(
            (line.name, f"{line.measured:.4g}", f"{line.gate:g}", f"{line.reach:g}", line.verdict, then, line.raw)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
