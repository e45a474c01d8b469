"""What the calls carry. A body that fits no shape is refused with VALIDATION_ERROR or INVALID_UUID."""

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
Moment = Annotated[datetime, Meta(tz=True)]
Party = Literal["SELLER", "BUYER"]


class Keyed(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A call with an effect. `key` is `flow:subject:attempt:step`."""

    key: Key


class NewOrder(Keyed, kw_only=True):
    order_id: UUID
    user_id: UUID
    seat_id: UUID
    event_id: UUID
    price: Amount
    expires_at: Moment
    otp_required: bool

    def __post_init__(self) -> None:
        try:
            self.expires_at = self.expires_at.astimezone(UTC)  # PostgreSQL takes no offset beyond ±15:59
        except OverflowError:
            raise ValueError("expires_at is out of range") from None


class OrderChange(Keyed, kw_only=True):
    """A status, with the key of its charge where it is CONFIRMED; or the sid of a code that was sent."""

    status: Literal["CONFIRMED", "FAILED", "REFUNDED"] | None = None
    charge_key: Key | None = None
    verification_sid: Sid | None = None

    def __post_init__(self) -> None:
        if (self.status is None) == (self.verification_sid is None):
            raise ValueError("send either status or verification_sid")
        if (self.status == OrderStatus.CONFIRMED) != (self.charge_key is not None):
            raise ValueError("charge_key goes with status CONFIRMED")


class AttemptEnd(Keyed, kw_only=True):
    """How an attempt at a code went. `key` is the key that the attempt was taken under."""

    outcome: Literal["approved", "wrong", "unknown", "expired"]


class NewTransfer(Keyed, kw_only=True):
    transfer_id: UUID
    seat_id: UUID
    order_id: UUID
    seller_user_id: UUID
    buyer_user_id: UUID
    initiated_by: Party
    credits_amount: Amount


_BESIDE: dict[str | None, list[set[str]]] = {  # what goes with each status; None: no status
    TransferStatus.FAILED: [set()],
    TransferStatus.REVERSED: [set()],
    TransferStatus.COMPLETED: [set(), {"expected"}],
    TransferStatus.PENDING_OTP: [{"seller_verification_sid", "buyer_verification_sid"}],
    None: [
        {"seller_verification_sid"},
        {"buyer_verification_sid"},
        {"seller_verification_sid", "buyer_verification_sid"},
        {"credits_frozen"},
        {"credits_frozen", "freeze_key"},
    ],
}


class TransferChange(Keyed, kw_only=True):
    """A status with what belongs to it; or sids of codes sent again; or what a dispute froze, and under which key.

    `expected` beside COMPLETED is the status that the transfer must have: PENDING_OTP ends a swap, DISPUTED dismisses.
    """

    status: Literal["PENDING_OTP", "COMPLETED", "FAILED", "REVERSED"] | None = None
    expected: Literal["PENDING_OTP", "DISPUTED"] | None = None
    seller_verification_sid: Sid | None = None
    buyer_verification_sid: Sid | None = None
    credits_frozen: Decimal | None = None
    freeze_key: Key | None = None

    def __post_init__(self) -> None:
        if self.credits_frozen is not None and not is_amount(self.credits_frozen, positive=False):
            raise ValueError("credits_frozen is an amount of credits with at most two decimals")
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not None}
        if given - {"key", "status"} not in _BESIDE[self.status]:
            raise ValueError("these fields do not go together")


class PartyAttempt(Keyed, kw_only=True):
    party: Party


class PartyAttemptEnd(AttemptEnd, kw_only=True):
    party: Party


class Dispute(Keyed, kw_only=True):
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]
