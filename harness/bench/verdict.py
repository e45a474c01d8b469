"""The table: what was asked for, what was measured, and how far apart the two are; printed row by row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_WIDTHS = (38, 9, 6, 6, 7, 8, 6)  # of the columns; what was measured raw comes last and is as long as it is
_HEAD = ("", "measured", "gate", "reach", "verdict", "baseline", "took", "raw")


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


@dataclass
class Table:
    """Prints each line as it comes, with the seconds since the one before; `baseline` is what was measured, by name."""

    baseline: Mapping[str, float]
    lines: list[Line] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        """A step that is no row."""
        self._print((what, "", "", "", "", "", self._seconds(), ""))

    def add(self, *lines: Line) -> None:
        """Keep and print."""
        if not self.lines:
            self._print(_HEAD)
        for line in lines:
            was = self.baseline.get(line.name)
            bounds = f"{line.gate:g}", f"{line.reach:g}", line.verdict, "-" if was is None else f"{was:.4g}"
            self._print((line.name, f"{line.measured:.4g}", *bounds, self._seconds(), line.raw))
        self.lines += lines

    def _seconds(self) -> str:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return f"{seconds:.1f} s"

    def _print(self, cells: Sequence[str]) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells[:-1], _WIDTHS, strict=True)]
        print("  ".join([*padded, cells[-1]]).rstrip(), flush=True)
