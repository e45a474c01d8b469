"""Route of scenario 3 (§7): scan a ticket at the gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import gate_staff, identity
from services.orchestrator.api.context import ApiContext
from services.orchestrator.tickets.scan import ScanRequest
from services.orchestrator.tickets.scan_rules import Gate


class VerifyBody(msgspec.Struct):
    qr_payload: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    hall_id: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    staff_id: UUID | None = None
    event_id: UUID | None = None

    def __post_init__(self) -> None:
        # A scanner may end its text with a newline or break it into lines. Base64 itself has no blanks.
        self.qr_payload = "".join(self.qr_payload.split())
        self.hall_id = self.hall_id.strip()


def blueprint(context: ApiContext) -> Blueprint:
    """Create the route of scenario 3."""
    routes = Blueprint("verification", __name__)

    @routes.post("/api/verify")
    @gate_staff
    def verify() -> Response:
        body = web.body(VerifyBody)
        context.require_self(body.staff_id)
        staff_id, gate = identity().user_id, Gate(body.hall_id, str(body.event_id or ""))

        def scan(scan_id: UUID) -> Mapping[str, Any]:
            return context.scanner.scan(ScanRequest(scan_id, staff_id, gate, body.qr_payload))

        content = (body.qr_payload, body.hall_id.casefold(), *([gate.event_id] if gate.event_id else []))
        return web.ok(context.run_idempotently("verify", content, scan))

    return routes
