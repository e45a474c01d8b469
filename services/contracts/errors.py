"""The error table: each error code with its HTTP status, gRPC status and default message.

`specs/` documents the same codes, and a contract test compares both. Each message names the user's next step.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ErrorCode(StrEnum):
    """The values of `error_code` in an error response."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    INVALID_UUID = "INVALID_UUID"
    SELF_TRANSFER = "SELF_TRANSFER"
    QR_INVALID = "QR_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - an error code, not a secret
    OTP_INVALID = "OTP_INVALID"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    FORBIDDEN = "FORBIDDEN"
    NOT_SEAT_OWNER = "NOT_SEAT_OWNER"
    NOT_FOUND = "NOT_FOUND"
    SEAT_NOT_FOUND = "SEAT_NOT_FOUND"
    ORDER_NOT_FOUND = "ORDER_NOT_FOUND"
    TRANSFER_NOT_FOUND = "TRANSFER_NOT_FOUND"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    EVENT_NOT_FOUND = "EVENT_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    SEAT_UNAVAILABLE = "SEAT_UNAVAILABLE"
    SEAT_ALREADY_SOLD = "SEAT_ALREADY_SOLD"
    SEAT_NOT_HELD = "SEAT_NOT_HELD"
    HOLD_LIMIT_REACHED = "HOLD_LIMIT_REACHED"
    TICKET_LIMIT_REACHED = "TICKET_LIMIT_REACHED"
    HOLD_TOO_SOON = "HOLD_TOO_SOON"
    ORDER_ALREADY_CONFIRMED = "ORDER_ALREADY_CONFIRMED"
    ORDER_FAILED = "ORDER_FAILED"
    ORDER_NOT_REFUNDABLE = "ORDER_NOT_REFUNDABLE"
    TRANSFER_IN_PROGRESS = "TRANSFER_IN_PROGRESS"
    TRANSFER_INVALID_STATE = "TRANSFER_INVALID_STATE"
    DISPUTE_CLOSED = "DISPUTE_CLOSED"
    RESALE_PRICE_TOO_HIGH = "RESALE_PRICE_TOO_HIGH"
    EMAIL_ALREADY_EXISTS = "EMAIL_ALREADY_EXISTS"
    CREDITS_UNAVAILABLE = "CREDITS_UNAVAILABLE"
    REQUEST_IN_PROGRESS = "REQUEST_IN_PROGRESS"
    STEP_VOIDED = "STEP_VOIDED"
    HOLD_EXPIRED = "HOLD_EXPIRED"
    EVENT_ENDED = "EVENT_ENDED"
    OTP_EXPIRED = "OTP_EXPIRED"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    OTP_REQUIRED = "OTP_REQUIRED"
    OTP_MAX_RETRIES = "OTP_MAX_RETRIES"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"


class Meaning(NamedTuple):
    """The HTTP status, the gRPC status name and the default message of one error code."""

    http: int
    grpc: str
    message: str


