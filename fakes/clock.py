"""The time a fake lives in: the wall clock moved by an offset, or one frozen instant."""

import time
from datetime import UTC, datetime
from typing import Any

LAST = datetime(3000, 1, 1, tzinfo=UTC).timestamp()


class Clock:
    """Times are seconds since the epoch. A frozen clock stands still until it is moved or thawed."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None

    @property
    def frozen(self) -> bool:
        return self._frozen is not None

    def now(self) -> float:
        return time.time() + self._offset if self._frozen is None else self._frozen

    def advance(self, seconds: float) -> None:
        """Move by `seconds` (negative: back), whether the clock runs or stands; ValueError when too far."""
        _datable(self.now() + seconds)
        if self._frozen is None:
            self._offset += seconds
        else:
            self._frozen += seconds

    def freeze(self, at: float | None = None) -> None:
        """Stand still at `at`, by default at this very moment; raises ValueError when no date has that time."""
        self._frozen = _datable(self.now() if at is None else at)

    def thaw(self) -> None:
        """Run on from where the clock stood, so that no time is skipped."""
        if self._frozen is not None:
            self._offset, self._frozen = self._frozen - time.time(), None

    def dump(self) -> dict[str, Any]:
        return {"offset": self._offset, "frozen": self._frozen}

    def load(self, dumped: dict[str, Any]) -> None:
        offset, frozen = float(dumped["offset"]), dumped["frozen"]
        _datable(time.time() + offset)
        self._frozen = None if frozen is None else _datable(float(frozen))
        self._offset = offset


def _datable(seconds: float) -> float:
    if not 0 <= seconds < LAST:  # false for NaN too
        raise ValueError("the clock goes from 1970 to 2999")
    return seconds


def iso(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
