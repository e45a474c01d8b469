"""The texts of all SMS and e-mails. Section 9 of the reference does not specify them.

A field that the caller does not give appears as `MISSING_FIELD`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSING_FIELD = "–"  # a message with a gap is better than no message

SMS = {
    "transfer_initiated": "TicketRemaster: the code that you got is for the transfer of a ticket for {event_name} from "
    "{seller} to {buyer} at {credits_amount} credits. It needs the codes of both within 10 minutes. Not you? Give your "
    "code to no one, and cancel the transfer. Transfer {transfer_id}",
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
        "<h1>Order refunded</h1><p>{event_name}: {price} credits are back in your balance.</p><p>Order {order_id}</p>",
    ),
}


class _Fields(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return MISSING_FIELD


def render_sms(message: str, fields: Mapping[str, Any]) -> str:
    """Render the text of an SMS."""
    return SMS[message].format_map(_format_fields(fields))


def render_email(message: str, fields: Mapping[str, Any]) -> Email:
    """Render subject and HTML body of an e-mail. Field values are escaped."""
    escaped = _Fields({name: html.escape(value) for name, value in _format_fields(fields).items()})
    return Email(EMAILS[message].subject, EMAILS[message].body.format_map(escaped))


def _format_fields(fields: Mapping[str, Any]) -> _Fields:
    return _Fields({name: str(value) for name, value in fields.items() if value is not None})
