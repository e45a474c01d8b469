"""How often each invariant was checked in a run, by all its processes.

A run creates one `InvariantCounter`. Every process below it that checks invariants adds its counts when it
ends. Without one, nothing is kept.
"""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

_VARIABLE = "TR_INVARIANT_COUNTS"
_counts: Counter[str] = Counter()


def count(checks: list[str], *, at_rest: bool) -> None:
    """These were checked once more; `at_rest` the end of every saga as well."""
    if not _counts and _VARIABLE in os.environ:
        atexit.register(_write_counts, os.getpid())
    _counts.update([*checks, "i7_sagas_end"] if at_rest else checks)


def _write_counts(pid: int) -> None:
    directory = Path(os.environ.get(_VARIABLE, ""))
    if os.getpid() == pid and directory.is_dir():
        (directory / f"{pid}.json").write_text(json.dumps(_counts))


class InvariantCounter:
    """Counts of this process, and of its children that have ended."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ticketremaster-invariant-counts-")
        os.environ[_VARIABLE] = self._directory.name

    def close(self) -> None:
        """Nobody counts any more."""
        os.environ.pop(_VARIABLE, None)
        self._directory.cleanup()

    def totals(self) -> dict[str, int]:
        """Checks by name."""
        total = Counter(_counts)
        for path in Path(self._directory.name).glob("*.json"):
            total.update(json.loads(path.read_text()))
        return dict(sorted(total.items()))
