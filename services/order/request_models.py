"""The JSON bodies of requests. An invalid body is refused with VALIDATION_ERROR or INVALID_UUID."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from services.contracts.enums import OrderStatus, TransferStatus
from services.contracts.money import Amount, is_amount

Key = Annotated[str, Meta(min_length=1, max_length=512)]
Sid = Annotated[str, Meta(min_length=1, max_length=128)]
Timestamp = Annotated[datetime, Meta(tz=True)]
Party = Literal["SELLER", "BUYER"]


class KeyedRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A request that changes something. `key` is `flow:subject:attempt:step`."""

    key: Key


class NewOrder(KeyedRequest, kw_only=True):
    order_id: UUID
    user_id: UUID
    seat_id: UUID
    event_id: UUID
    price: Amount
    expires_at: Timestamp
    otp_required: bool

    def __post_init__(self) -> None:
        try:
            self.expires_at = self.expires_at.astimezone(UTC)  # PostgreSQL accepts no offset beyond ±15:59
        except OverflowError:
            raise ValueError("expires_at is out of range") from None


class OrderChange(KeyedRequest, kw_only=True):
    """A new status, or the sid of a code that was sent. CONFIRMED needs the key of the charge.

    `is_repair` also confirms a FAILED order, because the journal proves the sale (`admin reconcile`).
    """

    status: Literal["CONFIRMED", "FAILED", "REFUNDED"] | None = None
    charge_key: Key | None = None
    verification_sid: Sid | None = None
    is_repair: Literal[True] | None = None

    def __post_init__(self) -> None:
        if (self.status is None) == (self.verification_sid is None):
            raise ValueError("send either status or verification_sid")
        if (self.status == OrderStatus.CONFIRMED) != (self.charge_key is not None):
            raise ValueError("send charge_key with status CONFIRMED, and only then")
        if self.is_repair and self.status != OrderStatus.CONFIRMED:
            raise ValueError("send is_repair only with status CONFIRMED")


class AttemptOutcome(KeyedRequest, kw_only=True):
    """The outcome of an attempt at a code. `key` is the key that took the attempt."""

    outcome: Literal["approved", "wrong", "unknown", "expired"]


class NewTransfer(KeyedRequest, kw_only=True):
    transfer_id: UUID
    seat_id: UUID
    order_id: UUID
    seller_user_id: UUID
    buyer_user_id: UUID
    initiated_by: Party
    credits_amount: Amount


_FIELDS_WITH: dict[str | None, list[set[str]]] = {  # the allowed sets of other fields for each status
    TransferStatus.FAILED: [set()],
    TransferStatus.REVERSED: [set()],
    TransferStatus.COMPLETED: [set(), {"expected"}, {"is_repair"}, {"expected", "is_repair"}],
    TransferStatus.PENDING_OTP: [{"seller_verification_sid", "buyer_verification_sid"}],
    None: [
        {"seller_verification_sid"},
        {"buyer_verification_sid"},
        {"seller_verification_sid", "buyer_verification_sid"},
        {"credits_frozen"},
        {"credits_frozen", "freeze_key"},
    ],
}


class TransferChange(KeyedRequest, kw_only=True):
    """A new status with its fields, the sids of resent codes, or the amount and key of a dispute's freeze.

    `expected` is the status that a transfer must have to become COMPLETED. PENDING_OTP completes transfer_confirm, and
    DISPUTED dismisses a dispute. `is_repair` completes a transfer whose codes or status were lost, because the journal
    proves its completion (`admin reconcile`).
    """

    status: Literal["PENDING_OTP", "COMPLETED", "FAILED", "REVERSED"] | None = None
    expected: Literal["PENDING_OTP", "DISPUTED"] | None = None
    seller_verification_sid: Sid | None = None
    buyer_verification_sid: Sid | None = None
    credits_frozen: Decimal | None = None
    freeze_key: Key | None = None
    is_repair: Literal[True] | None = None

    def __post_init__(self) -> None:
        if self.credits_frozen is not None and not is_amount(self.credits_frozen, positive=False):
            raise ValueError("credits_frozen must be an amount of at least 0 with at most two decimals")
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not None}
        if given - {"key", "status"} not in _FIELDS_WITH[self.status]:
            raise ValueError("these fields cannot be sent together")


class PartyAttempt(KeyedRequest, kw_only=True):
    """An attempt at the code of `party`, which the user `caller_id` enters. By default the party enters it."""

    party: Party
    caller_id: UUID | None = None


class PartyAttemptOutcome(AttemptOutcome, kw_only=True):
    party: Party
    caller_id: UUID | None = None


class DisputeRequest(KeyedRequest, kw_only=True):
    """`is_ticket_used` comes from Inventory. Order checks it under the key, so a retry gets its first answer."""

    is_ticket_used: bool = False
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]
