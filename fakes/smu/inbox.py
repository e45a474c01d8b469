"""The inbox of sent messages, newest first, as a page or as JSON."""

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request

from fakes.clock import iso
from fakes.control import FakeState

MAX_STORED = 10_000
MAX_SHOWN = 100
SOURCES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",  # e-mails have their styles inline
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "frame-src": "'self'",
    "frame-ancestors": "'none'",
}
POLICY = "; ".join(f"{name} {sources}" for name, sources in SOURCES.items())
PROTECTION = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

Message = dict[str, Any]


def deliver(state: FakeState, kind: str, to: str, **content: str) -> None:
    """Put a message into the inbox. The caller holds the lock of `state`."""
    inbox = state.store["inbox"]
    state.store["delivered"] += 1
    number = state.store["delivered"]
    inbox[str(number)] = {"id": number, "kind": kind, "to": to, "sent_at": iso(state.clock.now())} | content
    if len(inbox) > MAX_STORED:
        del inbox[next(iter(inbox))]


def blueprint(state: FakeState) -> Blueprint:
    routes = Blueprint(
        "inbox", __name__, template_folder="templates", static_folder="static", static_url_path="/inbox/files"
    )

    @routes.get("/")
    @routes.get("/inbox")
    def _inbox() -> Response:
        mobile, email = request.args.get("mobile"), request.args.get("email")
        messages = _select(state, mobile, email)
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            page = render_template("inbox.html", messages=messages, mobile=mobile, email=email)
            return Response(page, headers=PROTECTION, content_type="text/html; charset=utf-8")
        return jsonify(messages=messages)

    return routes


def _select(state: FakeState, mobile: str | None, email: str | None) -> list[Message]:
    """Select the newest messages to a number or an address, or to anyone."""
    wanted = [_match_mobile(mobile)] if mobile else []
    if email:
        wanted.append(lambda message: message["to"].lower() == email.strip().lower())
    with state.lock:
        newest = reversed(state.store["inbox"].values())
        found = [m for m in newest if not wanted or any(match(m) for match in wanted)]
    return found[:MAX_SHOWN]


def _match_mobile(mobile: str) -> Callable[[Message], bool]:
    """Match a number as people write it: with blanks or hyphens, and with or without the code of the country.

    A `+` that was not escaped in the URL arrives as a blank.
    """
    digits = re.sub(r"\D", "", mobile)
    is_whole = mobile[:1] in ("+", " ")

    def match(message: Message) -> bool:
        to = message["to"].removeprefix("+")
        return bool(digits) and (to == digits if is_whole else to.endswith(digits)) and "@" not in to

    return match
