"""The accounts of users."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.chassis.db import Database, Row, Transaction
from services.chassis.errors import Refused
from services.contracts.enums import Role, StaffArea
from services.contracts.errors import ErrorCode

_ADD = """
INSERT INTO users (user_id, email, phone, password_hash, role, staff_area)
VALUES (coalesce(%(user_id)s, gen_random_uuid()), %(email)s, %(phone)s, %(password_hash)s, %(role)s, %(staff_area)s)
ON CONFLICT (email) DO NOTHING
RETURNING user_id, email"""

_SET_HASH = "UPDATE users SET password_hash = %(password_hash)s WHERE user_id = %(user_id)s"

_BY_EMAIL = """
SELECT user_id, email, role, credit_balance, password_hash, locked_at IS NOT NULL AS is_locked
FROM users WHERE email = %(email)s"""

_CONTACTS = "SELECT user_id, email, phone FROM users WHERE user_id = ANY(%(user_ids)s)"

_BY_ID = """
SELECT user_id, email, phone, role, is_flagged, credit_balance, frozen_credits
FROM users WHERE user_id = %(user_id)s"""


def add(
    db: Database,
    email: str,
    phone: str,
    password_hash: str,
    role: Role = Role.CUSTOMER,
    user_id: UUID | None = None,
    staff_area: StaffArea | None = None,
) -> Row:
    """Add a user and return user_id and email. Raises Refused EMAIL_ALREADY_EXISTS."""
    who = {"email": email, "phone": phone, "user_id": user_id}
    added = db.statement(_ADD, **who, password_hash=password_hash, role=role, staff_area=staff_area)
    if added is None:
        raise Refused(ErrorCode.EMAIL_ALREADY_EXISTS)
    return added


def find_by_email(db: Database, email: str) -> Row | None:
    """Find the account, with its password hash, of an e-mail address in its normal form."""
    return db.statement(_BY_EMAIL, email=email)


def find_all(db: Database, user_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Return the e-mail address and phone of each of these users that exists."""
    found = db.read(lambda tx: tx.all(_CONTACTS, user_ids=list(user_ids)))
    return {row["user_id"]: row for row in found}


def set_password(tx: Transaction, user_id: UUID, password_hash: str) -> None:
    """Replace the password of a user. It ends no login."""
    tx.run(_SET_HASH, user_id=user_id, password_hash=password_hash)


def get(db: Database, user_id: UUID) -> Row:
    """Return the account without its password hash. Raises Refused USER_NOT_FOUND."""
    found = db.statement(_BY_ID, user_id=user_id)
    if found is None:
        raise Refused(ErrorCode.USER_NOT_FOUND)
    return found