_C = ErrorCode
ERRORS: dict[ErrorCode, Meaning] = {
    _C.VALIDATION_ERROR: Meaning(400, "INVALID_ARGUMENT", "The request is not valid. Correct it and send it again."),
    _C.INVALID_UUID: Meaning(
        400, "INVALID_ARGUMENT", "An id is not a UUID. Send it as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx."
    ),
    _C.SELF_TRANSFER: Meaning(400, "INVALID_ARGUMENT", "Seller and buyer are the same person. Name another buyer."),
    _C.QR_INVALID: Meaning(
        400,
        "INVALID_ARGUMENT",
        "This QR code is not a TicketRemaster ticket. The guest must refresh the ticket in the app.",
    ),
    _C.UNAUTHORIZED: Meaning(401, "UNAUTHENTICATED", "Log in and send the access token as a bearer token."),
    _C.TOKEN_EXPIRED: Meaning(401, "UNAUTHENTICATED", "The token has expired. Refresh it or log in again."),
    _C.OTP_INVALID: Meaning(401, "UNAUTHENTICATED", "The code is wrong. Check the SMS and try again."),
    _C.INSUFFICIENT_CREDITS: Meaning(402, "FAILED_PRECONDITION", "Not enough credits. Top up and try again."),
    _C.FORBIDDEN: Meaning(403, "PERMISSION_DENIED", "This account is not allowed to do that. Use another account."),
    _C.NOT_SEAT_OWNER: Meaning(
        403, "PERMISSION_DENIED", "Only the owner of the seat is allowed to do that. Log in as the owner."
    ),
    _C.NOT_FOUND: Meaning(404, "NOT_FOUND", "This address does not exist. Check the path."),
    _C.SEAT_NOT_FOUND: Meaning(404, "NOT_FOUND", "This seat does not exist. Check the seat's id."),
    _C.ORDER_NOT_FOUND: Meaning(404, "NOT_FOUND", "This order does not exist. Check the order's id."),
    _C.TRANSFER_NOT_FOUND: Meaning(404, "NOT_FOUND", "This transfer does not exist. Check the transfer's id."),
    _C.USER_NOT_FOUND: Meaning(404, "NOT_FOUND", "This user does not exist. Check the user's id."),
    _C.EVENT_NOT_FOUND: Meaning(404, "NOT_FOUND", "This event does not exist. Check the event's id."),
    _C.METHOD_NOT_ALLOWED: Meaning(
        405, "UNIMPLEMENTED", "This address does not accept this HTTP method. Use a documented method."
    ),
    _C.PAYLOAD_TOO_LARGE: Meaning(413, "INVALID_ARGUMENT", "The request body is too large. Send a smaller one."),
    _C.UNSUPPORTED_MEDIA_TYPE: Meaning(415, "INVALID_ARGUMENT", "Send the body as application/json."),
    _C.SEAT_UNAVAILABLE: Meaning(409, "ABORTED", "This seat is no longer available. Please select another."),
    _C.SEAT_ALREADY_SOLD: Meaning(409, "FAILED_PRECONDITION", "This seat is sold. Please select another."),
    _C.SEAT_NOT_HELD: Meaning(409, "FAILED_PRECONDITION", "The seat is not held for this order. Reserve it again."),
    _C.HOLD_LIMIT_REACHED: Meaning(
        409,
        "FAILED_PRECONDITION",
        "You hold as many seats of this event as one account may. Pay one of them, or wait until its hold ends.",
    ),
    _C.TICKET_LIMIT_REACHED: Meaning(
        409,
        "FAILED_PRECONDITION",
        "Your tickets and held seats are as many as one account may have for this event. Choose another event.",
    ),
    _C.HOLD_TOO_SOON: Meaning(
        409, "FAILED_PRECONDITION", "Your last hold of this seat has lapsed. Wait, or select another seat."
    ),
    _C.ORDER_ALREADY_CONFIRMED: Meaning(409, "FAILED_PRECONDITION", "This order is already paid. See your tickets."),
    _C.ORDER_FAILED: Meaning(409, "FAILED_PRECONDITION", "This order has failed. Reserve the seat again."),
    _C.ORDER_NOT_REFUNDABLE: Meaning(
        409, "FAILED_PRECONDITION", "This order cannot be refunded in its current status. Check the status."
    ),
    _C.TRANSFER_IN_PROGRESS: Meaning(
        409, "ALREADY_EXISTS", "A transfer of this seat is in progress. Complete or cancel it first."
    ),
    _C.TRANSFER_INVALID_STATE: Meaning(
        409, "FAILED_PRECONDITION", "The status of the transfer does not allow that. Check the status."
    ),
    _C.DISPUTE_CLOSED: Meaning(
        409, "FAILED_PRECONDITION", "This transfer can no longer be disputed. Contact the support."
    ),
    _C.RESALE_PRICE_TOO_HIGH: Meaning(
        409, "FAILED_PRECONDITION", "The price is above the limit for resale. Start the transfer with a lower price."
    ),
    _C.EMAIL_ALREADY_EXISTS: Meaning(
        409, "ALREADY_EXISTS", "This e-mail address is already registered. Log in instead."
    ),
    _C.CREDITS_UNAVAILABLE: Meaning(
        409, "FAILED_PRECONDITION", "The seller no longer has these credits. Try again when the seller has enough."
    ),
    _C.REQUEST_IN_PROGRESS: Meaning(409, "ABORTED", "The same request is still running. Try again shortly."),
    _C.STEP_VOIDED: Meaning(409, "ABORTED", "This step was cancelled before it ran, so nothing happened. Start again."),
    _C.HOLD_EXPIRED: Meaning(410, "FAILED_PRECONDITION", "The hold has expired. Reserve the seat again."),
    _C.EVENT_ENDED: Meaning(410, "FAILED_PRECONDITION", "The event is over. Choose another event."),
    _C.OTP_EXPIRED: Meaning(410, "FAILED_PRECONDITION", "The code has expired. Request a new one."),
    _C.IDEMPOTENCY_KEY_REUSED: Meaning(
        422, "INVALID_ARGUMENT", "This Idempotency-Key was used with another body. Use a new key."
    ),
    _C.OTP_REQUIRED: Meaning(428, "FAILED_PRECONDITION", "Verify the code that we sent by SMS, then pay."),
    _C.OTP_MAX_RETRIES: Meaning(
        429, "RESOURCE_EXHAUSTED", "Three codes were wrong. Reserve the seat again or start a new transfer."
    ),
    _C.RATE_LIMITED: Meaning(429, "RESOURCE_EXHAUSTED", "Too many requests. Wait and try again."),
    _C.INTERNAL_ERROR: Meaning(500, "INTERNAL", "Something went wrong and was undone. Nothing was charged. Try again."),
    _C.SERVICE_UNAVAILABLE: Meaning(503, "UNAVAILABLE", "The service is unavailable right now. Try again shortly."),
}
