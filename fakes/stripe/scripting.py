"""What the control plane can do to webhooks, events and 3-D Secure, beyond what every fake has."""

import time
from typing import Any

from flask import Blueprint, Response, jsonify

from fakes import control
from fakes.control import Plane, body, known
from fakes.faults import LONGEST_MS
from fakes.stripe import intents
from fakes.stripe.events import Call
from fakes.stripe.webhooks import SIGNATURES, Courier

MOST_COPIES = 32

Json = dict[str, Any]


def webhooks(url: str) -> Json:
    """How deliveries go until a script says otherwise; `url` empty: none go out."""
    return {
        "url": url,
        "copies": 1,
        "hold": False,
        "delay_ms": 0,
        "signatures": ["good"],
        "max_attempts": 10,
        "backoff_ms": 250,
    }


def blueprint(plane: Plane, courier: Courier) -> Blueprint:
    """The shared verbs and Stripe's own."""
    routes = control.blueprint(plane)
    _webhook_routes(routes, plane)
    _event_routes(routes, plane, courier)

    @routes.post("/payment_intents/<ident>/authenticate")
    def _authenticate(ident: str) -> Response:
        passed = known(body(), passed=bool).get("passed", True)
        with plane.lock:
            call = Call(plane)
            return jsonify(intents.authenticate(call, intents.find(call, ident), passed))

    return routes


def _checked(script: Json) -> Json:
    """Raises ValueError for a script that makes no sense."""
    known(script, url=str, copies=int, hold=bool, delay_ms=int, signatures=list, max_attempts=int, backoff_ms=int)
    _signatures(script.get("signatures", ["good"]))
    if not 1 <= script.get("copies", 1) <= MOST_COPIES or script.get("max_attempts", 1) < 1:
        raise ValueError(f"copies is 1 to {MOST_COPIES}, max_attempts starts at 1")
    if not all(0 <= script.get(name, 0) <= LONGEST_MS for name in ("delay_ms", "backoff_ms")):
        raise ValueError(f"delay_ms and backoff_ms are 0 to {LONGEST_MS}")
    return script


def _signatures(kinds: list[Any]) -> list[str]:
    if not kinds or not all(kind in SIGNATURES for kind in kinds) or len(kinds) > MOST_COPIES:
        raise ValueError(f"signatures are up to {MOST_COPIES} of {', '.join(SIGNATURES)}")
    return kinds


def _webhook_routes(routes: Blueprint, plane: Plane) -> None:
    @routes.get("/webhooks")
    def _script() -> Response:
        with plane.lock:
            return jsonify(plane.store["webhooks"] | {"queue": plane.store["queue"]})

    @routes.post("/webhooks")
    def _set_script() -> Response:
        script = _checked(body())
        with plane.lock:
            plane.store["webhooks"] |= script
        return _script()

    @routes.post("/webhooks/release")
    def _release() -> Response:
        order = known(body(), order=(str, list)).get("order", "fifo")
        with plane.changed:
            queue = plane.store["queue"]
            held = [job for job in queue if job["due"] is None]
            released = _ordered(held, order)
            plane.store["queue"] = [job for job in queue if job not in released] + released
            for job in released:
                job["due"] = time.time()
            plane.changed.notify_all()
        return jsonify(released=[job["event"] for job in released])

    @routes.get("/deliveries")
    def _deliveries() -> Response:
        with plane.lock:
            return jsonify(deliveries=plane.store["deliveries"])


def _ordered(held: list[Json], order: str | list[str]) -> list[Json]:
    if isinstance(order, list):
        by_event = {job["event"]: job for job in held}
        return [by_event[ident] for ident in dict.fromkeys(map(str, order)) if ident in by_event]
    if order not in ("fifo", "reverse"):
        raise ValueError("order is fifo, reverse or a list of event ids")
    return held if order == "fifo" else held[::-1]


def _event_routes(routes: Blueprint, plane: Plane, courier: Courier) -> None:
    @routes.post("/events")
    def _emit() -> tuple[Response, int]:
        sent = known(body(), type=str, object=dict)
        with plane.lock:
            return jsonify(Call(plane).emit(sent.get("type", "customer.created"), sent.get("object", {}))), 201

    @routes.post("/events/<ident>/redeliver")
    def _redeliver(ident: str) -> Response:
        sent = known(body(), copies=int, signatures=list, url=str)
        copies = sent.get("copies", 1)
        if not 1 <= copies <= MOST_COPIES:
            raise ValueError(f"copies is 1 to {MOST_COPIES}")
        with plane.lock:
            event, url = plane.store["events"].get(ident), sent.get("url") or plane.store["webhooks"]["url"]
        if event is None or not url:
            raise ValueError("no such event" if event is None else "no webhook url is set")
        kinds = _signatures(sent.get("signatures", ["good"] * copies))
        return jsonify(statuses=courier.send(event, url, kinds, 0))
