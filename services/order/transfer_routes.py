"""HTTP routes of transfers, for the orchestrator.

Every change has a key (see `transfer_store` and `disputes`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, request

from services.chassis import effects, web
from services.chassis.access import internal
from services.chassis.db import Database, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused
from services.contracts.enums import TransferStatus
from services.contracts.errors import ErrorCode
from services.order import disputes, transfer_store, unique_effects
from services.order.request_models import DisputeRequest, KeyedRequest, NewTransfer, TransferChange

orchestrator = internal("orchestrator-service")
Change = Callable[[Transaction, UUID, TransferChange], Answer]

_DUPLICATES = {
    transfer_store.ONE_OPEN: lambda: Refused(ErrorCode.TRANSFER_IN_PROGRESS),
    "transfers_pkey": lambda: Refused(ErrorCode.VALIDATION_ERROR, "A transfer with this id already exists."),
}
_BY_STATUS: dict[str, Change] = {
    TransferStatus.PENDING_OTP: transfer_store.await_codes,
    TransferStatus.COMPLETED: transfer_store.complete,
    TransferStatus.REVERSED: transfer_store.reverse,
}


def transfer_routes(db: Database, dispute_window_days: int) -> Blueprint:
    """Build the routes under `/transfers`."""
    routes = Blueprint("transfers", __name__)

    @routes.post("/transfers")
    @orchestrator
    def create() -> Response:
        transfer = web.body(NewTransfer)
        created = unique_effects.apply_or_refuse_duplicate(
            db, transfer.key, lambda tx: transfer_store.create(tx, transfer), _DUPLICATES
        )
        return web.ok(created, 201)

    @routes.get("/transfers")
    @orchestrator
    def list_transfers() -> Response:
        filters, page, per_page = _read_filters(), *web.page()
        rows, total = db.read(lambda tx: transfer_store.list_transfers(tx, filters, page, per_page))
        return web.ok_page(rows, total, page, per_page)

    @routes.get("/transfers/<transfer_id>")
    @orchestrator
    def get(transfer_id: str) -> Response:
        return web.ok(_get(db, web.as_id(transfer_id)))

    @routes.patch("/transfers/<transfer_id>")
    @orchestrator
    def change_transfer(transfer_id: str) -> Response:
        return web.ok(_change(db, web.as_id(transfer_id), web.body(TransferChange)))

    @routes.post("/transfers/<transfer_id>/cancel")
    @orchestrator
    def cancel(transfer_id: str) -> Response:
        subject_id = web.as_id(transfer_id)
        return web.ok(effects.apply(db, web.body(KeyedRequest).key, lambda tx: transfer_store.cancel(tx, subject_id)))

    @routes.post("/transfers/<transfer_id>/dispute")
    @orchestrator
    def dispute(transfer_id: str) -> Response:
        given = web.body(DisputeRequest)
        return web.ok(disputes.dispute(db, web.as_id(transfer_id), given, dispute_window_days))

    return routes


def _get(db: Database, transfer_id: UUID) -> Answer:
    return db.read(lambda tx: transfer_store.to_answer(transfer_store.find(tx, transfer_id)))


def _read_filters() -> dict[str, Any]:
    ids = {"seat_id": web.query_id("seat_id"), "user_id": web.query_id("user_id")}
    return {**ids, "status": _read_status(), "both_verified": _read_both_verified()}


def _read_status() -> str | None:
    status = request.args.get("status")
    if status is not None and status not in TransferStatus.__members__:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"status must be one of {', '.join(TransferStatus)}.")
    return status


def _read_both_verified() -> bool:
    text = request.args.get("both_verified", "false")
    if text not in ("true", "false"):
        raise Refused(ErrorCode.VALIDATION_ERROR, "both_verified must be true or false.")
    return text == "true"


def _change(db: Database, transfer_id: UUID, change: TransferChange) -> Answer:
    if change.status == TransferStatus.FAILED:
        return transfer_store.undo(db, transfer_id, change.key)
    return effects.apply(db, change.key, lambda tx: _choose_change(change)(tx, transfer_id, change))


def _choose_change(change: TransferChange) -> Change:
    if change.status is not None:
        return _BY_STATUS[change.status]
    return transfer_store.store_sids if change.credits_frozen is None else transfer_store.record_freeze
