"""`python -m services.user.add_staff EMAIL PHONE [--area gate|support|finance]`: add a staff account.

The password is the first line of the input. With `--area` the account may act in this area only.
"""

from __future__ import annotations

import argparse
import logging
import sys
from uuid import UUID

from services.chassis.db import Database
from services.chassis.errors import Refused
from services.chassis.settings import DatabaseSettings, read_or_exit
from services.contracts.enums import Role, StaffArea
from services.contracts.errors import ErrorCode
from services.user import contacts, passwords
from services.user.store import accounts

logger = logging.getLogger(__name__)

SEED_ID = UUID("00000000-0000-0000-0000-000000000009")
SEED_EMAIL, SEED_PHONE = "staff@example.com", "+6591234569"
# An older seed created this account with a password of the README.
_OLD_SEED_HASH = "$2b$10$FnkOOyBjJLabDamFupmc1Oax.UNTFWouyvwef.O2bh5ZTPSAbszRu"


def ensure_seed_account(db: Database, password: str) -> None:
    """Create the staff account of the examples, unless it exists. Replaces the password of an older seed."""
    account = accounts.find_by_email(db, SEED_EMAIL)
    if account is None:
        try:
            _add(db, SEED_EMAIL, SEED_PHONE, password, SEED_ID)
        except Refused as refusal:
            if refusal.code != ErrorCode.EMAIL_ALREADY_EXISTS:  # another process of User started at the same time
                raise
    elif account["password_hash"] == _OLD_SEED_HASH:
        with db.transaction() as tx:
            accounts.set_password(tx, account["user_id"], passwords.hash_password(password))
        logger.warning("Replaced the public password of %s", SEED_EMAIL)


def _add(
    db: Database,
    email: str,
    phone: str,
    password: str,
    user_id: UUID | None = None,
    area: StaffArea | None = None,
) -> None:
    passwords.require_good(password)
    hashed = passwords.hash_password(password)
    added = accounts.add(db, email, phone, hashed, role=Role.STAFF, user_id=user_id, staff_area=area)
    logger.warning("Added the staff account %s", added["user_id"])


def main() -> None:
    """Add the account with `DB_*` of the environment. Exits with one line if the account exists or is not valid."""
    parser = argparse.ArgumentParser(prog="python -m services.user.add_staff", description=__doc__)
    parser.add_argument("email", type=contacts.read_email)
    parser.add_argument("phone", type=contacts.read_phone)
    parser.add_argument("--area", type=StaffArea, choices=list(StaffArea), help="limit the account to this area")
    given = parser.parse_args()
    db = Database(read_or_exit(DatabaseSettings.read))
    try:
        _add(db, given.email, given.phone, sys.stdin.readline().rstrip("\n"), area=given.area)
    except (Refused, ValueError) as problem:
        exists = isinstance(problem, Refused) and problem.code == ErrorCode.EMAIL_ALREADY_EXISTS
        sys.exit("an account with this e-mail address exists" if exists else str(problem))
    print(f"added the staff account {given.email}")


if __name__ == "__main__":
    main()
