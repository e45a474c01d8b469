"""The transports of an orchestrator with faults: HTTP, gRPC, AMQP and the two writes of the journal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from services.chassis.clients import Transport
from services.chassis.errors import Unknown
from services.orchestrator.participants import MessagePublisher
from services.orchestrator.saga.journal import Entry, Journal, NoticeDue, Status
from tests.saga.in_process.faults import FaultPlan, TransportErrors, send_with_faults

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# ── HTTP


def _http_error() -> tuple[int, bytes]:
    return 503, b'{"success": false, "error_code": "SERVICE_UNAVAILABLE", "message": "injected"}'


HTTP = TransportErrors(
    unreachable=lambda: ConnectionRefusedError("injected"),
    error=_http_error,
    timeout=lambda: TimeoutError("injected: no answer"),
)


@dataclass(frozen=True)
class FaultyHttp:
    """An HTTP transport with faults."""

    get_plan: Callable[[], FaultPlan]
    inner: Transport

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        host, _, path = url.removeprefix("http://").partition("/")
        route = _ID.sub("{id}", path.partition("?")[0])
        name = f"{host.partition('.')[0]} {method} /{route}"
        return send_with_faults(self.get_plan(), name, HTTP, lambda: self.inner(method, url, body, headers, timeout))


# ── gRPC


class InjectedRpcError(grpc.RpcError):
    """The error of a gRPC client when the server is unreachable or silent."""

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


RPC = TransportErrors(
    unreachable=lambda: InjectedRpcError(grpc.StatusCode.UNAVAILABLE),
    error=_raise_unavailable,
    timeout=lambda: InjectedRpcError(grpc.StatusCode.DEADLINE_EXCEEDED),
)


@dataclass(frozen=True)
class FaultyCallable:
    """A unary gRPC call with faults."""

    get_plan: Callable[[], FaultPlan]
    verb: str
    inner: Any

    def __call__(self, request: Any, **options: Any) -> Any:
        return send_with_faults(self.get_plan(), f"inventory {self.verb}", RPC, lambda: self.inner(request, **options))


@dataclass(frozen=True)
class FaultyChannel:
    """A gRPC channel with faults. It has only the method that a stub uses."""

    get_plan: Callable[[], FaultPlan]
    inner: grpc.Channel

    def unary_unary(self, path: str, *serializers: Any, **options: Any) -> FaultyCallable:
        return FaultyCallable(
            self.get_plan, path.rpartition("/")[2], self.inner.unary_unary(path, *serializers, **options)
        )


# ── AMQP and the journal

AMQP = TransportErrors(
    unreachable=lambda: Unknown("injected: no broker"),
    error=lambda: (_ for _ in ()).throw(Unknown("injected: nacked")),
    timeout=lambda: Unknown("injected: not confirmed"),
)
JOURNAL = TransportErrors(
    unreachable=lambda: Unknown("injected: no journal"),
    error=lambda: (_ for _ in ()).throw(Unknown("injected: the journal returned an error")),
    timeout=lambda: Unknown("injected: the journal timed out"),
)


@dataclass(frozen=True)
class FaultyPublisher:
    """A publisher with faults."""

    get_plan: Callable[[], FaultPlan]
    inner: MessagePublisher

    def send(self, *_message: Any, **_properties: Any) -> None:
        """Send nothing early, so that `publish` is the only edge."""

    def publish(self, *message: Any, **properties: Any) -> None:
        def send() -> None:
            self.inner.publish(*message, **properties)

        send_with_faults(self.get_plan(), "broker publish", AMQP, send)


class FaultyJournal(Journal):
    """A journal whose `begin` and `end` fail as calls over a network do."""

    def __init__(self, *args: Any, get_plan: Callable[[], FaultPlan], **options: Any) -> None:
        super().__init__(*args, **options)
        self._script_of = get_plan

    def begin(self, *args: Any, **options: Any) -> tuple[Entry, bool]:
        send = lambda: super(FaultyJournal, self).begin(*args, **options)  # noqa: E731
        return send_with_faults(self._script_of(), "journal begin", JOURNAL, send)

    def end(self, entry: Entry, status: Status, result: Mapping[str, Any], notices: Sequence[NoticeDue] = ()) -> bool:
        send = lambda: super(FaultyJournal, self).end(entry, status, result, notices)  # noqa: E731
        return send_with_faults(self._script_of(), "journal end", JOURNAL, send)
