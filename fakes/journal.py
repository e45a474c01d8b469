"""The calls of a fake and its answers, in order of arrival, with secrets masked.

The journal contains no wall time, so the same seed and calls give the same bytes. Under a frozen clock, each call
has its time.
"""

from typing import Any

MAX_CALLS = 10_000
MASK = "***"


def mask(value: Any, secret: frozenset[str], phone: frozenset[str]) -> Any:
    """Hide the fields in `secret`, and cut those in `phone` to their first and last digits."""
    if isinstance(value, dict):
        return {k: _mask_field(k, v, secret, phone) for k, v in value.items()}
    if isinstance(value, list):
        return [mask(item, secret, phone) for item in value]
    return value


def _mask_field(name: str, value: Any, secret: frozenset[str], phone: frozenset[str]) -> Any:
    if name in secret and value:
        return MASK
    if name in phone and isinstance(value, str):
        return value[:3] + MASK + value[-4:] if len(value) > 8 else MASK
    return mask(value, secret, phone)


class Journal:
    """The latest `MAX_CALLS` calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._arrived = 0

    def open(self, **call: Any) -> dict[str, Any]:
        """Add a call on arrival. The caller adds the answer to the returned entry."""
        self._arrived += 1
        entry = {"n": self._arrived, **call, "fault": None, "status": None, "answer": None}
        self.calls.append(entry)
        del self.calls[:-MAX_CALLS]
        return entry

    def clear(self) -> None:
        self.calls.clear()
        self._arrived = 0

    def dump(self) -> dict[str, Any]:
        return {"arrived": self._arrived, "calls": [dict(call) for call in self.calls]}

    def load(self, dumped: dict[str, Any]) -> None:
        self._arrived, self.calls = int(dumped["arrived"]), [dict(call) for call in dumped["calls"]]
