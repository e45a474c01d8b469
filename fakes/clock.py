"""The clock of a fake: the wall clock plus an offset, or one frozen time."""

import time
from datetime import UTC, datetime
from typing import Any

LAST = datetime(3000, 1, 1, tzinfo=UTC).timestamp()


class Clock:
    """A clock in seconds since the epoch. A frozen clock changes only when it is moved or thawed."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None

    @property
    def is_frozen(self) -> bool:
        return self._frozen is not None

    def now(self) -> float:
        return time.time() + self._offset if self._frozen is None else self._frozen

    def advance(self, seconds: float) -> None:
        """Move by `seconds`, which may be negative. Raises ValueError outside the years 1970 to 2999."""
        _check_date(self.now() + seconds)
        if self._frozen is None:
            self._offset += seconds
        else:
            self._frozen += seconds

    def freeze(self, at: float | None = None) -> None:
        """Freeze the clock at `at` (default: now). Raises ValueError outside the years 1970 to 2999."""
        self._frozen = _check_date(self.now() if at is None else at)

    def thaw(self) -> None:
        """Run on from the frozen time, so that no time is skipped."""
        if self._frozen is not None:
            self._offset, self._frozen = self._frozen - time.time(), None

    def dump(self) -> dict[str, Any]:
        return {"offset": self._offset, "frozen": self._frozen}

    def load(self, dumped: dict[str, Any]) -> None:
        offset, frozen = float(dumped["offset"]), dumped["frozen"]
        _check_date(time.time() + offset)
        self._frozen = None if frozen is None else _check_date(float(frozen))
        self._offset = offset


def _check_date(seconds: float) -> float:
    if not 0 <= seconds < LAST:  # false for NaN too
        raise ValueError("the clock must be between the years 1970 and 2999")
    return seconds


def iso(seconds: float) -> str:
    """Format as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
