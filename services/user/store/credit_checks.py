"""The check that a buyer can pay a transfer, before the codes are sent.

Each answer to another user shows a part of the buyer's balance. Three refusals in a day are therefore the limit of one
initiator against one buyer. Checks that send no message are limited too.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from services.chassis import limits
from services.chassis.db import Database, Transaction
from services.chassis.errors import Refused
from services.chassis.limits import Count, Limit
from services.contracts.errors import ErrorCode

DAY_SECONDS = 24 * 3600
CHECKS_WITHOUT_MESSAGE = 10  # a day. Each may be followed by a refusal that depends on no balance
_WHAT = "transfers that this buyer could not pay. Let the buyer start the transfer"

_FIND = "SELECT email, credit_balance FROM users WHERE user_id = %(user_id)s"


@dataclass(frozen=True)
class CreditCheck:
    """A transfer that `initiator_id`, its seller or its buyer, is about to start."""

    seller_user_id: UUID
    buyer_user_id: UUID
    initiator_id: UUID
    amount: Decimal


def check(db: Database, transfer: CreditCheck, refusals_per_day: int) -> tuple[str, str]:
    """Return the e-mail addresses of seller and buyer if the buyer has the credits.

    Raises Refused USER_NOT_FOUND, INSUFFICIENT_CREDITS, or RATE_LIMITED with `retry_after` in seconds.
    """
    with db.transaction() as tx:
        seller = _find_email(tx, transfer.seller_user_id)
        buyer = _find_email(tx, transfer.buyer_user_id)
        has_enough = _check_counted(tx, transfer, refusals_per_day)
    if not has_enough:
        message = "The buyer does not have enough credits. Top up and try again."
        raise Refused(ErrorCode.INSUFFICIENT_CREDITS, message)
    return seller, buyer


def count_message(db: Database, initiator_id: UUID, buyer_id: UUID) -> None:
    """Stop counting the latest check, because its buyer has got a message."""
    with db.transaction() as tx:
        limits.give_latest_back(tx, _check_key(initiator_id, buyer_id))


def _find_email(tx: Transaction, user_id: UUID) -> str:
    found = tx.one(_FIND, user_id=user_id)
    if found is None:
        raise Refused(ErrorCode.USER_NOT_FOUND)
    return str(found["email"])


def _check_counted(tx: Transaction, transfer: CreditCheck, refusals_per_day: int) -> bool:
    """Whether the buyer has enough. The counts are taken first, so parallel checks cannot pass the limit."""
    initiator, buyer = transfer.initiator_id, transfer.buyer_user_id
    refusal = Count(f"refused-buyer:{initiator}:{buyer}", Limit(refusals_per_day, DAY_SECONDS), _WHAT)
    without_message = Count(_check_key(initiator, buyer), Limit(CHECKS_WITHOUT_MESSAGE, DAY_SECONDS), _WHAT)
    if initiator != buyer:
        limits.take(tx, refusal, without_message)
    has_enough = bool(tx.only(_FIND, user_id=buyer)["credit_balance"] >= transfer.amount)
    if initiator != buyer:
        limits.give_latest_back(tx, refusal.key if has_enough else without_message.key)
    return has_enough


def _check_key(initiator_id: UUID, buyer_id: UUID) -> str:
    return f"checked-buyer:{initiator_id}:{buyer_id}"
