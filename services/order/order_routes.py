"""Orders over HTTP, for the orchestrator; expiry for Inventory's consumer. Every effect is keyed; see `order_store`."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, request

from services.chassis import effects, web
from services.chassis.access import internal
from services.chassis.db import Database, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused
from services.contracts.enums import OrderStatus
from services.contracts.errors import ErrorCode
from services.order import order_store, unique_effects
from services.order.request_models import NewOrder, OrderChange

orchestrator = internal("orchestrator-service")
inventory = internal("inventory-service")

_TAKEN = {
    "orders_pkey": lambda: Refused(ErrorCode.VALIDATION_ERROR, "There is an order with this id already."),
}


def order_routes(db: Database) -> Blueprint:
    """The routes under `/orders`."""
    routes = Blueprint("orders", __name__)

    @routes.post("/orders")
    @orchestrator
    def create() -> Response:
        order = web.body(NewOrder)
        return web.ok(unique_effects.apply_recorded(db, order.key, lambda: order_store.create(db, order), _TAKEN), 201)

    @routes.get("/orders")
    @orchestrator
    def listed() -> Response:
        page, per_page = web.page()
        filters = {"seat_id": web.query_id("seat_id"), "user_id": web.query_id("user_id"), "status": _status()}
        rows, total = db.read(lambda tx: order_store.listed(tx, filters, page, per_page))
        return web.ok_page(rows, total, page, per_page)

    @routes.get("/orders/<order_id>")
    @orchestrator
    def get(order_id: str) -> Response:
        return web.ok(order_store.get(db, web.as_id(order_id)))

    @routes.patch("/orders/<order_id>")
    @orchestrator
    def change(order_id: str) -> Response:
        return web.ok(_changed(db, web.as_id(order_id), web.body(OrderChange)))

    @routes.post("/orders/<order_id>/expire")
    @inventory
    def expire(order_id: str) -> Response:
        which = web.as_id(order_id)
        return web.ok(db.read(lambda tx: order_store.expire(tx, which)))

    return routes


def _status() -> str | None:
    status = request.args.get("status")
    if status is not None and status not in OrderStatus.__members__:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"status is one of {', '.join(OrderStatus)}.")
    return status


def _changed(db: Database, order_id: UUID, change: OrderChange) -> Answer:
    if change.status == OrderStatus.FAILED:
        return order_store.undo(db, order_id, change.key)
    if (charge_key := change.charge_key) is not None:
        return effects.apply_recorded(db, change.key, lambda: order_store.confirm(db, change.key, order_id, charge_key))
    return effects.apply(db, change.key, lambda tx: _forward(tx, order_id, change))


def _forward(tx: Transaction, order_id: UUID, change: OrderChange) -> Answer:
    if change.verification_sid is not None:
        return order_store.store_sid(tx, order_id, change.verification_sid)
    return order_store.refund(tx, order_id)
