"""The table of scripted faults. The control plane fills it, and `fault_middleware` plays it."""

from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

# The effect of the call happens never for the first two kinds and always for the next three. For `hang` and
# `status`, the field `effect` decides.
KINDS = ("refuse", "reset", "late", "truncate", "drop", "hang", "status")
MAX_MS = 600_000
EFFECT_BY_DEFAULT = {"hang": True, "status": False}


@dataclass
class Fault:
    """One scripted fault.

    It hits `count` matching calls in a row (0: without limit), from the `nth` after it was set (1: the next).
    `ms` is milliseconds.
    """

    kind: str
    method: str = "*"
    path: str = "*"
    where: dict[str, Any] = field(default_factory=dict)
    nth: int = 1
    count: int = 1
    ms: int = 0
    status: int = 503
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    effect: bool | None = None
    id: int = 0
    seen: int = 0
    fired: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError with the invalid field."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        if self.effect is None:
            self.effect = EFFECT_BY_DEFAULT.get(self.kind)
        elif self.kind not in EFFECT_BY_DEFAULT:
            raise ValueError(f"kind {self.kind} has no field effect")
        if self.nth < 1 or self.count < 0 or not 0 <= self.ms <= MAX_MS or not 200 <= self.status <= 599:
            raise ValueError(f"nth must be at least 1, count at least 0, ms 0 to {MAX_MS}, status 200 to 599")

    def matches(self, method: str, path: str, sent: dict[str, Any]) -> bool:
        if self.method not in ("*", method) or not fnmatchcase(path, self.path):
            return False
        return all(sent.get(name) == value for name, value in self.where.items())

    def is_due(self) -> bool:
        """Whether the fault hits the call that was just counted in `seen`."""
        return self.seen >= self.nth and (self.count == 0 or self.seen < self.nth + self.count)


TYPES: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "method": str,
    "path": str,
    "where": dict,
    "nth": int,
    "count": int,
    "ms": int,
    "status": int,
    "body": object,
    "headers": dict,
    "effect": bool,
}


def parse_fault(raw: Any) -> Fault:
    """Parse a fault from JSON. Raises ValueError for an unknown field or a wrong type."""
    if not isinstance(raw, dict) or "kind" not in raw:
        raise ValueError("send an object with a kind")
    for name, value in raw.items():
        if name not in TYPES:
            raise ValueError(f"unknown field {name}. The fields are {', '.join(TYPES)}")
        if not isinstance(value, TYPES[name]) or (TYPES[name] is int and isinstance(value, bool)):
            raise ValueError(f"{name} has the wrong type")
    return Fault(**raw)


class FaultTable:
    """The faults in their order. Each matching fault counts the call, and the first due one hits it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._last_id = 0

    def add(self, fault: Fault) -> Fault:
        self._last_id += 1
        fault.id = self._last_id
        self._faults.append(fault)
        return fault

    def take_due(self, method: str, path: str, sent: dict[str, Any]) -> Fault | None:
        """Count a call and return the fault that hits it, if any."""
        hit = None
        for fault in self._faults:
            if fault.matches(method, path, sent):
                fault.seen += 1
                hit = fault if hit is None and fault.is_due() else hit
        if hit is not None:
            hit.fired += 1
        return hit

    def clear(self) -> None:
        self._faults.clear()

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._faults]

    def load(self, dumped: list[dict[str, Any]]) -> None:
        known = {f.name for f in fields(Fault)}
        self._faults = [Fault(**{k: v for k, v in row.items() if k in known}) for row in dumped]
        self._last_id = max((fault.id for fault in self._faults), default=0)
