"""HTTP routes of orders for the orchestrator, and of expiry for Inventory's consumer.

Every change except expiry has a key (see `order_store`).
"""

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
from services.order import order_store, transfer_store, unique_effects
from services.order.request_models import NewOrder, OrderChange

orchestrator = internal("orchestrator-service")
inventory = internal("inventory-service")

_DUPLICATES = {
    "orders_pkey": lambda: Refused(ErrorCode.VALIDATION_ERROR, "An order with this id already exists."),
}


def order_routes(db: Database) -> Blueprint:
    """Build the routes under `/orders`."""
    routes = Blueprint("orders", __name__)

    @routes.post("/orders")
    @orchestrator
    def create() -> Response:
        order = web.body(NewOrder)
        created = unique_effects.apply_recorded_or_refuse_duplicate(
            db, order.key, lambda: order_store.create(db, order), _DUPLICATES
        )
        return web.ok(created, 201)

    @routes.get("/orders")
    @orchestrator
    def list_orders() -> Response:
        page, per_page = web.page()
        filters = {"seat_id": web.query_id("seat_id"), "user_id": web.query_id("user_id"), "status": _read_status()}
        rows, total = order_store.list_orders(db, filters, page, per_page)
        return web.ok_page(rows, total, page, per_page)

    @routes.get("/orders/<order_id>")
    @orchestrator
    def get(order_id: str) -> Response:
        return web.ok(order_store.get(db, web.as_id(order_id)))

    @routes.patch("/orders/<order_id>")
    @orchestrator
    def change_order(order_id: str) -> Response:
        return web.ok(_change(db, web.as_id(order_id), web.body(OrderChange)))

    @routes.post("/orders/<order_id>/expire")
    @inventory
    def expire(order_id: str) -> Response:
        subject_id = web.as_id(order_id)
        with db.transaction() as tx:
            expired = order_store.expire(tx, subject_id)
        return web.ok(expired)

    return routes


def _read_status() -> str | None:
    status = request.args.get("status")
    if status is not None and status not in OrderStatus.__members__:
        raise Refused(ErrorCode.VALIDATION_ERROR, f"status must be one of {', '.join(OrderStatus)}.")
    return status


def _change(db: Database, order_id: UUID, change: OrderChange) -> Answer:
    if change.status == OrderStatus.FAILED:
        return order_store.undo(db, order_id, change.key)
    if (charge_key := change.charge_key) is not None:
        what, is_repair = (db, change.key, order_id, charge_key), bool(change.is_repair)
        return effects.apply_recorded(db, change.key, lambda: order_store.confirm(*what, is_repair=is_repair))
    return effects.apply(db, change.key, lambda tx: _store_sid_or_refund(tx, order_id, change))


def _store_sid_or_refund(tx: Transaction, order_id: UUID, change: OrderChange) -> Answer:
    if change.verification_sid is not None:
        return order_store.store_sid(tx, order_id, change.verification_sid)
    refunded = order_store.refund(tx, order_id)
    transfer_store.fail_of_order(tx, order_id)
    return refunded
