"""What was sent, newest first: a page for people, JSON for programs."""

from typing import Any

from flask import Blueprint, Response, jsonify, render_template, request

from fakes.clock import iso
from fakes.control import Plane

KEPT = 10_000
SHOWN = 100


def deliver(plane: Plane, kind: str, to: str, **content: str) -> None:
    """Put a message into the inbox. The caller holds the plane's lock."""
    inbox = plane.store["inbox"]
    plane.store["delivered"] += 1
    inbox.append({"id": plane.store["delivered"], "kind": kind, "to": to, "sent_at": iso(plane.clock.now())} | content)
    del inbox[:-KEPT]


def blueprint(plane: Plane) -> Blueprint:
    routes = Blueprint("inbox", __name__, template_folder="templates")

    @routes.get("/")
    @routes.get("/inbox")
    def _inbox() -> Response | str:
        mobile, email = request.args.get("mobile"), request.args.get("email")
        messages = _select(plane, mobile, email)
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            return render_template("inbox.html", messages=messages, mobile=mobile, email=email)
        return jsonify(messages=messages)

    return routes


def _select(plane: Plane, mobile: str | None, email: str | None) -> list[dict[str, Any]]:
    """The newest messages to that number or address, or to anyone."""
    wanted = {address for address in (_number(mobile), email) if address}
    with plane.lock:
        found = [m for m in reversed(plane.store["inbox"]) if not wanted or m["to"] in wanted]
    return found[:SHOWN]


def _number(mobile: str | None) -> str | None:
    """A `+` that was not escaped in the URL arrives as a space."""
    return "+" + mobile.strip().lstrip("+") if mobile else None
