"""The result table of the bench: a row for each figure, with its limit, its target and the previous figure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_WIDTHS = (48, 9, 6, 6, 7, 8, 6)  # of all columns but the last
_HEAD = ("ratio", "measured", "limit", "target", "verdict", "previous", "took", "details")


@dataclass(frozen=True)
class Row:
    """One ratio. Missing the `limit` fails the bench. Missing the `target` does not."""

    name: str
    measured: float
    limit: float
    target: float
    higher_is_better: bool
    raw: str = ""

    @property
    def verdict(self) -> str:
        """The best bound that the ratio meets: `target`, `limit`, or neither (`MISSED`)."""
        sign = 1 if self.higher_is_better else -1
        if sign * self.measured >= sign * self.target:
            return "target"
        return "limit" if sign * self.measured >= sign * self.limit else "MISSED"

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the verdict for reports/bench.json."""
        return {**asdict(self), "verdict": self.verdict}


def at_least(name: str, measured: float, limit: float, target: float, raw: str = "") -> Row:
    """Build the row of a ratio that should be high."""
    return Row(name, measured, limit, target, True, raw)


def at_most(name: str, measured: float, limit: float, target: float, raw: str = "") -> Row:
    """Build the row of a ratio that should be low."""
    return Row(name, measured, limit, target, False, raw)


@dataclass
class Table:
    """Collects the rows and prints each with the seconds since the last one.

    `previous` has the ratios of the last committed run by name.
    """

    previous: Mapping[str, float]
    rows: list[Row] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def note(self, step: str) -> None:
        """Print a step that is not a row."""
        self._print((step, "", "", "", "", "", self._seconds(), ""))

    def add(self, *rows: Row) -> None:
        """Collect and print rows."""
        if not self.rows:
            self._print(_HEAD)
        for row in rows:
            previous = self.previous.get(row.name)
            bounds = f"{row.limit:g}", f"{row.target:g}", row.verdict, "-" if previous is None else f"{previous:.4g}"
            self._print((row.name, f"{row.measured:.4g}", *bounds, self._seconds(), row.raw))
        self.rows += rows

    def _seconds(self) -> str:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return f"{seconds:.1f} s"

    def _print(self, cells: Sequence[str]) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells[:-1], _WIDTHS, strict=True)]
        print("  ".join([*padded, cells[-1]]).rstrip(), flush=True)
