"""Calls of Inventory's servicer on the thread of the caller, and the history of each seat that they leave."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from services.inventory.servicer import Inventory
from tests.concurrency.linearizability import Op
from tests.concurrency.seat_model import LOST, OK

Clock = Callable[[], float]


class _RpcError(grpc.RpcError):
    """The error of a call that the servicer aborted."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Any = ()) -> None:
        self._all = code, details, metadata

    def code(self) -> Any:
        return self._all[0]

    def details(self) -> Any:
        return self._all[1]

    def trailing_metadata(self) -> Any:
        return self._all[2]


@dataclass(frozen=True)
class _Context:
    metadata: Any

    def invocation_metadata(self) -> Any:
        return self.metadata

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise _RpcError(code, details)

    def abort_with_status(self, status: Any) -> None:
        raise _RpcError(status.code, status.details, status.trailing_metadata)


@dataclass
class SeatHistory:
    """The operations on each seat. A repeated call under a key returns a stored answer, so it is no operation.

    A repeated hold is one, because its key is void as soon as the hold is gone.
    """

    now: Clock
    client: str = ""
    keys: set[tuple[str, str]] = field(default_factory=set)
    ops: dict[str, list[Op]] = field(default_factory=lambda: defaultdict(list))

    def record(self, seat_id: str, what: str, args: tuple[str, ...], result: str | None, start: float) -> None:
        """Record an operation that ends now."""
        self.ops[seat_id].append(Op(self.client, what, args, result, start, self.now()))


@dataclass(frozen=True)
class LocalChannel:
    """A gRPC channel to a servicer of this process. It has only the method that a stub uses."""

    servicer: Inventory
    get_history: Callable[[], SeatHistory]

    def unary_unary(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_options: Any
    ) -> Callable[..., Any]:
        verb = path.rpartition("/")[2]
        method = getattr(self.servicer, verb)

        def call(request: Any, timeout: float, metadata: Any) -> Any:
            history = self.get_history()
            start = history.now()
            try:
                reply = method(type(request).FromString(request_serializer(request)), _Context(metadata))
            except _RpcError as error:
                _record(history, verb, request, error.details(), start)
                raise
            _record(history, verb, request, reply, start)
            return response_deserializer(reply.SerializeToString())

        return call


_LOOKS = ("VerifyTicket", "GetSeatOwner")
_REFUSALS = {  # of each call: the operation, its arguments, and the refusals that depend on the state of the seat
    "ReserveSeat": ("reserve", ("hold_id", "user_id"), ("SEAT_UNAVAILABLE", "SEAT_ALREADY_SOLD")),
    "ConfirmSeat": ("sell", ("order_id", "user_id"), ("SEAT_NOT_HELD",)),
    "ReleaseSeat": ("release", ("hold_id",), ()),
    "CancelSale": ("cancel_sale", ("order_id", "expected_owner_id"), ("SEAT_UNAVAILABLE", "NOT_SEAT_OWNER")),
    "UpdateOwner": (
        "update_owner",
        ("order_id", "expected_owner_id", "new_owner_id"),
        ("SEAT_UNAVAILABLE", "NOT_SEAT_OWNER"),
    ),
    "MarkCheckedIn": ("admit", ("order_id", "expected_owner_id"), ("DUPLICATE", "UNPAID", "NOT_OWNER")),
}
_IN_MODEL = {"SEAT_NOT_HELD": "NOT_HELD", "UNPAID": "NOT_SOLD", "NOT_OWNER": "NOT_SOLD", "NOT_SEAT_OWNER": "NOT_SOLD"}


def _record(history: SeatHistory, verb: str, request: Any, reply: Any, start: float) -> None:
    if verb in _LOOKS and not isinstance(reply, str):
        seat = (reply.status, reply.order_id or reply.hold_id, reply.owner_user_id or reply.held_by_user_id)
        history.record(
            request.seat_id, "look", (), "/".join(seat) if reply.status != "AVAILABLE" else "AVAILABLE//", start
        )
    if verb not in _REFUSALS:
        return
    what, names, refusals = _REFUSALS[verb]
    key = getattr(request, "key", "") or getattr(request, "hold_id", "") or request.facts.scan_id
    result = reply if isinstance(reply, str) else getattr(reply, "result", "") or OK
    is_first = (verb, key) not in history.keys or (verb == "ReserveSeat" and result == OK)
    if is_first and (verb != "ReleaseSeat" or getattr(reply, "released", False)):
        history.keys.add((verb, key))
        if result == OK and getattr(request, "replaces_hold_id", ""):
            history.record(request.seat_id, "release", (request.replaces_hold_id,), OK, start)
        if result in ("SUCCESS", OK):
            result = OK
        elif result not in refusals:
            result = LOST
        elif verb in ("CancelSale", "UpdateOwner"):
            result = "NOT_SOLD"
        history.record(
            request.seat_id, what, tuple(getattr(request, name) for name in names), _IN_MODEL.get(result, result), start
        )
