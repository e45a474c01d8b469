"""Clients of the services that the orchestrator calls. Each method is one call, without business rules.

Every method raises Refused (a definite refusal) or Unknown (the effect may have happened).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from threading import Lock
from typing import Any, Protocol, TypeVar
from uuid import UUID

from services.chassis import json_codec
from services.chassis.clients import READ_SECONDS, GrpcPeer, HttpPeer
from services.chassis.errors import Refused
from services.chassis.neighbours import Neighbour
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from services.orchestrator.reserve_coalescing import ReserveCoalescer
from services.orchestrator.tickets.qr import Seal

Data = dict[str, Any]
Sent = Future[None] | None
EffectPage = tuple[dict[str, str], str]
Reply = TypeVar("Reply")
MOST_EVENTS = 100  # in one call
EVENT_FACTS_SECONDS = 30.0  # date, hall and prices change rarely, and the cache has no seats
HOLD_EXCHANGE, HOLD_KEY = "seat.hold.exchange", "seat.hold"
EXPIRY_MARGIN_MS = 500  # the message must arrive after the hold has expired, not just before


class Need(StrEnum):
    """A neighbour that a flow cannot do without."""

    USERS = "User"
    ORDERS = "Order"
    INVENTORY = "Inventory"
    EVENTS = "Event"
    BROKER = "RabbitMQ"
    SMU = "SMU"
    STRIPE = "Stripe"


class Users:
    """The User service: credits, codes and notifications.

    Calls that wait for SMU (Singapore Management University's notification API) or for Stripe have peers of their own.
    A slow SMU therefore cannot take the threads that charge credits need.
    """

    def __init__(self, peer: HttpPeer, smu: HttpPeer, stripe: HttpPeer) -> None:
        self._peer = peer
        self._smu = smu
        self._stripe = stripe

    def get(self, user_id: str | UUID) -> Data:
        """Read a profile with its balance and frozen credits."""
        return self._data(self._peer.get(f"/users/{user_id}"))

    def get_risk(self, user_id: str) -> Data:
        """Read `is_flagged`: whether this user must verify a code before paying."""
        return self._data(self._peer.get(f"/users/{user_id}/risk"))

    def list_effects(self, **query: Any) -> EffectPage:
        """See `Participants.list_effects`."""
        return _read_effects(self._peer, query)

    def list_staff_commands(self, after: int) -> list[Data]:
        """Read the commands of staff to accounts after number `after`, oldest first."""
        return list(self._peer.get(f"/staff-commands?after={after}"))

    def deduct(self, key: str, user_id: str, amount: Decimal) -> Data:
        """Deduct credits. Raises Refused INSUFFICIENT_CREDITS."""
        return self._data(self._peer.post("/credits/deduct", key=key, user_id=user_id, amount=amount))

    def refund(self, key: str) -> Data:
        """Undo the deduction under `key`, or void the key so that it can never happen."""
        return self._data(self._peer.post("/credits/refund", key=key))

    def freeze(self, key: str, user_id: str, amount: Decimal, *, at_most: bool = False) -> Data:
        """Freeze credits. Raises Refused INSUFFICIENT_CREDITS, but `at_most` freezes the available part instead."""
        fields = {"key": key, "user_id": user_id, "amount": amount, "at_most": at_most}
        return self._data(self._peer.post("/credits/freeze", **fields))

    def unfreeze(self, key: str) -> Data:
        """Undo the freeze under `key`, or void the key so that it can never happen."""
        return self._data(self._peer.post("/credits/unfreeze", key=key))

    def transfer(self, key: str, hold_keys: list[str], to_user_id: str) -> Data:
        """Move frozen credits to the balance of another user. Raises Refused CREDITS_UNAVAILABLE."""
        fields = {"key": key, "hold_keys": hold_keys, "to_user_id": to_user_id}
        return self._data(self._peer.post("/credits/transfer", **fields))

    def check_credits(self, seller_user_id: str, buyer_user_id: str, initiator_id: str, amount: Decimal) -> Data:
        """Check that a buyer can pay a transfer, and return how each party may see the other's name.

        Raises Refused INSUFFICIENT_CREDITS, or RATE_LIMITED after too many refusals to this initiator.
        """
        parties = {"seller_user_id": seller_user_id, "buyer_user_id": buyer_user_id, "initiator_id": initiator_id}
        return self._data(self._peer.post("/credits/check", **parties, amount=amount))

    def send_otp(self, user_id: str, initiator_id: str) -> str:
        """Send a code by SMS, which counts against the initiator, and return its sid. A retry sends another SMS.

        Raises Refused RATE_LIMITED.
        """
        return str(self._smu.post("/otp/send", user_id=user_id, initiator_id=initiator_id)["verification_sid"])

    def verify_otp(self, verification_sid: str, otp_code: str, **owner: str) -> str:
        """Verify a code and return `approved`, `pending` (wrong) or `expired`.

        `user_id` is the user who enters a code of their own, whose phone it verifies.
        """
        fields = {"verification_sid": verification_sid, "otp_code": otp_code, **owner}
        return str(self._smu.post("/otp/verify", **fields)["status"])

    def top_up(self, key: str, user_id: UUID, amount: Decimal) -> Data:
        """Create a PaymentIntent. Stripe's webhook adds the credits later."""
        return self._data(self._stripe.post("/credits/topup", key=key, user_id=user_id, amount=amount))

    def notify(self, notices: list[Data]) -> list[bool]:
        """Send an SMS or e-mail for each notice. Return whether each was sent. A retry sends another one."""
        return list(self._smu.post("/notifications", notices=notices)["sent"])

    @staticmethod
    def _data(data: Any) -> Data:
        return dict(data)


class Orders:
    """The Order service: orders and transfers."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer

    def create(self, key: str, **order: Any) -> Data:
        """Create a PENDING order."""
        return dict(self._peer.post("/orders", key=key, **order))

    def get(self, order_id: str | UUID) -> Data:
        """Read an order. Raises Refused ORDER_NOT_FOUND."""
        return dict(self._peer.get(f"/orders/{order_id}"))

    def change(self, order_id: str, key: str, **changes: Any) -> Data:
        """Change an order's status, or store its sid. `status="FAILED"` undoes the step under `key`."""
        return dict(self._peer.patch(f"/orders/{order_id}", key=key, **changes))

    def list_orders(self, **query: Any) -> Data:
        """Read a page of orders with its pagination."""
        return self._peer.get_page(f"/orders?{_encode_query(query)}")

    def create_transfer(self, key: str, **transfer: Any) -> Data:
        """Create an INITIATED transfer. Raises Refused TRANSFER_IN_PROGRESS."""
        return dict(self._peer.post("/transfers", key=key, **transfer))

    def get_transfer(self, transfer_id: str | UUID) -> Data:
        """Read a transfer. Raises Refused TRANSFER_NOT_FOUND."""
        return dict(self._peer.get(f"/transfers/{transfer_id}"))

    def change_transfer(self, transfer_id: str, key: str, **changes: Any) -> Data:
        """Change a transfer's status, or store its sids. `status="FAILED"` undoes the step under `key`."""
        return dict(self._peer.patch(f"/transfers/{transfer_id}", key=key, **changes))

    def cancel_transfer(self, transfer_id: str | UUID, key: str) -> Data:
        """Cancel a transfer. Raises Refused TRANSFER_INVALID_STATE once both parties have verified."""
        return dict(self._peer.post(f"/transfers/{transfer_id}/cancel", key=key))

    def dispute_transfer(self, transfer_id: str, key: str, **dispute: Any) -> Data:
        """Move a transfer from COMPLETED to DISPUTED. Raises Refused TRANSFER_INVALID_STATE or DISPUTE_CLOSED."""
        return dict(self._peer.post(f"/transfers/{transfer_id}/dispute", key=key, **dispute))

    def list_transfers(self, **query: Any) -> Data:
        """Read a page of transfers with its pagination."""
        return self._peer.get_page(f"/transfers?{_encode_query(query)}")

    def list_effects(self, **query: Any) -> EffectPage:
        """See `Participants.list_effects`."""
        return _read_effects(self._peer, query)

    def take_attempt(self, target: str, key: str, **party: str) -> Data:
        """Take one of the three attempts at a code. `target` is `orders/{id}` or `transfers/{id}`."""
        return dict(self._peer.post(f"/{target}/otp-attempts", key=key, **party))

    def close_attempt(self, target: str, key: str, outcome: str, **party: str) -> Data:
        """Record the outcome of an attempt: approved, wrong, unknown or expired."""
        return dict(self._peer.patch(f"/{target}/otp-attempts", key=key, outcome=outcome, **party))


class Events:
    """The Event service: event, hall, date and prices. Facts are cached for `EVENT_FACTS_SECONDS`."""

    def __init__(self, peer: HttpPeer) -> None:
        self._peer = peer
        self._cached: dict[str, tuple[float, Data]] = {}
        self._lock = Lock()

    def get(self, event_id: str) -> Data:
        """Read an event without its seats. Raises Refused EVENT_NOT_FOUND."""
        with self._lock:
            fetched_at, facts = self._cached.get(event_id, (float("-inf"), {}))
        if time.monotonic() - fetched_at < EVENT_FACTS_SECONDS:
            return facts
        facts = dict(self._peer.get(f"/events/{event_id}"))
        with self._lock:
            self._cached[event_id] = (time.monotonic(), facts)
        return facts

    def get_all(self, event_ids: Collection[str]) -> dict[str, Data]:
        """Read several events in one call for each MOST_EVENTS of them. An unknown event raises Refused."""
        with self._lock:
            fresh_from = time.monotonic() - EVENT_FACTS_SECONDS
            missing = sorted({i for i in event_ids if self._cached.get(i, (float("-inf"), {}))[0] < fresh_from})
        for start in range(0, len(missing), MOST_EVENTS):
            query = "&".join(f"event_id={event_id}" for event_id in missing[start : start + MOST_EVENTS])
            found = self._peer.get_page(f"/events?per_page={MOST_EVENTS}&{query}")["data"]
            with self._lock:
                self._cached |= {facts["event_id"]: (time.monotonic(), dict(facts)) for facts in found}
        return {event_id: self.get(event_id) for event_id in event_ids}


class Inventory:
    """The Inventory service: seats and their locks, over gRPC."""

    def __init__(self, peer: GrpcPeer, stub: InventoryStub, coalescer: ReserveCoalescer) -> None:
        self._peer = peer
        self._stub = stub
        self._coalescer = coalescer

    def reserve(
        self, seat_id: str, user_id: str, hold_id: str, ttl_seconds: int, replaces_hold_id: str = ""
    ) -> pb.Hold:
        """Hold a seat and publish the outcome to the requests that wait for it.

        `replaces_hold_id` is a hold of the same user, which ends if it still holds the seat.

        Raises Refused SEAT_NOT_FOUND, SEAT_UNAVAILABLE, SEAT_ALREADY_SOLD, HOLD_LIMIT_REACHED, TICKET_LIMIT_REACHED
        or HOLD_TOO_SOON.
        """
        request = pb.ReserveSeatRequest(
            seat_id=seat_id,
            user_id=user_id,
            hold_id=hold_id,
            ttl_seconds=ttl_seconds,
            replaces_hold_id=replaces_hold_id,
        )
        pending = self._coalescer.close(seat_id, hold_id)
        try:
            hold = self._call(self._stub.ReserveSeat, request)
            pending.publish(ErrorCode.SEAT_UNAVAILABLE, user_id)
        except Refused as refusal:
            holder = refusal.details.pop("held_by", None)
            # A refusal without a holder means a locked row. Its outcome is still open, so it is not shared.
            if holder or refusal.code is ErrorCode.SEAT_ALREADY_SOLD:
                pending.publish(ErrorCode(refusal.code), holder)
            raise
        finally:
            pending.publish()
        return hold

    def release(self, seat_id: str, hold_id: str) -> pb.Released:
        """Release a hold, or void its id so that it can never be made."""
        return self._call(self._stub.ReleaseSeat, pb.ReleaseSeatRequest(seat_id=seat_id, hold_id=hold_id))

    def confirm(self, **sale: str) -> pb.Sale:
        """Move a seat from HELD to SOLD. Raises Refused SEAT_NOT_HELD or HOLD_EXPIRED."""
        return self._call(self._stub.ConfirmSeat, pb.ConfirmSeatRequest(**sale))

    def update_owner(self, **change: Any) -> pb.Sale:
        """Change the owner under the same sale.

        Raises Refused SEAT_UNAVAILABLE or NOT_SEAT_OWNER, and TICKET_LIMIT_REACHED unless it is a return.
        """
        return self._call(self._stub.UpdateOwner, pb.UpdateOwnerRequest(**change))

    def cancel_sale(self, **sale: str) -> pb.Released:
        """Move a seat from SOLD to AVAILABLE. Raises Refused SEAT_UNAVAILABLE or NOT_SEAT_OWNER."""
        return self._call(self._stub.CancelSale, pb.CancelSaleRequest(**sale))

    def settle(self, key: str) -> bool:
        """Return whether the effect under `key` happened. If not, Inventory voids the key."""
        return bool(self._call(self._stub.Settle, pb.SettleRequest(key=key)).done)

    def list_effects(self, **query: Any) -> EffectPage:
        """See `Participants.list_effects`."""
        found = self._call(self._stub.ListEffects, pb.ListEffectsRequest(**query))
        return dict(found.outcomes), found.next

    def get_ticket(self, seat_id: str) -> pb.Seat:
        """Read a seat for a scan. Raises Refused SEAT_NOT_FOUND."""
        return self._read(self._stub.VerifyTicket, pb.SeatRequest(seat_id=seat_id))

    def get_owner(self, seat_id: str) -> pb.Seat:
        """Read a seat with its owner and its sale. Raises Refused SEAT_NOT_FOUND."""
        return self._read(self._stub.GetSeatOwner, pb.SeatRequest(seat_id=seat_id))

    def check_in(self, seat_id: str, order_id: str, expected_owner_id: str, facts: pb.ScanFacts) -> pb.Scan:
        """Admit the guest at most once and return the scan."""
        request = pb.MarkCheckedInRequest(
            seat_id=seat_id, order_id=order_id, expected_owner_id=expected_owner_id, facts=facts
        )
        return self._call(self._stub.MarkCheckedIn, request)

    def log_entry(self, seat_id: str, result: str, facts: pb.ScanFacts) -> pb.Scan:
        """Write a refused scan to the entry log."""
        return self._call(self._stub.LogEntry, pb.LogEntryRequest(seat_id=seat_id, result=result, facts=facts))

    def list_tickets(self, owner_user_id: str, sold_seat_ids: Iterable[str]) -> tuple[list[pb.Seat], list[pb.Seat]]:
        """List the seats that a user owns now, newest first, at most 100. Also read the seats that they have sold."""
        request = pb.ListTicketsRequest(owner_user_id=owner_user_id, sold_seat_ids=sold_seat_ids)
        found = self._read(self._stub.ListTickets, request)
        return list(found.seats), list(found.sold)

    def _read(self, method: Callable[..., Reply], request: Any) -> Reply:
        """Read with a short timeout, so that a retry reaches another replica soon."""
        reply: Reply = self._peer.call(method, request, READ_SECONDS)
        return reply

    def _call(self, method: Callable[..., Reply], request: Any) -> Reply:
        reply: Reply = self._peer.call(method, request)
        return reply


class MessagePublisher(Protocol):
    """The part of a RabbitMQ publisher that the orchestrator uses."""

    def send(self, exchange: str, routing_key: str, body: bytes, *, message_id: str, expiration_ms: int) -> Sent:
        """Send a message and return the broker's confirm, for which `publish` waits. It may send nothing."""

    def publish(
        self, exchange: str, routing_key: str, body: bytes, *, message_id: str, expiration_ms: int, sent: Sent = None
    ) -> None:
        """Publish, unless it was `sent`, and return once the broker has confirmed. Raises Unknown."""


class HoldMessages:
    """The messages that end holds, over RabbitMQ (§8). They dead-letter to Inventory just after the hold has expired.

    `message_id` is the hold's id, so a retry publishes the same message.
    """

    def __init__(self, publisher: MessagePublisher) -> None:
        self._publisher = publisher

    def send(self, seat_id: str, user_id: str, order_id: str, ttl_seconds: int) -> Sent:
        """Send the message of a hold without waiting for the broker."""
        return self._publisher.send(*self._message(seat_id, user_id, order_id), **_properties(order_id, ttl_seconds))

    def publish(self, seat_id: str, user_id: str, order_id: str, ttl_seconds: int, sent: Sent = None) -> None:
        """Publish the message of a hold, unless it was sent before. Raises Unknown."""
        message = self._message(seat_id, user_id, order_id)
        self._publisher.publish(*message, **_properties(order_id, ttl_seconds), sent=sent)

    @staticmethod
    def _message(seat_id: str, user_id: str, order_id: str) -> tuple[str, str, bytes]:
        message = {"seat_id": seat_id, "user_id": user_id, "order_id": order_id, "reserved_at": datetime.now(UTC)}
        return HOLD_EXCHANGE, HOLD_KEY, json_codec.encode(message)


def _properties(order_id: str, ttl_seconds: int) -> Any:
    return {"message_id": order_id, "expiration_ms": ttl_seconds * 1000 + EXPIRY_MARGIN_MS}


@dataclass(frozen=True)
class Participants:
    """The services that the steps of a saga call, and the seal for the tickets that they issue.

    `find_live_flow` returns the flow of the saga that is live for an order or transfer, or None.
    """

    users: Users
    orders: Orders
    events: Events
    inventory: Inventory
    hold_messages: HoldMessages
    seal: Seal
    find_live_flow: Callable[[UUID], str | None]
    neighbours: Mapping[Need, Neighbour] = field(default_factory=dict)

    def list_effects(self, store: Need, **query: Any) -> EffectPage:
        """Return the outcome of effects by key, and the `after` of the next page, or "" after the last one.

        The query has `keys`, or `after`, `max_age` and `min_age` in seconds.
        """
        services: Mapping[Need, Users | Orders | Inventory] = {
            Need.USERS: self.users,
            Need.ORDERS: self.orders,
            Need.INVENTORY: self.inventory,
        }
        return services[store].list_effects(**query)

    def refuse_if_away(self, needs: Iterable[Need]) -> None:
        """Raise Away if one of the needed neighbours is known to be away."""
        for need in needs:
            if need in self.neighbours:
                self.neighbours[need].refuse_if_away()


def _read_effects(peer: HttpPeer, query: Mapping[str, Any]) -> EffectPage:
    found = peer.post("/effects/list", **query)
    return dict(found["outcomes"]), str(found["next"])


def _encode_query(query: Mapping[str, Any]) -> str:
    return "&".join(f"{name}={value}" for name, value in query.items() if value is not None)
