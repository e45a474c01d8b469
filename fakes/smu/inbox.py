"""The inbox of sent messages, newest first, as a page or as JSON."""

from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request

from fakes.clock import iso
from fakes.control import FakeState

MAX_STORED = 10_000
MAX_SHOWN = 100


def deliver(state: FakeState, kind: str, to: str, **content: str) -> None:
    """Put a message into the inbox. The caller holds the lock of `state`."""
    inbox = state.store["inbox"]
    state.store["delivered"] += 1
    inbox.append({"id": state.store["delivered"], "kind": kind, "to": to, "sent_at": iso(state.clock.now())} | content)
    del inbox[:-MAX_STORED]


def blueprint(state: FakeState) -> Blueprint:
    routes = Blueprint("inbox", __name__, template_folder="templates")

    @routes.get("/")
    @routes.get("/inbox")
    def _inbox() -> Response | str:
        mobile, email = request.args.get("mobile"), request.args.get("email")
        messages = _select(state, mobile, email)
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            return render_template("inbox.html", messages=messages, mobile=mobile, email=email)
        return jsonify(messages=messages)

    return routes


def _select(state: FakeState, mobile: str | None, email: str | None) -> list[dict[str, Any]]:
    """Select the newest messages to a number or address, or to anyone."""
    wanted = {address for address in (_restore_plus(mobile), email) if address}
    with state.lock:
        found = [m for m in reversed(state.store["inbox"]) if not wanted or m["to"] in wanted]
    return found[:MAX_SHOWN]


def _restore_plus(mobile: str | None) -> str | None:
    """Restore a `+` that was not escaped in the URL and arrived as a space."""
    return "+" + mobile.strip().lstrip("+") if mobile else None
