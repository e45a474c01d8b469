"""The gRPC service of proto/inventory.proto: parses the request, calls the store, and logs and counts the result."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from services.chassis import effects
from services.chassis.db import Database, Row
from services.chassis.errors import Refused
from services.chassis.keys import PublicKeys
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryServicer
from services.inventory import metrics, request_parsing
from services.inventory.grpc_server import rpc
from services.inventory.store import entries, holds, sales, seats

logger = logging.getLogger(__name__)
ORCHESTRATOR = "orchestrator-service"


class Inventory(InventoryServicer):
    """Each call is safe to retry, because each write has a key. The proto lists the refusals of each call."""

    def __init__(self, db: Database, service_keys: PublicKeys, limits: holds.Limits = holds.DEFAULT_LIMITS) -> None:
        self.service_keys = service_keys
        self._db = db
        self._limits = limits

    @rpc(ORCHESTRATOR)
    def ReserveSeat(self, request: pb.ReserveSeatRequest) -> pb.Hold:  # noqa: N802
        hold = request_parsing.hold_of(request)
        try:
            answer = holds.reserve(self._db, hold, self._limits)
        except holds.RowLocked:
            metrics.NOWAIT_LOSSES.inc()
            raise
        metrics.HOLDS.inc()
        if answer.pop("taken_over", False):
            metrics.TAKEOVERS.inc()
        logger.info("Seat %s HELD for user %s, TTL %d s", hold.seat_id, hold.user_id, hold.ttl_seconds)
        held_until = answer.pop("held_until")
        return pb.Hold(**answer, held_until=_moment(datetime.fromisoformat(held_until)))

    @rpc(ORCHESTRATOR)
    def ReleaseSeat(self, request: pb.ReleaseSeatRequest) -> pb.Released:  # noqa: N802
        seat_id = request_parsing.id_of(request.seat_id, "seat_id")
        hold_id = request_parsing.id_of(request.hold_id, "hold_id")
        released = holds.release(self._db, hold_id)
        if released:
            metrics.RELEASES.labels("call").inc()
            logger.info("Seat %s released: hold %s was given back", seat_id, hold_id)
        return pb.Released(seat_id=str(seat_id), released=released)

    @rpc(ORCHESTRATOR)
    def ConfirmSeat(self, request: pb.ConfirmSeatRequest) -> pb.Sale:  # noqa: N802
        answer = sales.confirm(self._db, _key(request), request_parsing.purchase_of(request))
        metrics.SALES.inc()
        logger.info("Seat %s status: HELD → SOLD, order %s", answer["seat_id"], answer["order_id"])
        return pb.Sale(**answer)

    @rpc(ORCHESTRATOR)
    def UpdateOwner(self, request: pb.UpdateOwnerRequest) -> pb.Sale:  # noqa: N802
        ticket, change = request_parsing.ticket_of(request), request_parsing.owner_change_of(request)
        answer = sales.update_owner(self._db, _key(request), ticket, change, self._limits.max_tickets)
        logger.info("Seat %s has a new owner: %s", answer["seat_id"], change.new_owner_id)
        return pb.Sale(**answer)

    @rpc(ORCHESTRATOR)
    def CancelSale(self, request: pb.CancelSaleRequest) -> pb.Released:  # noqa: N802
        ticket = request_parsing.ticket_of(request)
        sales.cancel(self._db, _key(request), ticket)
        logger.info("Seat %s status: SOLD → AVAILABLE, order %s cancelled", ticket.seat_id, ticket.order_id)
        return pb.Released(seat_id=str(ticket.seat_id), released=True)

    @rpc(ORCHESTRATOR)
    def Settle(self, request: pb.SettleRequest) -> pb.Settlement:  # noqa: N802
        return pb.Settlement(done=effects.settle(self._db, _key(request)) is not None)

    @rpc(ORCHESTRATOR)
    def ListEffects(self, request: pb.ListEffectsRequest) -> pb.Effects:  # noqa: N802
        outcomes, following = effects.list_outcomes(self._db, request_parsing.effect_query_of(request))
        return pb.Effects(outcomes=outcomes, next=following)

    @rpc(ORCHESTRATOR)
    def VerifyTicket(self, request: pb.SeatRequest) -> pb.Seat:  # noqa: N802
        return self._seat(request)

    @rpc(ORCHESTRATOR)
    def GetSeatOwner(self, request: pb.SeatRequest) -> pb.Seat:  # noqa: N802
        return self._seat(request)

    @rpc(ORCHESTRATOR)
    def MarkCheckedIn(self, request: pb.MarkCheckedInRequest) -> pb.Scan:  # noqa: N802
        ticket, facts = request_parsing.ticket_of(request), request_parsing.scan_facts_of(request.facts)
        return _scan(entries.check_in(self._db, ticket, facts))

    @rpc(ORCHESTRATOR)
    def LogEntry(self, request: pb.LogEntryRequest) -> pb.Scan:  # noqa: N802
        seat_id = request_parsing.id_of(request.seat_id, "seat_id") if request.seat_id else None
        result = request_parsing.refused_result_of(request.result)
        return _scan(entries.log(self._db, seat_id, result, request_parsing.scan_facts_of(request.facts)))

    @rpc(ORCHESTRATOR)
    def ListTickets(self, request: pb.ListTicketsRequest) -> pb.Tickets:  # noqa: N802
        owner_user_id = request_parsing.id_of(request.owner_user_id, "owner_user_id")
        sold_seat_ids = request_parsing.seat_ids_of(request)
        owned, sold = seats.owned_by(self._db, owner_user_id), seats.find_all(self._db, sold_seat_ids)
        return pb.Tickets(seats=[_seat(row) for row in owned], sold=[_seat(row) for row in sold])

    def _seat(self, request: pb.SeatRequest) -> pb.Seat:
        row = seats.find(self._db, request_parsing.id_of(request.seat_id, "seat_id"))
        if row is None:
            raise Refused(ErrorCode.SEAT_NOT_FOUND)
        return _seat(row)


def _key(request: Any) -> str:
    return request_parsing.text_of(request.key, "key")


def _moment(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _text(value: UUID | None) -> str:
    return "" if value is None else str(value)


def _seat(row: Row) -> pb.Seat:
    return pb.Seat(
        seat_id=str(row["seat_id"]),
        event_id=str(row["event_id"]),
        status=row["status"],
        owner_user_id=_text(row["owner_user_id"]),
        order_id=_text(row["order_id"]),
        row_number=row["row_number"],
        seat_number=row["seat_number"],
        category=row["category"],
        price_paid="" if row["price_paid"] is None else str(row["price_paid"]),
        held_until=_moment(row["held_until"]),
        held_by_user_id=_text(row["held_by_user_id"]),
        hold_id=_text(row["hold_id"]),
    )


def _scan(entry: Row) -> pb.Scan:
    metrics.SCANS.labels(entry["result"]).inc()
    logger.info("Scan of seat %s: %s", entry["seat_id"], entry["result"])
    return pb.Scan(
        result=entry["result"],
        scanned_at=_moment(entry["scanned_at"]),
        first_scanned_at=_moment(entry["first_scanned_at"]),
        first_staff_id=_text(entry["first_staff_id"]),
    )
