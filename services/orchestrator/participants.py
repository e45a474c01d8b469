"""The services that the orchestrator calls, as verbs. No rule lives here: each method is one call on the wire.

Every method raises Refused (definite) or Unknown (may have happened), as `services.chassis.clients` has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from threading import Lock
from typing import Any, Protocol, TypeVar
from uuid import UUID

from services.chassis import json_codec
from services.chassis.clients import GrpcPeer, HttpPeer
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from services.orchestrator.reserve_coalescing import Crowds
from services.orchestrator.tickets.qr import Seal

Data = dict[str, Any]
Answer = TypeVar("Answer")
EVENT_FACTS_SECONDS = 30.0  # an event's date, hall and prices change rarely; availability is never cached here
HOLD_EXCHANGE, HOLD_KEY = "seat.hold.exchange", "seat.hold"
WAKE_UP_MARGIN_MS = 500  # the message comes just after the hold's time is up, not just before


class Users:
    """User: credits, codes, notifications."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer

    def get(self, user_id: str | UUID) -> Data:
        """Profile with balance and frozen credits."""
        return self._data(self._peer.get(f"/users/{user_id}"))

    def risk(self, user_id: str) -> Data:
        """`is_flagged`: must this user verify a code before paying?"""
        return self._data(self._peer.get(f"/users/{user_id}/risk"))

    def deduct(self, key: str, user_id: str, amount: Decimal) -> Data:
        """Take credits. Refused INSUFFICIENT_CREDITS."""
        return self._data(self._peer.post("/credits/deduct", key=key, user_id=user_id, amount=amount))

    def refund(self, key: str) -> Data:
        """Undo the deduct under `key`, or keep it from ever happening."""
        return self._data(self._peer.post("/credits/refund", key=key))

    def freeze(self, key: str, user_id: str, amount: Decimal, *, at_most: bool = False) -> Data:
        """Move credits from spendable to frozen; `at_most` takes what is there instead of refusing."""
        fields = {"key": key, "user_id": user_id, "amount": amount, "at_most": at_most}
        return self._data(self._peer.post("/credits/freeze", **fields))

    def unfreeze(self, key: str) -> Data:
        """Undo the freeze under `key`, or keep it from ever happening."""
        return self._data(self._peer.post("/credits/unfreeze", key=key))

    def transfer(self, key: str, hold_keys: list[str], to_user_id: str) -> Data:
        """Hand frozen credits to somebody, spendable. Refused CREDITS_UNAVAILABLE."""
        fields = {"key": key, "hold_keys": hold_keys, "to_user_id": to_user_id}
        return self._data(self._peer.post("/credits/transfer", **fields))

    def send_otp(self, user_id: str) -> str:
        """Send a code by SMS; the verification's sid. Refused RATE_LIMITED. Asked twice it sends twice."""
        return str(self._peer.post("/otp/send", user_id=user_id)["verification_sid"])

    def verify_otp(self, verification_sid: str, otp_code: str) -> str:
        """`approved`, `pending` (wrong) or `expired`."""
        return str(self._peer.post("/otp/verify", verification_sid=verification_sid, otp_code=otp_code)["status"])

    def top_up(self, key: str, user_id: UUID, amount: Decimal) -> Data:
        """Create a PaymentIntent; credits come with Stripe's webhook."""
        return self._data(self._peer.post("/credits/topup", key=key, user_id=user_id, amount=amount))

    def notify(self, user_id: str, message: str, fields: Mapping[str, Any]) -> None:
        """Send one SMS or e-mail. Asked twice it sends twice."""
        self._peer.post("/notifications", user_id=user_id, message=message, fields=fields)

    @staticmethod
    def _data(data: Any) -> Data:
        return dict(data)


