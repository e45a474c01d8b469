"""Parses the fields of gRPC requests. An invalid field is refused with its name, so that it is never INTERNAL."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from uuid import UUID

from services.chassis.effect_routes import CENTURY
from services.chassis.effects import MOST_KEYS, EffectQuery
from services.chassis.errors import Refused
from services.contracts.enums import ScanResult
from services.contracts.errors import ErrorCode
from services.contracts.money import is_amount
from services.contracts.pb import inventory_pb2 as pb
from services.inventory.store.entries import ScanFacts
from services.inventory.store.holds import Hold
from services.inventory.store.sales import OwnerChange, Purchase, Ticket
from services.inventory.store.seats import TICKETS_LISTED

MAX_TTL_SECONDS = 300  # the TTL of the hold queue (§8)
MAX_TEXT = 200
MAX_HALL = 20  # varchar(20) in §3
_SHA256 = re.compile(r"[0-9a-f]{64}")


def id_of(text: str, name: str) -> UUID:
    """A UUID. Raises Refused INVALID_UUID."""
    try:
        return UUID(text)
    except ValueError:
        raise Refused(ErrorCode.INVALID_UUID, f"{name} {text[:64]!r} is not a UUID.") from None


def text_of(text: str, name: str, limit: int = MAX_TEXT) -> str:
    """Text of 1 to `limit` characters that PostgreSQL can hold. Raises Refused VALIDATION_ERROR."""
    if not 1 <= len(text) <= limit or "\0" in text:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"{name} is 1 to {limit} characters without NUL.")
    return text


def amount_of(text: str, name: str) -> Decimal:
    """Credits, positive and with at most two decimals. Raises Refused VALIDATION_ERROR."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not is_amount(amount):
        raise Refused(ErrorCode.VALIDATION_ERROR, f"{name} is a positive amount with two decimals.")
    return amount


def hash_of(text: str) -> str:
    """A SHA-256 in lower-case hex. Raises Refused VALIDATION_ERROR."""
    if not _SHA256.fullmatch(text):
        raise Refused(ErrorCode.VALIDATION_ERROR, "qr_code_hash is a SHA-256 in lower-case hex.")
    return text


def seat_ids_of(request: pb.ListTicketsRequest) -> list[UUID]:
    """The seats that the user has sold. Raises Refused INVALID_UUID, VALIDATION_ERROR."""
    if len(request.sold_seat_ids) > TICKETS_LISTED:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"sold_seat_ids has at most {TICKETS_LISTED} ids.")
    return [id_of(text, "sold_seat_ids") for text in request.sold_seat_ids]


def effect_query_of(request: pb.ListEffectsRequest) -> EffectQuery:
    """The effects to list. Raises Refused VALIDATION_ERROR."""
    if len(request.keys) > MOST_KEYS:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"keys has at most {MOST_KEYS} keys.")
    if not all(0 <= age <= CENTURY for age in (request.max_age, request.min_age)):
        raise Refused(ErrorCode.VALIDATION_ERROR, f"max_age and min_age are 0 to {CENTURY} seconds.")
    keys = [text_of(key, "keys") for key in request.keys]
    after = text_of(request.after, "after") if request.after else ""
    return EffectQuery(keys, after, request.max_age, request.min_age)


def hold_of(request: pb.ReserveSeatRequest) -> Hold:
    """The requested hold. Raises Refused INVALID_UUID, VALIDATION_ERROR."""
    if not 1 <= request.ttl_seconds <= MAX_TTL_SECONDS:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"ttl_seconds is 1 to {MAX_TTL_SECONDS}.")
    return Hold(
        id_of(request.seat_id, "seat_id"),
        id_of(request.user_id, "user_id"),
        id_of(request.hold_id, "hold_id"),
        request.ttl_seconds,
        id_of(request.replaces_hold_id, "replaces_hold_id") if request.replaces_hold_id else None,
    )


def purchase_of(request: pb.ConfirmSeatRequest) -> Purchase:
    """The requested sale. Raises Refused INVALID_UUID, VALIDATION_ERROR."""
    return Purchase(
        id_of(request.seat_id, "seat_id"),
        id_of(request.hold_id, "hold_id"),
        id_of(request.order_id, "order_id"),
        id_of(request.user_id, "user_id"),
        amount_of(request.price, "price"),
        hash_of(request.qr_code_hash),
    )


def ticket_of(request: pb.UpdateOwnerRequest | pb.CancelSaleRequest | pb.MarkCheckedInRequest) -> Ticket:
    """The sale and owner that the caller expects. Raises Refused INVALID_UUID."""
    return Ticket(
        id_of(request.seat_id, "seat_id"),
        id_of(request.order_id, "order_id"),
        id_of(request.expected_owner_id, "expected_owner_id"),
    )


def owner_change_of(request: pb.UpdateOwnerRequest) -> OwnerChange:
    """The new owner. Raises Refused INVALID_UUID, VALIDATION_ERROR."""
    new_owner_id = id_of(request.new_owner_id, "new_owner_id")
    return OwnerChange(new_owner_id, hash_of(request.qr_code_hash), request.is_return)


def scan_facts_of(facts: pb.ScanFacts) -> ScanFacts:
    """The staff member, the scan_id, halls and event of a scan. Raises Refused INVALID_UUID, VALIDATION_ERROR."""
    return ScanFacts(
        text_of(facts.scan_id, "scan_id"),
        id_of(facts.staff_id, "staff_id"),
        hall_id_presented=_hall(facts.hall_id_presented, "hall_id_presented"),
        hall_id_expected=_hall(facts.hall_id_expected, "hall_id_expected"),
        hall_id_staff=_hall(facts.hall_id_staff, "hall_id_staff"),
        event_id_staff=id_of(facts.event_id_staff, "event_id_staff") if facts.event_id_staff else None,
    )


def _hall(text: str, name: str) -> str | None:
    return text_of(text, name, MAX_HALL) if text else None


def refused_result_of(text: str) -> ScanResult:
    """A result other than SUCCESS, which only MarkCheckedIn may return. Raises Refused VALIDATION_ERROR."""
    if text not in ScanResult.__members__ or text == ScanResult.SUCCESS:
        raise Refused(ErrorCode.VALIDATION_ERROR, "result is a ScanResult other than SUCCESS.")
    return ScanResult(text)
