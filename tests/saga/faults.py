"""Faults at the seams that production has: transports, gRPC interceptors, the publisher, the journal.

Every outgoing call of an orchestrator is an *edge*, named by what crosses it: `user POST /credits/deduct`,
`inventory ConfirmSeat`, `broker publish`, `journal end`. Edges are not listed anywhere: they are what the wire shows
when a flow runs without faults. A call that a flow makes twice has two edges, the second with `#2`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import grpc
import urllib3

from services.chassis.clients import Transport
from services.chassis.errors import Unknown
from services.orchestrator.journal import Entry, Journal, NoticeDue, Status
from services.orchestrator.participants import Publishes

T = TypeVar("T")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Death(BaseException):
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
            except (Unknown, urllib3.exceptions.HTTPError, grpc.RpcError):
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
        raise Death
    fault = script.at(script.edge(name))
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
        raise Death
    if kind in HELD_BACK:
        script.late.append(send)
    elif kind is not Kind.TIMEOUT:
        answer = send()
        if kind is Kind.TWICE:
            return send()
        if kind is Kind.DIES_AFTER:
            script.dead = True
            raise Death
        del answer  # the reply is lost
    raise wire.timeout()


# ── HTTP


def _http_error() -> tuple[int, bytes]:
    return 503, b'{"success": false, "error_code": "SERVICE_UNAVAILABLE", "message": "injected"}'


HTTP = Wire(
    unreachable=lambda: urllib3.exceptions.ProtocolError("injected: connection refused"),
    error=_http_error,
    timeout=lambda: urllib3.exceptions.TimeoutError("injected: no answer"),
)


@dataclass(frozen=True)
class FaultyHttp:
    """A transport with a script."""

    script_of: Callable[[], Script]
    inner: Transport

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        host, _, path = url.removeprefix("http://").partition("/")
        place = _ID.sub("{id}", path.partition("?")[0])
        name = f"{host.partition('.')[0]} {method} /{place}"
        return crossed(self.script_of(), name, HTTP, lambda: self.inner(method, url, body, headers, timeout))


# ── gRPC


class InjectedRpcError(grpc.RpcError):
    """What a client sees when the server is away or silent."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "injected"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def _raise_unavailable() -> Any:
    raise InjectedRpcError(grpc.StatusCode.UNAVAILABLE)


RPC = Wire(
    unreachable=lambda: InjectedRpcError(grpc.StatusCode.UNAVAILABLE),
    error=_raise_unavailable,
    timeout=lambda: InjectedRpcError(grpc.StatusCode.DEADLINE_EXCEEDED),
)


@dataclass(frozen=True)
class FaultyCallable:
    """A unary call with a script."""

    script_of: Callable[[], Script]
    verb: str
    inner: Any

    def __call__(self, request: Any, **options: Any) -> Any:
        return crossed(self.script_of(), f"inventory {self.verb}", RPC, lambda: self.inner(request, **options))


@dataclass(frozen=True)
class FaultyChannel:
    """As much of a channel as a stub uses, over a real one."""

    script_of: Callable[[], Script]
    inner: grpc.Channel

    def unary_unary(self, path: str, *serializers: Any, **options: Any) -> FaultyCallable:
        return FaultyCallable(
            self.script_of, path.rpartition("/")[2], self.inner.unary_unary(path, *serializers, **options)
        )


# ── AMQP and the journal

AMQP = Wire(
    unreachable=lambda: Unknown("injected: no broker"),
    error=lambda: (_ for _ in ()).throw(Unknown("injected: nacked")),
    timeout=lambda: Unknown("injected: not confirmed"),
)
JOURNAL = Wire(
    unreachable=lambda: Unknown("injected: no journal"),
    error=lambda: (_ for _ in ()).throw(Unknown("injected: the journal answers with an error")),
    timeout=lambda: Unknown("injected: the journal does not answer"),
)


@dataclass(frozen=True)
class FaultyPublisher:
    """A publisher with a script."""

    script_of: Callable[[], Script]
    inner: Publishes

    def publish(
        self, exchange: str, routing_key: str, body: bytes, *, message_id: str, expiration_ms: int | None = None
    ) -> None:
        def send() -> None:
            self.inner.publish(exchange, routing_key, body, message_id=message_id, expiration_ms=expiration_ms)

        crossed(self.script_of(), "broker publish", AMQP, send)


class FaultyJournal(Journal):
    """A journal with a script: *begin* and *end* are calls across a wire like any other."""

    def __init__(self, *args: Any, script_of: Callable[[], Script], **options: Any) -> None:
        super().__init__(*args, **options)
        self._script_of = script_of

    def begin(self, *args: Any, **options: Any) -> tuple[Entry, bool]:
        send = lambda: super(FaultyJournal, self).begin(*args, **options)  # noqa: E731
        return crossed(self._script_of(), "journal begin", JOURNAL, send)

    def end(self, entry: Entry, status: Status, result: Mapping[str, Any], notices: Sequence[NoticeDue] = ()) -> bool:
        send = lambda: super(FaultyJournal, self).end(entry, status, result, notices)  # noqa: E731
        return crossed(self._script_of(), "journal end", JOURNAL, send)
