"""Credits as a keyed ledger (D6 of the decisions). A balance is the sum of its entries.

Each function locks the rows of its users in the order of their ids before it writes keys (R8). So two opposite
movements between two users wait for each other and cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Row, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

# Hot path: the whole transaction is one statement. The UPDATE checks the balance and locks the row. Its result goes
# into the ledger and into the record of the effect.
_DEDUCT = """
WITH account AS (
    UPDATE users SET credit_balance = credit_balance - %(amount)s
    WHERE user_id = %(user_id)s AND credit_balance >= %(amount)s
    RETURNING user_id, credit_balance
), entry AS (
    INSERT INTO credit_entries (key, user_id, amount, kind)
    SELECT %(key)s, user_id, -%(amount)s, 'DEDUCT' FROM account
), record AS (
    INSERT INTO effects (key, outcome, answer)
    SELECT %(key)s, 'DONE', jsonb_build_object('amount', %(amount)s, 'credit_balance', credit_balance) FROM account
    RETURNING answer
)
SELECT answer FROM record"""

_MOVE = """
WITH account AS (
    UPDATE users SET credit_balance = credit_balance + %(amount)s
    WHERE user_id = %(user_id)s AND credit_balance + %(amount)s >= 0
    RETURNING user_id, credit_balance
), entry AS (
    INSERT INTO credit_entries (key, user_id, amount, kind)
    SELECT %(key)s, user_id, %(amount)s, %(kind)s FROM account
)
SELECT credit_balance FROM account"""

_FREEZE = """
WITH account AS (
    UPDATE users SET credit_balance = credit_balance - %(amount)s, frozen_credits = frozen_credits + %(amount)s
    WHERE user_id = %(user_id)s AND credit_balance >= %(amount)s
    RETURNING user_id, credit_balance
), entry AS (
    INSERT INTO credit_entries (key, user_id, amount, kind)
    SELECT %(key)s, user_id, -%(amount)s, 'FREEZE' FROM account
), hold AS (
    INSERT INTO credit_holds (key, user_id, amount)
    SELECT %(key)s, user_id, %(amount)s FROM account
)
SELECT credit_balance FROM account"""

_BALANCE = "SELECT credit_balance FROM users WHERE user_id = %(user_id)s"
_LOCK = _BALANCE + " FOR UPDATE"
_DEDUCTED = "SELECT user_id, amount FROM credit_entries WHERE key = %(key)s AND kind = 'DEDUCT'"

_LOCK_HOLDER = """
SELECT user_id FROM users
WHERE user_id = (SELECT user_id FROM credit_entries WHERE key = %(key)s AND kind = 'FREEZE') FOR UPDATE"""

_LOCK_PARTIES = """
SELECT user_id FROM users
WHERE user_id = %(to_user_id)s OR user_id IN (SELECT user_id FROM credit_holds WHERE key = ANY(%(keys)s))
ORDER BY user_id FOR UPDATE"""

_DELETE_HOLDS = """
WITH hold AS (
    DELETE FROM credit_holds WHERE key = ANY(%(keys)s) RETURNING key, user_id, amount
), total AS (
    SELECT user_id, sum(amount) AS amount FROM hold GROUP BY user_id
), account AS (
    UPDATE users SET frozen_credits = frozen_credits - total.amount FROM total WHERE users.user_id = total.user_id
)
SELECT key, user_id, amount FROM hold"""

# A freeze with `at_most` of an empty balance has a record but no hold.
_FIND_EMPTY_FREEZES = """
SELECT key FROM effects
WHERE key = ANY(%(keys)s) AND outcome = 'DONE' AND (answer ->> 'amount')::numeric = 0"""


def deduct(db: Database, key: str, user_id: UUID, amount: Decimal) -> Answer:
    """Deduct `amount` and record the answer under `key`, as an attempt for `effects.apply_recorded`.

    Raises Refused INSUFFICIENT_CREDITS or USER_NOT_FOUND, and UniqueViolation if the key exists.
    """
    deducted = db.statement(_DEDUCT, key=key, user_id=user_id, amount=amount)
    if deducted is None:
        raise _refusal(db.statement(_BALANCE, user_id=user_id))
    answer: Answer = deducted["answer"]
    return answer


def refund(tx: Transaction, key: str) -> UUID:
    """Give back the amount of the deduct under `key`, and return its user.

    Raises Refused VALIDATION_ERROR for any other key.
    """
    deducted = tx.one(_DEDUCTED, key=key)
    if deducted is None:
        raise Refused(ErrorCode.VALIDATION_ERROR, "This key belongs to no deduct.")
    tx.one(_MOVE, key=f"{key}:refund", user_id=deducted["user_id"], amount=-deducted["amount"], kind="REFUND")
    user_id: UUID = deducted["user_id"]
    return user_id


def freeze(tx: Transaction, key: str, user_id: UUID, amount: Decimal, *, at_most: bool) -> Answer:
    """Move `amount` from the balance to the frozen credits. With `at_most`, move less if the balance is lower.

    Raises Refused USER_NOT_FOUND, and INSUFFICIENT_CREDITS unless `at_most`.
    """
    if at_most:
        balance = _balance_or_refuse(tx, tx.one(_LOCK, user_id=user_id), user_id)
        amount = min(amount, balance)
        if amount == 0:
            return {"amount": amount, "credit_balance": balance}
    frozen = tx.one(_FREEZE, key=key, user_id=user_id, amount=amount)
    return {"amount": amount, "credit_balance": _balance_or_refuse(tx, frozen, user_id)}


def unfreeze(tx: Transaction, key: str, answer: Answer) -> UUID | None:
    """Give back the amount of the freeze under `key`, and return its user, or None if nothing was frozen.

    Raises Refused CREDITS_UNAVAILABLE if the credits were transferred, because that cannot be undone here.
    """
    if answer["amount"] == 0:
        return None
    tx.run(_LOCK_HOLDER, key=key)
    hold = tx.one(_DELETE_HOLDS, keys=[key])
    if hold is not None:
        tx.one(_MOVE, key=f"{key}:unfreeze", user_id=hold["user_id"], amount=hold["amount"], kind="UNFREEZE")
        user_id: UUID = hold["user_id"]
        return user_id
    if effects.void(tx, key):  # False if another undo committed first, which `effects.undo` handles
        raise Refused(ErrorCode.CREDITS_UNAVAILABLE, "The frozen credits were already transferred.")
    return None


def transfer(tx: Transaction, key: str, hold_keys: Sequence[str], to_user_id: UUID) -> Answer:
    """Transfer the credits of these holds to `to_user_id`.

    Raises Refused USER_NOT_FOUND or CREDITS_UNAVAILABLE.
    """
    keys = list(hold_keys)
    tx.run(_LOCK_PARTIES, to_user_id=to_user_id, keys=keys)
    holds = tx.all(_DELETE_HOLDS, keys=keys)
    missing = set(keys) - {hold["key"] for hold in holds}
    if missing and missing - {row["key"] for row in tx.all(_FIND_EMPTY_FREEZES, keys=list(missing))}:
        raise Refused(ErrorCode.CREDITS_UNAVAILABLE, "Some of these credits are no longer frozen.")
    amount = sum((hold["amount"] for hold in holds), Decimal("0.00"))
    moved = tx.one(_MOVE, key=key, user_id=to_user_id, amount=amount, kind="TRANSFER")
    return {"amount": amount, "credit_balance": _balance_or_refuse(tx, moved, to_user_id)}


def lock_balance(tx: Transaction, user_id: UUID) -> Decimal | None:
    """Lock the account and return its balance, or None for an unknown user."""
    locked = tx.one(_LOCK, user_id=user_id)
    return None if locked is None else locked["credit_balance"]


def move(tx: Transaction, key: str, user_id: UUID, amount: Decimal, kind: str) -> None:
    """Change the balance of a locked account by `amount`. The caller has checked the new balance."""
    tx.one(_MOVE, key=key, user_id=user_id, amount=amount, kind=kind)


def _balance_or_refuse(tx: Transaction, row: Row | None, user_id: UUID) -> Decimal:
    if row is None:
        raise _refusal(tx.one(_BALANCE, user_id=user_id))
    balance: Decimal = row["credit_balance"]
    return balance


def _refusal(account: Row | None) -> Refused:
    return Refused(ErrorCode.INSUFFICIENT_CREDITS if account else ErrorCode.USER_NOT_FOUND)
