"""Every text that we send, in one place (§9 leaves them open). `fields` fills the gaps; each may be missing."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

UNTOLD = "–"  # a message with a gap is better than none

SMS = {
    "transfer_initiated": "TicketRemaster: a transfer of a ticket for {event_name} at {credits_amount} credits was "
    "started. It needs the codes of both of you within 10 minutes. Not you? Cancel it. Transfer {transfer_id}",
    "transfer_completed": "TicketRemaster: the ticket for {event_name} has changed hands for {amount} credits. "
    "Transfer {transfer_id}",
    "transfer_disputed": "TicketRemaster: the transfer of a ticket for {event_name} is disputed; {credits_frozen} "
    "credits are frozen until our staff decide. Transfer {transfer_id}",
    "transfer_reversed": "TicketRemaster: the transfer of a ticket for {event_name} was reversed; {amount} credits "
    "went back to the buyer. Transfer {transfer_id}",
}


@dataclass(frozen=True)
class Email:
    subject: str
    body: str


EMAILS = {
    "booking_confirmed": Email(
        "Your TicketRemaster booking",
        "<h1>Booking confirmed</h1><p>{event_name}: {credits_charged} credits.</p><p>Order {order_id}</p>",
    ),
    "order_refunded": Email(
        "Your TicketRemaster refund",
        "<h1>Order refunded</h1><p>{event_name}: {price} credits are yours again.</p><p>Order {order_id}</p>",
    ),
}


class _Gaps(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return UNTOLD


def sms(message: str, fields: Mapping[str, Any]) -> str:
    """The text of an SMS."""
    return SMS[message].format_map(_told(fields))


def email(message: str, fields: Mapping[str, Any]) -> Email:
    """Subject and HTML body of an e-mail; what fills its gaps is escaped."""
    told = _Gaps({name: html.escape(value) for name, value in _told(fields).items()})
    return Email(EMAILS[message].subject, EMAILS[message].body.format_map(told))


def require_known(message: str) -> None:
    """Raise Refused VALIDATION_ERROR for a message that has no text."""
    if message not in SMS and message not in EMAILS:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"There is no message {message[:40]!r}.")


def _told(fields: Mapping[str, Any]) -> _Gaps:
    return _Gaps({name: str(value) for name, value in fields.items() if value is not None})
