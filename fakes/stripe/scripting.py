"""The control plane of webhooks, events and 3-D Secure."""

import time
from typing import Any

from flask import Blueprint, Response, jsonify

from fakes import control
from fakes.control import FakeState, check_fields, read_body
from fakes.faults import MAX_MS
from fakes.stripe import intents, reversals
from fakes.stripe.events import Call
from fakes.stripe.webhooks import SIGNATURES, WebhookSender

MAX_COPIES = 32

Json = dict[str, Any]


def default_script(url: str) -> Json:
    """Return the initial delivery script. Without a `url`, nothing is delivered."""
    return {
        "url": url,
        "copies": 1,
        "hold": False,
        "delay_ms": 0,
        "signatures": ["good"],
        "max_attempts": 10,
        "backoff_ms": 250,
    }


def blueprint(state: FakeState, sender: WebhookSender) -> Blueprint:
    """Build the shared routes and Stripe's own."""
    routes = control.blueprint(state)
    _webhook_routes(routes, state)
    _event_routes(routes, state, sender)

    @routes.post("/payment_intents/<object_id>/authenticate")
    def _authenticate(object_id: str) -> Response:
        passed = check_fields(read_body(), passed=bool).get("passed", True)
        with state.lock:
            call = Call(state)
            return jsonify(intents.authenticate(call, intents.find(call, object_id), passed))

    _reversal_routes(routes, state)
    return routes


def _reversal_routes(routes: Blueprint, state: FakeState) -> None:
    @routes.post("/payment_intents/<object_id>/refund")
    def _refund(object_id: str) -> tuple[Response, int]:
        sent = check_fields(read_body(), amount=int, reason=str)
        with state.lock:
            call = Call(state)
            made = reversals.refund(call, intents.find(call, object_id), sent.get("amount"), sent.get("reason"))
            return jsonify(made), 201

    @routes.post("/refunds/<object_id>/fail")
    def _fail_refund(object_id: str) -> Response:
        with state.lock:
            return jsonify(reversals.fail_refund(Call(state), object_id))

    @routes.post("/payment_intents/<object_id>/dispute")
    def _dispute(object_id: str) -> tuple[Response, int]:
        sent = check_fields(read_body(), amount=int, reason=str, inquiry=bool)
        with state.lock:
            call = Call(state)
            intent = intents.find(call, object_id)
            reason, inquiry = sent.get("reason", "fraudulent"), sent.get("inquiry", False)
            return jsonify(reversals.dispute(call, intent, sent.get("amount"), reason, inquiry)), 201

    @routes.post("/disputes/<object_id>/close")
    def _close_dispute(object_id: str) -> Response:
        status = check_fields(read_body(), status=str).get("status", "lost")
        with state.lock:
            return jsonify(reversals.close_dispute(Call(state), object_id, status))


def _check_script(script: Json) -> Json:
    """Return a valid script. Raises ValueError otherwise."""
    check_fields(
        script, url=str, copies=int, hold=bool, delay_ms=int, signatures=list, max_attempts=int, backoff_ms=int
    )
    _check_signatures(script.get("signatures", ["good"]))
    if not 1 <= script.get("copies", 1) <= MAX_COPIES or script.get("max_attempts", 1) < 1:
        raise ValueError(f"copies must be 1 to {MAX_COPIES}, max_attempts at least 1")
    if not all(0 <= script.get(name, 0) <= MAX_MS for name in ("delay_ms", "backoff_ms")):
        raise ValueError(f"delay_ms and backoff_ms must be 0 to {MAX_MS}")
    return script


def _check_signatures(kinds: list[Any]) -> list[str]:
    if not kinds or not all(kind in SIGNATURES for kind in kinds) or len(kinds) > MAX_COPIES:
        raise ValueError(f"signatures must be 1 to {MAX_COPIES} of {', '.join(SIGNATURES)}")
    return kinds


def _webhook_routes(routes: Blueprint, state: FakeState) -> None:
    @routes.get("/webhooks")
    def _script() -> Response:
        with state.lock:
            return jsonify(state.store["webhooks"] | {"queue": state.store["queue"]})

    @routes.post("/webhooks")
    def _set_script() -> Response:
        script = _check_script(read_body())
        with state.lock:
            state.store["webhooks"] |= script
        return _script()

    @routes.post("/webhooks/release")
    def _release() -> Response:
        order = check_fields(read_body(), order=(str, list)).get("order", "fifo")
        with state.changed:
            queue = state.store["queue"]
            held = [job for job in queue if job["due"] is None]
            released = _order(held, order)
            state.store["queue"] = [job for job in queue if job not in released] + released
            for job in released:
                job["due"] = time.time()
            state.changed.notify_all()
        return jsonify(released=[job["event"] for job in released])

    @routes.get("/deliveries")
    def _deliveries() -> Response:
        with state.lock:
            return jsonify(deliveries=state.store["deliveries"])


def _order(held: list[Json], order: str | list[str]) -> list[Json]:
    if isinstance(order, list):
        by_event = {job["event"]: job for job in held}
        return [by_event[object_id] for object_id in dict.fromkeys(map(str, order)) if object_id in by_event]
    if order not in ("fifo", "reverse"):
        raise ValueError("order must be fifo, reverse or a list of event ids")
    return held if order == "fifo" else held[::-1]


def _event_routes(routes: Blueprint, state: FakeState, sender: WebhookSender) -> None:
    @routes.post("/events")
    def _emit() -> tuple[Response, int]:
        sent = check_fields(read_body(), type=str, object=dict)
        with state.lock:
            return jsonify(Call(state).emit(sent.get("type", "customer.created"), sent.get("object", {}))), 201

    @routes.post("/events/<object_id>/redeliver")
    def _redeliver(object_id: str) -> Response:
        sent = check_fields(read_body(), copies=int, signatures=list, url=str)
        copies = sent.get("copies", 1)
        if not 1 <= copies <= MAX_COPIES:
            raise ValueError(f"copies must be 1 to {MAX_COPIES}")
        with state.lock:
            event, url = state.store["events"].get(object_id), sent.get("url") or state.store["webhooks"]["url"]
        if event is None or not url:
            raise ValueError("no such event" if event is None else "no webhook url is set")
        kinds = _check_signatures(sent.get("signatures", ["good"] * copies))
        return jsonify(statuses=sender.send(event, url, kinds, 0))
