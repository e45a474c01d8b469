"""Registering, logging in and out (§11). The gateway leads `/api/auth/*` here."""

from __future__ import annotations

import logging
from typing import Annotated, Any
from uuid import uuid4

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from services.chassis import access, tokens, web
from services.chassis.db import Database, Row
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode
from services.user import passwords
from services.user.store import accounts, logins

logger = logging.getLogger(__name__)

SHORTEST_PASSWORD = 8  # bytes
FOLLOWERS = ("orchestrator-service", "order-service", "inventory-service", "event-service")

Email = Annotated[str, Meta(max_length=255, pattern=r"\A[!-?A-~]+@[!-?A-~]+\.[!-?A-~]+\Z")]
Phone = Annotated[str, Meta(pattern=r"\A\+[1-9][0-9]{7,14}\Z")]  # E.164


class Registration(msgspec.Struct, forbid_unknown_fields=True):
    email: Email
    phone: Phone
    password: str

    def __post_init__(self) -> None:
        if not SHORTEST_PASSWORD <= len(self.password.encode()) <= passwords.LONGEST:
            raise ValueError(f"a password has {SHORTEST_PASSWORD} to {passwords.LONGEST} bytes")


class Login(msgspec.Struct, forbid_unknown_fields=True):
    email: Annotated[str, Meta(max_length=255)]
    password: Annotated[str, Meta(max_length=1024)]


def auth_routes(db: Database, jwt_secret: str) -> Blueprint:
    """The public verbs, and the list of ended logins that the other services follow."""
    routes = Blueprint("auth", __name__)

    @routes.post("/api/auth/register")
    @access.public
    def register() -> Response:
        return web.ok(_register(db, web.body(Registration)), 201)

    @routes.post("/api/auth/login")
    @access.public
    def login() -> Response:
        return web.ok(_login(db, jwt_secret, web.body(Login)))

    @routes.post("/api/auth/refresh")
    @access.public  # of any policy: the bearer is a refresh token, which opens nothing else
    def refresh() -> Response:
        return web.ok(_refresh(db, jwt_secret, tokens.parse_bearer(request.headers.get("Authorization"))))

    @routes.post("/api/auth/logout")
    @access.signed_in
    def logout() -> Response:
        caller = access.identity()
        logins.revoke(db, caller.sid, caller.user_id)
        logger.info("User %s logged out", caller.user_id)
        return web.ok({})

    @routes.get("/auth/revocations")
    @access.internal(*FOLLOWERS)
    def revocations() -> Response:
        ended, cursor, more = logins.since(db, _after())
        return web.ok({"revocations": ended, "cursor": cursor, "more": more})

    return routes


def _register(db: Database, wanted: Registration) -> dict[str, Any]:
    added = accounts.add(db, wanted.email.lower(), wanted.phone, passwords.hashed(wanted.password))
    logger.info("User %s registered", added["user_id"])
    return dict(added)


def _login(db: Database, secret: str, sent: Login) -> dict[str, Any]:
    account = accounts.by_email(db, sent.email.lower())
    stored = account["password_hash"] if account else None
    if not passwords.matches(sent.password, stored) or account is None:
        raise Refused(ErrorCode.UNAUTHORIZED, "E-mail or password is wrong; try again or register.")
    logger.info("User %s logged in", account["user_id"])
    return _session(secret, account)


def _session(secret: str, account: Row) -> dict[str, Any]:
    sid = str(uuid4())
    issued = {
        f"{kind}_token": tokens.issue(secret, account["user_id"], account["role"], sid, kind)
        for kind in ("access", "refresh")
    }
    user = {name: account[name] for name in ("user_id", "email", "role", "credit_balance")}
    return {**issued, "token_type": "Bearer", "expires_in": tokens.ACCESS_SECONDS, "user": user}


def _refresh(db: Database, secret: str, token: str) -> dict[str, Any]:
    login = tokens.verify(secret, token, kind="refresh")
    role = logins.role_if_standing(db, login.user_id, login.sid)
    if role is None:
        raise Refused(ErrorCode.UNAUTHORIZED, "This session was revoked. Log in again.")
    renewed = tokens.issue(secret, login.user_id, role, login.sid, "access")
    return {"access_token": renewed, "expires_in": tokens.ACCESS_SECONDS}


def _after() -> int:
    text = request.args.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refused(ErrorCode.VALIDATION_ERROR, "after is the cursor of the answer before, or 0.")
    return int(text)