class Orders:
    """Order: the ledger of orders and transfers."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer

    def create(self, key: str, **order: Any) -> Data:
        """A PENDING order."""
        return dict(self._peer.post("/orders", key=key, **order))

    def get(self, order_id: str | UUID) -> Data:
        """Refused ORDER_NOT_FOUND."""
        return dict(self._peer.get(f"/orders/{order_id}"))

    def change(self, order_id: str, key: str, **changes: Any) -> Data:
        """Move an order's status, or store its sid. `status="FAILED"` undoes the step under `key`."""
        return dict(self._peer.patch(f"/orders/{order_id}", key=key, **changes))

    def page(self, **query: Any) -> Data:
        """A page of orders with its pagination."""
        return self._peer.get_page(f"/orders?{_query(query)}")

    def create_transfer(self, key: str, **transfer: Any) -> Data:
        """An INITIATED transfer. Refused TRANSFER_IN_PROGRESS."""
        return dict(self._peer.post("/transfers", key=key, **transfer))

    def get_transfer(self, transfer_id: str | UUID) -> Data:
        """Refused TRANSFER_NOT_FOUND."""
        return dict(self._peer.get(f"/transfers/{transfer_id}"))

    def change_transfer(self, transfer_id: str, key: str, **changes: Any) -> Data:
        """Move a transfer's status, or store sids. `status="FAILED"` undoes the step under `key`."""
        return dict(self._peer.patch(f"/transfers/{transfer_id}", key=key, **changes))

    def cancel_transfer(self, transfer_id: str | UUID, key: str) -> Data:
        """Refused TRANSFER_INVALID_STATE once both parties have verified."""
        return dict(self._peer.post(f"/transfers/{transfer_id}/cancel", key=key))

    def dispute_transfer(self, transfer_id: str, key: str, reason: str) -> Data:
        """COMPLETED → DISPUTED. Refused TRANSFER_INVALID_STATE."""
        return dict(self._peer.post(f"/transfers/{transfer_id}/dispute", key=key, reason=reason))

    def transfers(self, **query: Any) -> Data:
        """A page of transfers with its pagination."""
        return self._peer.get_page(f"/transfers?{_query(query)}")

    def take_attempt(self, of: str, key: str, **party: str) -> Data:
        """Take one of three attempts at a code. `of` is `orders/{id}` or `transfers/{id}`."""
        return dict(self._peer.post(f"/{of}/otp-attempts", key=key, **party))

    def close_attempt(self, of: str, key: str, outcome: str, **party: str) -> Data:
        """Say how the attempt went: approved, wrong, unknown or expired."""
        return dict(self._peer.patch(f"/{of}/otp-attempts", key=key, outcome=outcome, **party))


