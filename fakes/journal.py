"""Every call that a fake got and what it answered, in the order of arrival, secrets masked.

No wall time is written, so that the same seed and the same calls give the same bytes; under a frozen
clock each call also says when it came.
"""

from typing import Any

LIMIT = 10_000
MASK = "***"


def masked(value: Any, secret: frozenset[str], phone: frozenset[str]) -> Any:
    """`value` with the fields named in `secret` hidden and those in `phone` cut to their ends."""
    if isinstance(value, dict):
        return {k: _field(k, v, secret, phone) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(item, secret, phone) for item in value]
    return value


def _field(name: str, value: Any, secret: frozenset[str], phone: frozenset[str]) -> Any:
    if name in secret and value:
        return MASK
    if name in phone and isinstance(value, str):
        return value[:3] + MASK + value[-4:] if len(value) > 8 else MASK
    return masked(value, secret, phone)


class Journal:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._arrived = 0

    def open(self, **call: Any) -> dict[str, Any]:
        """Note a call on arrival; the entry returned is filled in when the answer is known."""
        self._arrived += 1
        entry = {"n": self._arrived, **call, "fault": None, "status": None, "answer": None}
        self.calls.append(entry)
        del self.calls[:-LIMIT]
        return entry

    def clear(self) -> None:
        self.calls.clear()
        self._arrived = 0

    def dump(self) -> dict[str, Any]:
        return {"arrived": self._arrived, "calls": [dict(call) for call in self.calls]}

    def load(self, dumped: dict[str, Any]) -> None:
        self._arrived, self.calls = int(dumped["arrived"]), [dict(call) for call in dumped["calls"]]
