"""Routes to change a password, and to reset it by a code to the verified phone."""

from __future__ import annotations

import logging
from typing import Annotated
from uuid import UUID

import msgspec
from flask import Blueprint, Response
from msgspec import Meta

from services.chassis import access, web
from services.chassis.db import Database
from services.chassis.errors import Refused, Unknown
from services.chassis.tokens import Identity
from services.contracts.enums import OtpStatus
from services.contracts.errors import ErrorCode
from services.user import contacts, passwords
from services.user.passwords import Hashing
from services.user.routes.auth import Login, check_password
from services.user.smu import Smu
from services.user.store import accounts, logins, password_resets
from services.user.store.login_guesses import LoginGuesses

logger = logging.getLogger(__name__)

Email = Annotated[str, Meta(max_length=contacts.MAX_EMAIL_CHARS)]


class Change(msgspec.Struct, forbid_unknown_fields=True):
    current_password: Annotated[str, Meta(max_length=1024)]
    new_password: str

    def __post_init__(self) -> None:
        passwords.require_good(self.new_password)


class ResetRequest(msgspec.Struct, forbid_unknown_fields=True):
    email: Email


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    email: Email
    otp_code: Annotated[str, Meta(min_length=1, max_length=16)]
    new_password: str

    def __post_init__(self) -> None:
        passwords.require_good(self.new_password)


def password_routes(db: Database, smu: Smu, hashing: Hashing, guesses: LoginGuesses) -> Blueprint:
    """Build the routes."""
    routes = Blueprint("passwords", __name__, url_prefix="/api/auth/password")

    @routes.post("")
    @access.signed_in
    def change() -> Response:
        caller, body = access.identity(), web.body(Change)
        with hashing.slot():
            return web.ok({"ended": _change(db, hashing, guesses, caller, body)})

    @routes.post("/reset")
    @access.public
    def request_reset() -> Response:
        _send_code(db, smu, contacts.normalize_email(web.body(ResetRequest).email))
        return web.ok({})

    @routes.post("/reset/confirm")
    @access.public
    def reset() -> Response:
        return web.ok({"ended": _reset(db, smu, hashing, web.body(Reset))})

    return routes


def _change(db: Database, hashing: Hashing, guesses: LoginGuesses, caller: Identity, change: Change) -> int:
    """Replace the password and end all other logins. Wrong passwords count as those of a login."""
    email = accounts.get(db, caller.user_id)["email"]
    try:
        check_password(db, hashing, guesses, Login(email, change.current_password))
    except Refused as refusal:
        if refusal.code != ErrorCode.UNAUTHORIZED:
            raise
        raise Refused(ErrorCode.FORBIDDEN, "The current password is wrong. Try again.") from None
    return _set_password(db, caller.user_id, hashing.run(passwords.hash_password, change.new_password), kept=caller.sid)


def _send_code(db: Database, smu: Smu, email: str) -> None:
    """Send a code, unless the account is unknown or may not get one. The caller gets the same answer in each case."""
    found = password_resets.take(db, email)
    if found is None:
        logger.warning("Sent no code for a password: no such account, no verified phone, or too many codes today")
        return
    password_resets.store(db, found["user_id"], smu.send_otp(found["phone"]))
    logger.info("Sent a code for the password of user %s", found["user_id"])


def _reset(db: Database, smu: Smu, hashing: Hashing, reset: Reset) -> int:
    """Replace the password and end every login. SMU approves a code once, so the hash is made before."""
    attempt = password_resets.take_attempt(db, contacts.normalize_email(reset.email))
    if attempt is None:
        raise Refused(ErrorCode.OTP_INVALID, "The code is wrong or no longer valid. Try again or request another one.")
    try:
        with hashing.slot():
            hashed = hashing.run(passwords.hash_password, reset.new_password)
        status = smu.verify_otp(attempt["verification_sid"], reset.otp_code)
    except (Refused, Unknown):  # too many hashes at once, or no verdict
        password_resets.give_back(db, attempt["user_id"])
        raise
    if status is not OtpStatus.APPROVED:
        logger.warning("A wrong code for the password of user %s", attempt["user_id"])
        raise Refused(ErrorCode.OTP_INVALID, "The code is wrong or no longer valid. Try again or request another one.")
    return _set_password(db, attempt["user_id"], hashed)


def _set_password(db: Database, user_id: UUID, hashed: str, kept: str = "") -> int:
    with db.transaction() as tx:
        accounts.set_password(tx, user_id, hashed)
        password_resets.close(tx, user_id)
        ended = logins.end_all(tx, user_id, kept)
    logger.warning("User %s has a new password, which ended %d logins", user_id, ended)
    return ended
