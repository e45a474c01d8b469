"""Faults at the seams that production has: transports, gRPC interceptors, the publisher, the journal.

Every outgoing call of an orchestrator is an *edge*, named by what crosses it: `user POST /credits/deduct`,
`inventory ConfirmSeat`, `broker publish`, `journal end`. Edges are not listed anywhere: they are what the wire shows
when a flow runs without faults. A call that a flow makes twice has two edges, the second with `#2`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import grpc

from services.chassis.errors import Unknown

T = TypeVar("T")


class ProcessDeath(BaseException):
    """The process is gone: nothing after this line runs in it. Not an Exception, so no handler keeps it alive."""


class Kind(StrEnum):
    """What can happen to one call.

    DOWN, ERROR, TIMEOUT and MUTE last for as long as the victim asks; the others strike once. After BLINK, LOST and
    LATE the victim asks again and is answered; after the three that end in *gives up*, its time is over.
    """

    DOWN = "no connection"
    ERROR = "5xx"
    TIMEOUT = "timeout before the effect"
    MUTE = "effect done, no reply ever"
    BLINK = "no connection, once"
    LOST = "effect done, reply lost"
    LATE = "arrives late, after the retry"
    TWICE = "delivered twice"
    BLINK_GIVES_UP = "no connection, gives up"
    LOST_GIVES_UP = "reply lost, gives up"
    LATE_GIVES_UP = "arrives late, gives up"
    DIES_BEFORE = "dies before sending"
    DIES_AFTER = "dies after the effect"


LASTING = (Kind.DOWN, Kind.ERROR, Kind.TIMEOUT, Kind.MUTE)
GIVES_UP = (Kind.BLINK_GIVES_UP, Kind.LOST_GIVES_UP, Kind.LATE_GIVES_UP)
IMPATIENT = (*LASTING, *GIVES_UP)
UNSENT = (Kind.DOWN, Kind.BLINK, Kind.BLINK_GIVES_UP)
HEALED = (Kind.BLINK, Kind.LOST, Kind.LATE, Kind.TWICE)
RECOVERY = "recovery: "  # begins the name of an edge that a rescuer comes to
HELD_BACK = (Kind.LATE, Kind.LATE_GIVES_UP)


@dataclass(frozen=True)
class Fault:
    """One kind at one edge."""

    edge: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.edge}: {self.kind}"


@dataclass
class Script:
    """The faults of one execution, what was seen on the wire, and what is still to be delivered."""

    faults: tuple[Fault, ...] = ()
    seen: list[str] = field(default_factory=list)
    fired: set[Fault] = field(default_factory=set)
    late: list[Callable[[], Any]] = field(default_factory=list)
    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)  # edge: what others do just before it
    logged_out: bool = False  # the caller's login was ended
    dead: bool = False
    _counts: Counter[str] = field(default_factory=Counter)
    _phase: str = ""

    def recovery(self) -> None:
        """From now on it is a rescuer that calls: its edges are `recovery: …`, and it lives."""
        self.dead, self._phase = False, RECOVERY

    @property
    def troubles_recovery(self) -> bool:
        """True when a fault waits for the rescuer."""
        return any(fault.edge.startswith(RECOVERY) for fault in self.faults)

    @property
    def is_hopeless(self) -> bool:
        """True when a fault that stays has struck the victim: it may ask as often as it likes."""
        return not self._phase and any(fault.kind in LASTING for fault in self.fired)

    def edge(self, name: str) -> str:
        """The edge of this call: a name seen before in the same phase gets its number."""
        name = self._phase + name
        self._counts[name] += 1
        number = self._counts[name]
        edge = name if number == 1 else f"{name}#{number}"
        self.seen.append(edge)
        return edge

    def at(self, edge: str) -> Fault | None:
        """The fault that strikes here now, noted as fired."""
        for fault in self.faults:
            lasting = fault.kind in LASTING and _comes_to(fault.edge, edge)
            if (fault.edge == edge and fault not in self.fired) or lasting:
                self.fired.add(fault)
                return fault
        return None

    def deliver_late(self) -> bool:
        """What the network still carried arrives now; nobody hears the answers. False when there was nothing."""
        carried = bool(self.late)
        for delivery in self.late:
            try:
                delivery()
            except (Unknown, OSError, grpc.RpcError):
                continue
        self.late.clear()
        return carried


def _comes_to(first: str, edge: str) -> bool:
    """True when `edge` is `first` or the same call made again."""
    name, _, number = first.partition("#")
    again, _, count = edge.partition("#")
    return name == again and int(count or 1) >= int(number or 1)


@dataclass(frozen=True)
class Wire:
    """How one kind of wire says *no connection*, *5xx* and *timeout*."""

    unreachable: Callable[[], Exception]
    error: Callable[[], Any]
    timeout: Callable[[], Exception]


def crossed(script: Script, name: str, wire: Wire, send: Callable[[], T]) -> T:
    """One call across an edge, with whatever the script has for it."""
    if script.dead:
        raise ProcessDeath
    edge = script.edge(name)
    if happens := script.meanwhile.pop(edge, None):
        happens()
    fault = script.at(edge)
    if fault is None:
        return send()
    if fault.kind in UNSENT:
        raise wire.unreachable()
    if fault.kind is Kind.ERROR:
        answer: T = wire.error()
        return answer
    return _struck(script, fault.kind, wire, send)


def _struck(script: Script, kind: Kind, wire: Wire, send: Callable[[], T]) -> T:
    if kind is Kind.DIES_BEFORE:
        script.dead = True
        raise ProcessDeath
    if kind in HELD_BACK:
        script.late.append(send)
    elif kind is not Kind.TIMEOUT:
        answer = send()
        if kind is Kind.TWICE:
            return send()
        if kind is Kind.DIES_AFTER:
            script.dead = True
            raise ProcessDeath
        del answer  # the reply is lost
    raise wire.timeout()
