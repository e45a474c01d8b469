"""The faults that the matrix injects, and the plan that injects them into the calls of an orchestrator.

Each outgoing call of an orchestrator is an *edge*, named by target and operation: `user POST /credits/deduct`,
`inventory ConfirmSeat`, `broker publish`, `journal end`. Edges are discovered by a run without faults. A second call of
the same operation has its own edge with the suffix `#2`. The faults use the seams of production: HTTP transport, gRPC
channel, publisher and journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import grpc

from services.chassis.errors import Unknown

T = TypeVar("T")


class ProcessDeath(BaseException):
    """Ends a request as a crash would. It is no Exception, so that no handler of the service catches it."""


class Kind(StrEnum):
    """The ways in which one call can fail.

    DOWN, ERROR, TIMEOUT and MUTE affect every retry of the call. The other kinds affect one call. After BLINK, LOST and
    LATE the orchestrator retries with success. After the kinds that end in *gives up*, its time for retries is over.
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
NO_RETRIES = (*LASTING, *GIVES_UP)
UNSENT = (Kind.DOWN, Kind.BLINK, Kind.BLINK_GIVES_UP)
HEALED_BY_RETRY = (Kind.BLINK, Kind.LOST, Kind.LATE, Kind.TWICE)
RECOVERY = "recovery: "  # prefix of the edges of a recovering process
DELAYED = (Kind.LATE, Kind.LATE_GIVES_UP)


@dataclass(frozen=True)
class Fault:
    """A kind of fault at one edge."""

    edge: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.edge}: {self.kind}"


@dataclass
class FaultPlan:
    """The faults of one execution, the edges that it has reached, and the calls that are still delayed."""

    faults: tuple[Fault, ...] = ()
    seen: list[str] = field(default_factory=list)
    fired: set[Fault] = field(default_factory=set)
    delayed: list[Callable[[], Any]] = field(default_factory=list)
    meanwhile: dict[str, Callable[[], object]] = field(
        default_factory=dict
    )  # edge: action of another process, just before the call
    is_logged_out: bool = False  # the session of the caller was revoked
    is_dead: bool = False
    _counts: Counter[str] = field(default_factory=Counter)
    _phase: str = ""

    def start_recovery(self) -> None:
        """Treat all following calls as calls of a recovering process, with edges named `recovery: …`."""
        self.is_dead, self._phase = False, RECOVERY

    @property
    def has_recovery_fault(self) -> bool:
        """Whether a fault is planned for the recovering process."""
        return any(fault.edge.startswith(RECOVERY) for fault in self.faults)

    @property
    def has_lasting_fault(self) -> bool:
        """Whether a fault that affects every retry has fired, so that no retry can succeed."""
        return not self._phase and any(fault.kind in LASTING for fault in self.fired)

    def record_edge(self, name: str) -> str:
        """Record a call and return its edge, with a number if the operation was called before."""
        name = self._phase + name
        self._counts[name] += 1
        number = self._counts[name]
        edge = name if number == 1 else f"{name}#{number}"
        self.seen.append(edge)
        return edge

    def fire_at(self, edge: str) -> Fault | None:
        """Return the fault to inject at this edge, and mark it as fired."""
        for fault in self.faults:
            is_lasting = fault.kind in LASTING and _is_same_call(fault.edge, edge)
            if (fault.edge == edge and fault not in self.fired) or is_lasting:
                self.fired.add(fault)
                return fault
        return None

    def deliver_delayed(self) -> bool:
        """Send the delayed calls and ignore their responses. Return whether there were any."""
        has_delayed = bool(self.delayed)
        for send in self.delayed:
            try:
                send()
            except (Unknown, OSError, grpc.RpcError):
                continue
        self.delayed.clear()
        return has_delayed


def _is_same_call(first: str, edge: str) -> bool:
    """Whether `edge` is `first` or a later call of the same operation."""
    name, _, number = first.partition("#")
    other, _, count = edge.partition("#")
    return name == other and int(count or 1) >= int(number or 1)


@dataclass(frozen=True)
class TransportErrors:
    """The errors of one transport for *no connection*, *5xx* and *timeout*."""

    unreachable: Callable[[], Exception]
    error: Callable[[], Any]
    timeout: Callable[[], Exception]


def send_with_faults(plan: FaultPlan, name: str, errors: TransportErrors, send: Callable[[], T]) -> T:
    """Make one call, with the fault that the plan has for it."""
    if plan.is_dead:
        raise ProcessDeath
    edge = plan.record_edge(name)
    if action := plan.meanwhile.pop(edge, None):
        action()
    fault = plan.fire_at(edge)
    if fault is None:
        return send()
    if fault.kind in UNSENT:
        raise errors.unreachable()
    if fault.kind is Kind.ERROR:
        response: T = errors.error()
        return response
    return _inject(plan, fault.kind, errors, send)


def _inject(plan: FaultPlan, kind: Kind, errors: TransportErrors, send: Callable[[], T]) -> T:
    if kind is Kind.DIES_BEFORE:
        plan.is_dead = True
        raise ProcessDeath
    if kind in DELAYED:
        plan.delayed.append(send)
    elif kind is not Kind.TIMEOUT:
        with suppress(grpc.RpcError):  # a refusal is a response too
            send()
        if kind is Kind.TWICE:
            return send()
        if kind is Kind.DIES_AFTER:
            plan.is_dead = True
            raise ProcessDeath
    raise errors.timeout()
