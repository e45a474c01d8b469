"""Routes to register, log in, refresh and log out (section 11 of the reference). They are public under /api/auth."""

from __future__ import annotations

import logging
import re
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from services.chassis import access, tokens, web
from services.chassis.addresses import client_address
from services.chassis.db import Database, Row
from services.chassis.errors import Refused
from services.chassis.keys import SigningKey
from services.chassis.settings import ProcessSettings
from services.contracts.errors import ErrorCode
from services.user import contacts, passwords
from services.user.passwords import Hashing
from services.user.store import accounts, logins, revocations
from services.user.store.login_guesses import LoginGuesses

logger = logging.getLogger(__name__)

MAX_DEVICE_CHARS = 200
SESSION_ID = re.compile("[!-~]{0,200}")
POLLERS = ("orchestrator-service", "event-service")


class Registration(msgspec.Struct, forbid_unknown_fields=True):
    email: Annotated[str, Meta(max_length=contacts.MAX_EMAIL_CHARS)]
    phone: Annotated[str, Meta(max_length=64)]
    password: str

    def __post_init__(self) -> None:
        self.email = contacts.read_email(self.email)
        self.phone = contacts.read_phone(self.phone)
        passwords.require_good(self.password)


class Login(msgspec.Struct, forbid_unknown_fields=True):
    email: Annotated[str, Meta(max_length=contacts.MAX_EMAIL_CHARS)]
    password: Annotated[str, Meta(max_length=1024)]


def auth_routes(db: Database, process: ProcessSettings, hashing: Hashing, guesses: LoginGuesses) -> Blueprint:
    """Build the public routes, and the list of revoked sessions that the other services poll."""
    routes = Blueprint("auth", __name__)

    @routes.post("/api/auth/register")
    @access.public
    def register() -> Response:
        registration = web.body(Registration)
        with hashing.slot():
            return web.ok(_register(db, hashing, registration), 201)

    @routes.post("/api/auth/login")
    @access.public
    def login() -> Response:
        credentials = web.body(Login)
        with hashing.slot():  # first, because without a slot the request should cost nothing
            account = check_password(db, hashing, guesses, credentials)
        logger.info("User %s logged in", account["user_id"])
        return web.ok(_open_session(db, process.private_key, account))

    @routes.post("/api/auth/refresh")
    @access.public  # `_refresh` checks the refresh token, which no other route accepts
    def refresh() -> Response:
        return web.ok(_refresh(db, process, tokens.parse_bearer(request.headers.get("Authorization"))))

    @routes.post("/api/auth/logout")
    @access.signed_in
    def logout() -> Response:
        caller = access.identity()
        revocations.revoke(db, caller.sid, caller.user_id)
        logger.info("User %s logged out", caller.user_id)
        return web.ok({})

    @routes.get("/auth/revocations")
    @access.internal(*POLLERS)
    def list_revocations() -> Response:
        revoked, cursor, more = revocations.list_revoked(db, _read_cursor())
        return web.ok({"revocations": revoked, "cursor": cursor.seq, "cursor_sid": cursor.sid, "more": more})

    return routes


def _register(db: Database, hashing: Hashing, registration: Registration) -> dict[str, Any]:
    hashed = hashing.run(passwords.hash_password, registration.password)
    added = accounts.add(db, registration.email, registration.phone, hashed)
    logger.info("User %s registered", added["user_id"])
    return dict(added)


def check_password(db: Database, hashing: Hashing, guesses: LoginGuesses, login: Login) -> Row:
    """Return the account if the password is right. An unknown account costs as much time as a known one."""
    email, address = contacts.normalize_email(login.email), client_address()
    account = accounts.find_by_email(db, email)
    guess = guesses.begin(email, address)
    if not hashing.run(passwords.matches, login.password, account["password_hash"] if account else None):
        account_id = account["user_id"] if account else f"unknown {guess.account}"
        logger.warning("Login failed: account %s, address %s", account_id, guess.address)
    elif account is not None:
        guesses.forget(guess)
        if account["is_locked"]:
            raise Refused(ErrorCode.FORBIDDEN, "This account is locked. Contact the support.")
        return account
    raise Refused(ErrorCode.UNAUTHORIZED, "Wrong e-mail address or password. Try again or register.")


def _open_session(db: Database, key: SigningKey, account: Row) -> dict[str, Any]:
    sid, device = str(uuid4()), request.headers.get("User-Agent", "")[:MAX_DEVICE_CHARS]
    login = logins.open_login(db, account, sid, device)
    if login is None:  # the password was changed, or the account was locked, while this one was checked
        raise Refused(ErrorCode.UNAUTHORIZED, "Wrong e-mail address or password. Try again or register.")
    user = {name: account[name] for name in ("user_id", "email", "role", "credit_balance")}
    return {**_issue(key, account["user_id"], account["role"], sid, login), "token_type": "Bearer", "user": user}


def _issue(key: SigningKey, user_id: UUID, role: str, sid: str, login: Row) -> dict[str, Any]:
    """Sign both tokens of a login. The refresh token ends with the login."""
    return {
        "access_token": tokens.issue(key, user_id, role, sid, "access"),
        "refresh_token": tokens.issue(
            key, user_id, role, sid, "refresh", token_id=login["refresh_id"], expires_at=login["expires_at"]
        ),
        "expires_in": tokens.ACCESS_SECONDS,
    }


def _refresh(db: Database, process: ProcessSettings, token: str) -> dict[str, Any]:
    session = tokens.verify(process.user_keys, token, kind="refresh")
    login = logins.rotate(db, session.sid, session.token_id)
    if login is None:
        raise _refuse_refresh(db, session)
    return _issue(process.private_key, session.user_id, login["role"], session.sid, login)


def _refuse_refresh(db: Database, session: tokens.Identity) -> Refused:
    """End the login if the token is an older one of it, because then two clients have its tokens."""
    if not logins.exists(db, session.sid):
        return Refused(ErrorCode.UNAUTHORIZED, "This session was revoked. Log in again.")
    revocations.revoke(db, session.sid, session.user_id)
    logger.warning("Ended login %s of user %s: a refresh token was used again", session.sid, session.user_id)
    return Refused(
        ErrorCode.UNAUTHORIZED,
        "This refresh token was used before, so the login has ended. Log in again. Not you? Change the password.",
    )


def _read_cursor() -> revocations.Cursor:
    text, sid = request.args.get("after", "0"), request.args.get("after_sid", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and SESSION_ID.fullmatch(sid)):
        raise Refused(ErrorCode.VALIDATION_ERROR, "after and after_sid must be the cursor of the previous answer.")
    return revocations.Cursor(int(text), sid)