class Events:
    """Event: what happens where, when and for how much. Facts are kept for `EVENT_FACTS_SECONDS`."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer
        self._kept: dict[str, tuple[float, Data]] = {}
        self._lock = Lock()

    def get(self, event_id: str) -> Data:
        """Facts without seats. Refused EVENT_NOT_FOUND."""
        with self._lock:
            fetched_at, facts = self._kept.get(event_id, (float("-inf"), {}))
        if time.monotonic() - fetched_at < EVENT_FACTS_SECONDS:
            return facts
        facts = dict(self._peer.get(f"/events/{event_id}"))
        with self._lock:
            self._kept[event_id] = (time.monotonic(), facts)
        return facts


class Inventory:
    """Inventory: seats and the locks on them, by gRPC."""

    def __init__(self, peer: GrpcPeer, stub: InventoryStub, crowds: Crowds) -> None:
        self._peer = peer
        self._stub = stub
        self._crowds = crowds

    def reserve(self, seat_id: str, user_id: str, hold_id: str, ttl_seconds: int) -> pb.Hold:
        """Hold a seat, and tell the crowd before it. Refused SEAT_NOT_FOUND, SEAT_UNAVAILABLE, SEAT_ALREADY_SOLD."""
        request = pb.ReserveSeatRequest(seat_id=seat_id, user_id=user_id, hold_id=hold_id, ttl_seconds=ttl_seconds)
        question = self._crowds.put(seat_id, hold_id)
        try:
            hold = self._ask(self._stub.ReserveSeat, request)
            question.end(ErrorCode.SEAT_UNAVAILABLE, user_id)
        except Refused as refusal:
            holder = refusal.details.pop("held_by", None)
            if holder or refusal.code is ErrorCode.SEAT_ALREADY_SOLD:  # not: somebody has the row in hand this instant
                question.end(ErrorCode(refusal.code), holder)
            raise
        finally:
            question.end()
        return hold

    def release(self, seat_id: str, hold_id: str) -> pb.Released:
        """Give a hold back, or keep it from ever being made."""
        return self._ask(self._stub.ReleaseSeat, pb.ReleaseSeatRequest(seat_id=seat_id, hold_id=hold_id))

    def confirm(self, **sale: str) -> pb.Sale:
        """HELD → SOLD. Refused SEAT_NOT_HELD, HOLD_EXPIRED."""
        return self._ask(self._stub.ConfirmSeat, pb.ConfirmSeatRequest(**sale))

    def update_owner(self, **change: str) -> pb.Sale:
        """Another owner under the same sale. Refused SEAT_UNAVAILABLE, NOT_SEAT_OWNER."""
        return self._ask(self._stub.UpdateOwner, pb.UpdateOwnerRequest(**change))

    def cancel_sale(self, **sale: str) -> pb.Released:
        """SOLD → AVAILABLE. Refused SEAT_UNAVAILABLE, NOT_SEAT_OWNER."""
        return self._ask(self._stub.CancelSale, pb.CancelSaleRequest(**sale))

    def settle(self, key: str) -> bool:
        """Did the effect under `key` happen? If not, it never will."""
        return bool(self._ask(self._stub.Settle, pb.SettleRequest(key=key)).done)

    def ticket(self, seat_id: str) -> pb.Seat:
        """What the gate needs to know. Refused SEAT_NOT_FOUND."""
        return self._ask(self._stub.VerifyTicket, pb.SeatRequest(seat_id=seat_id))

    def owner(self, seat_id: str) -> pb.Seat:
        """Who owns the seat, by which sale. Refused SEAT_NOT_FOUND."""
        return self._ask(self._stub.GetSeatOwner, pb.SeatRequest(seat_id=seat_id))

    def check_in(self, seat_id: str, order_id: str, expected_owner_id: str, facts: pb.ScanFacts) -> pb.Scan:
        """Admit once; the scan's result."""
        request = pb.MarkCheckedInRequest(
            seat_id=seat_id, order_id=order_id, expected_owner_id=expected_owner_id, facts=facts
        )
        return self._ask(self._stub.MarkCheckedIn, request)

    def log_entry(self, seat_id: str, result: str, facts: pb.ScanFacts) -> pb.Scan:
        """Log a scan that was refused."""
        return self._ask(self._stub.LogEntry, pb.LogEntryRequest(seat_id=seat_id, result=result, facts=facts))

    def tickets(self, owner_user_id: str) -> list[pb.Seat]:
        """The seats that a user owns now, newest first, at most 100."""
        return list(self._ask(self._stub.ListTickets, pb.ListTicketsRequest(owner_user_id=owner_user_id)).seats)

    def _ask(self, method: Callable[..., Answer], request: Any) -> Answer:
        answer: Answer = self._peer.call(method, request)
        return answer


class Publishes(Protocol):
    """The broker's sending side, as far as it is used here."""

    def publish(
        self, exchange: str, routing_key: str, body: bytes, *, message_id: str, expiration_ms: int | None = None
    ) -> None:
        """Return once the broker has confirmed. Raises Unknown."""


class Holds:
    """The wake-up call for a hold, by RabbitMQ (§8)."""

    def __init__(self, publisher: Publishes) -> None:
        self._publisher = publisher

    def announce(self, seat_id: str, user_id: str, order_id: str, reserved_at: datetime, ttl_seconds: int) -> None:
        """Publish the hold's message; it dead-letters to Inventory just after the hold's time is up.

        `message_id` is the hold's id, so a second announcement is the same message. Raises Unknown.
        """
        message = {"seat_id": seat_id, "user_id": user_id, "order_id": order_id, "reserved_at": reserved_at}
        expiration = ttl_seconds * 1000 + WAKE_UP_MARGIN_MS
        self._publisher.publish(
            HOLD_EXCHANGE, HOLD_KEY, json_codec.encode(message), message_id=order_id, expiration_ms=expiration
        )


@dataclass(frozen=True)
class Participants:
    """Everybody that a saga's steps may call, and the seal for the tickets that they issue."""

    users: Users
    orders: Orders
    events: Events
    inventory: Inventory
    holds: Holds
    seal: Seal


def _query(query: Mapping[str, Any]) -> str:
    return "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
