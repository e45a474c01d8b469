"""The error table: every code that crosses a wire, with its HTTP status, gRPC status and default message.

`specs/` documents the same codes; a test holds the two together. Messages say what to do next.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ErrorCode(StrEnum):
    """Names of refusals and failures, as clients read them in `error_code`."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    INVALID_UUID = "INVALID_UUID"
    SELF_TRANSFER = "SELF_TRANSFER"
    QR_INVALID = "QR_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a code, not a secret
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
    ORDER_ALREADY_CONFIRMED = "ORDER_ALREADY_CONFIRMED"
    ORDER_FAILED = "ORDER_FAILED"
    ORDER_NOT_REFUNDABLE = "ORDER_NOT_REFUNDABLE"
    TRANSFER_IN_PROGRESS = "TRANSFER_IN_PROGRESS"
    TRANSFER_INVALID_STATE = "TRANSFER_INVALID_STATE"
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
    """What a code is on the wire: HTTP status, gRPC status name, and the message when none is given."""

    http: int
    grpc: str
    message: str


_C = ErrorCode
ERRORS: dict[ErrorCode, Meaning] = {
    _C.VALIDATION_ERROR: Meaning(400, "INVALID_ARGUMENT", "The request is not valid; correct it and send it again."),
    _C.INVALID_UUID: Meaning(
        400, "INVALID_ARGUMENT", "An id is not a UUID; send it as xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx."
    ),
    _C.SELF_TRANSFER: Meaning(400, "INVALID_ARGUMENT", "Seller and buyer are the same person; name another buyer."),
    _C.QR_INVALID: Meaning(
        400, "INVALID_ARGUMENT", "This QR code is not one of ours; ask the guest to refresh the ticket."
    ),
    _C.UNAUTHORIZED: Meaning(401, "UNAUTHENTICATED", "Log in and send the access token as a bearer token."),
    _C.TOKEN_EXPIRED: Meaning(401, "UNAUTHENTICATED", "The token has expired; refresh it or log in again."),
    _C.OTP_INVALID: Meaning(401, "UNAUTHENTICATED", "That code is wrong; check the SMS and try again."),
    _C.INSUFFICIENT_CREDITS: Meaning(402, "FAILED_PRECONDITION", "Not enough credits; top up and try again."),
    _C.FORBIDDEN: Meaning(403, "PERMISSION_DENIED", "This account may not do that."),
    _C.NOT_SEAT_OWNER: Meaning(403, "PERMISSION_DENIED", "Only the seat's owner may do that."),
    _C.NOT_FOUND: Meaning(404, "NOT_FOUND", "There is nothing at this address."),
    _C.SEAT_NOT_FOUND: Meaning(404, "NOT_FOUND", "There is no such seat."),
    _C.ORDER_NOT_FOUND: Meaning(404, "NOT_FOUND", "There is no such order."),
    _C.TRANSFER_NOT_FOUND: Meaning(404, "NOT_FOUND", "There is no such transfer."),
    _C.USER_NOT_FOUND: Meaning(404, "NOT_FOUND", "There is no such user."),
    _C.EVENT_NOT_FOUND: Meaning(404, "NOT_FOUND", "There is no such event."),
    _C.METHOD_NOT_ALLOWED: Meaning(405, "UNIMPLEMENTED", "This address does not take that method."),
    _C.PAYLOAD_TOO_LARGE: Meaning(413, "INVALID_ARGUMENT", "The body is too large."),
    _C.UNSUPPORTED_MEDIA_TYPE: Meaning(415, "INVALID_ARGUMENT", "Send the body as application/json."),
    _C.SEAT_UNAVAILABLE: Meaning(409, "ABORTED", "This seat is no longer available. Please select another."),
    _C.SEAT_ALREADY_SOLD: Meaning(409, "FAILED_PRECONDITION", "This seat is sold. Please select another."),
    _C.SEAT_NOT_HELD: Meaning(409, "FAILED_PRECONDITION", "The seat is not held for this order; reserve it again."),
    _C.ORDER_ALREADY_CONFIRMED: Meaning(409, "FAILED_PRECONDITION", "This order is already paid; see your tickets."),
    _C.ORDER_FAILED: Meaning(409, "FAILED_PRECONDITION", "This order has failed; reserve the seat again."),
    _C.ORDER_NOT_REFUNDABLE: Meaning(409, "FAILED_PRECONDITION", "This order cannot be refunded as it stands."),
    _C.TRANSFER_IN_PROGRESS: Meaning(
        409, "ALREADY_EXISTS", "A transfer of this seat is under way; finish or cancel it first."
    ),
    _C.TRANSFER_INVALID_STATE: Meaning(409, "FAILED_PRECONDITION", "The transfer's status does not allow that."),
    _C.EMAIL_ALREADY_EXISTS: Meaning(409, "ALREADY_EXISTS", "This e-mail address is registered; log in instead."),
    _C.CREDITS_UNAVAILABLE: Meaning(409, "FAILED_PRECONDITION", "The seller no longer has these credits."),
    _C.REQUEST_IN_PROGRESS: Meaning(409, "ABORTED", "The same request is still running; ask again shortly."),
    _C.STEP_VOIDED: Meaning(409, "ABORTED", "This step was undone before it arrived; nothing happened."),
    _C.HOLD_EXPIRED: Meaning(410, "FAILED_PRECONDITION", "The hold has expired; reserve the seat again."),
    _C.EVENT_ENDED: Meaning(410, "FAILED_PRECONDITION", "The event is over."),
    _C.OTP_EXPIRED: Meaning(410, "FAILED_PRECONDITION", "The code has expired; ask for a new one."),
    _C.IDEMPOTENCY_KEY_REUSED: Meaning(
        422, "INVALID_ARGUMENT", "This Idempotency-Key belongs to another body; use a new key."
    ),
    _C.OTP_REQUIRED: Meaning(428, "FAILED_PRECONDITION", "Verify the code that we sent by SMS, then pay."),
    _C.OTP_MAX_RETRIES: Meaning(429, "RESOURCE_EXHAUSTED", "Three wrong codes: it has been cancelled. Start again."),
    _C.RATE_LIMITED: Meaning(429, "RESOURCE_EXHAUSTED", "Too many requests; wait and try again."),
    _C.INTERNAL_ERROR: Meaning(500, "INTERNAL", "Something went wrong and was undone; nothing was charged. Try again."),
    _C.SERVICE_UNAVAILABLE: Meaning(503, "UNAVAILABLE", "The service cannot answer right now; try again shortly."),
}
