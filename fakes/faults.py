"""What goes wrong, on which call: the fault table that the control plane fills and the gate obeys."""

from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

# Whether the call's effect happens: never for the first two, always for the next three; `hang` and
# `status` say so by `effect` (their defaults below).
KINDS = ("refuse", "reset", "late", "truncate", "drop", "hang", "status")
LONGEST_MS = 600_000
EFFECT_BY_DEFAULT = {"hang": True, "status": False}


@dataclass
class Fault:
    """One scripted fault. `nth` counts matching calls from the moment the fault was set (1: the next);
    `count` calls in a row are hit from there, 0 means every one from there on. `ms` is milliseconds."""

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
        """Raises ValueError naming what is wrong."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        if self.effect is None:
            self.effect = EFFECT_BY_DEFAULT.get(self.kind)
        elif self.kind not in EFFECT_BY_DEFAULT:
            raise ValueError(f"effect cannot be chosen for {self.kind}")
        if self.nth < 1 or self.count < 0 or not 0 <= self.ms <= LONGEST_MS or not 200 <= self.status <= 599:
            raise ValueError(f"nth starts at 1, count at 0, ms is 0 to {LONGEST_MS}, status is 200 to 599")

    def matches(self, method: str, path: str, sent: dict[str, Any]) -> bool:
        if self.method not in ("*", method) or not fnmatchcase(path, self.path):
            return False
        return all(sent.get(name) == value for name, value in self.where.items())

    def due(self) -> bool:
        """Whether the call just counted in `seen` is one of those to hit."""
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


def parse(raw: Any) -> Fault:
    """A fault from the control plane's JSON; raises ValueError on an unknown or ill-typed field."""
    if not isinstance(raw, dict) or "kind" not in raw:
        raise ValueError("a fault is an object with a kind")
    for name, value in raw.items():
        if name not in TYPES:
            raise ValueError(f"a fault has no {name}; it has {', '.join(TYPES)}")
        if not isinstance(value, TYPES[name]) or (TYPES[name] is int and isinstance(value, bool)):
            raise ValueError(f"{name} has the wrong type")
    return Fault(**raw)


class FaultTable:
    """Faults in the order they were set. Every matching fault counts the call; the first one due hits it."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._set = 0

    def add(self, fault: Fault) -> Fault:
        self._set += 1
        fault.id = self._set
        self._faults.append(fault)
        return fault

    def claim(self, method: str, path: str, sent: dict[str, Any]) -> Fault | None:
        """The fault that hits this call, if any."""
        hit = None
        for fault in self._faults:
            if fault.matches(method, path, sent):
                fault.seen += 1
                hit = fault if hit is None and fault.due() else hit
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
        self._set = max((fault.id for fault in self._faults), default=0)
