"""The explored pairs of flows from reports/interleavings.json: a row and a column for each actor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Cell:
    """The schedules of two actors, in all situations and modes."""

    schedules: int = 0
    has_exception: bool = False
    is_wrong: bool = False


def build_pairs(content: Any) -> dict[str, Any] | None:
    """Return the picture for the template, or None if interleavings.json is missing."""
    if not content:
        return None
    cells: dict[tuple[str, str], Cell] = {}
    for search in content["searches"].values():
        cell = cells.setdefault((search["a"], search["b"]), Cell())
        cell.schedules += search["schedules"]
        cell.has_exception |= bool(search["exceptions"])
        cell.is_wrong |= bool(search["failures"])
    columns = list(dict.fromkeys(b for _, b in cells))
    rows = [(a, [cells.get((a, b)) for b in columns]) for a in dict.fromkeys(a for a, _ in cells)]
    return {**content, "columns": columns, "rows": rows}
