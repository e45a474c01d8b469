"""Count how often all processes of a run checked each invariant.

A run creates one `InvariantCounter`. Every child process that checks invariants writes its counts when it ends.
Without an `InvariantCounter`, no counts are written.
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
    """Add one check of each name. `at_rest` also counts the check that every saga has ended."""
    if not _counts and _VARIABLE in os.environ:
        atexit.register(_write_counts, os.getpid())
    _counts.update([*checks, "i7_sagas_end"] if at_rest else checks)


def _write_counts(pid: int) -> None:
    directory = os.environ.get(_VARIABLE)  # unset after the run, and in a fork of this process the pid differs
    if os.getpid() == pid and directory and Path(directory).is_dir():
        Path(directory, f"{pid}.json").write_text(json.dumps(_counts))


class InvariantCounter:
    """The counts of this process and of its children that have ended."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ticketremaster-invariant-counts-")
        os.environ[_VARIABLE] = self._directory.name

    def close(self) -> None:
        """Delete the counts and stop counting."""
        os.environ.pop(_VARIABLE, None)
        self._directory.cleanup()

    def totals(self) -> dict[str, int]:
        """Return the number of checks by name."""
        total = Counter(_counts)
        for path in Path(self._directory.name).glob("*.json"):
            total.update(json.loads(path.read_text()))
        return dict(sorted(total.items()))
