"""The result table of the bench: a row for each figure, with its interval, its bounds and the previous figure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from harness.bench.interval import bootstrap_interval

RATE, TIME, INSTRUCTIONS, CPU_TIME = "rate", "time", "instructions", "CPU time"
MIN_ROUNDS = 3
_WIDTHS = (52, 9, 7, 12, 8, 8, 8, 9, 9, 7)  # of all columns but the last
_HEAD = ("ratio", "measured", "±", "unit", "served", "limit", "target", "verdict", "previous", "took", "details")

Key = tuple[str, str]
"""The name and the unit of a row. Rows of two units are never compared."""


@dataclass(frozen=True)
class Bounds:
    """The limit and the target of a ratio. Missing the `limit` fails the bench. Missing the `target` does not."""

    limit: float
    target: float
    is_higher_better: bool


def at_least(limit: float, target: float) -> Bounds:
    """Return the bounds of a ratio that should be high."""
    return Bounds(limit, target, True)


def at_most(limit: float, target: float) -> Bounds:
    """Return the bounds of a ratio that should be low."""
    return Bounds(limit, target, False)


@dataclass(frozen=True)
class Row:
    """One ratio with a value for each round.

    `unit` names what the ratio compares: rates, latencies, instructions or CPU time. Without `bounds`, the row only
    informs. `served_by` is the number of processes that served it.
    """

    name: str
    rounds: Sequence[float]
    unit: str
    served_by: int
    bounds: Bounds | None = None
    raw: str = ""

    @property
    def measured(self) -> float:
        """The median over the rounds."""
        return median(self.rounds)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the median."""
        return bootstrap_interval(self.rounds)

    @property
    def spread(self) -> float:
        """Half of the interval, as a share of the median."""
        low, high = self.interval
        return (high - low) / 2 / self.measured if self.measured else 0.0

    @property
    def verdict(self) -> str:
        """The best bound that the median meets, `MISSED`, or `noisy`.

        A `noisy` row misses the limit, but a part of its interval does not, or it has too few rounds for an interval.
        """
        if self.bounds is None:
            return "-"
        sign, (low, high) = (1 if self.bounds.is_higher_better else -1), self.interval
        best = high if self.bounds.is_higher_better else low
        if sign * self.measured >= sign * self.bounds.target:
            return "target"
        if sign * self.measured >= sign * self.bounds.limit:
            return "limit"
        is_noisy = len(self.rounds) < MIN_ROUNDS or sign * best >= sign * self.bounds.limit
        return "noisy" if is_noisy else "MISSED"

    @property
    def key(self) -> Key:
        """The name and unit, by which a baseline finds the row."""
        return self.name, self.unit

    def as_json(self) -> dict[str, Any]:
        """Return the row for reports/bench.json."""
        bounds = asdict(self.bounds) if self.bounds else None
        found = {"name": self.name, "unit": self.unit, "measured": self.measured, "interval": self.interval}
        return {**found, "rounds": list(self.rounds), "served_by": self.served_by, "bounds": bounds} | {
            "verdict": self.verdict,
            "raw": self.raw,
        }


@dataclass
class Table:
    """Collects the rows and prints each with the seconds since the last one.

    `previous` has the ratios of the last committed run.
    """

    previous: Mapping[Key, float]
    rows: list[Row] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    @property
    def is_missed(self) -> bool:
        """Whether a row misses its limit."""
        return any(row.verdict == "MISSED" for row in self.rows)

    def note(self, step: str) -> None:
        """Print a step that is not a row."""
        self._print((step, *[""] * 8, self._seconds(), ""))

    def add(self, *rows: Row) -> None:
        """Collect and print rows."""
        if not self.rows:
            self._print(_HEAD)
        for row in rows:
            bounds = (f"{row.bounds.limit:g}", f"{row.bounds.target:g}") if row.bounds else ("-", "-")
            previous = self.previous.get(row.key)
            found = f"{row.measured:.4g}", f"{100 * row.spread:.0f} %", row.unit, str(row.served_by), *bounds
            then = "-" if previous is None else f"{previous:.4g}"
            self._print((row.name, *found, row.verdict, then, self._seconds(), row.raw))
        self.rows += rows

    def _seconds(self) -> str:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return f"{seconds:.1f} s"

    def _print(self, cells: Sequence[str]) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells[:-1], _WIDTHS, strict=True)]
        print("  ".join([*padded, cells[-1]]).rstrip(), flush=True)
