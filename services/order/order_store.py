"""The SQL of orders. Each change of status is a compare-and-set in one statement."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from services.chassis import effects
from services.chassis.db import Database, Row, Transaction
from services.chassis.effects import Answer
from services.chassis.errors import Refused, Unknown
from services.contracts.enums import OrderStatus
from services.contracts.errors import ErrorCode
from services.order.request_models import NewOrder

logger = logging.getLogger(__name__)

FIELDS = (  # the columns that callers get. Only an attempt returns the sid.
    "order_id",
    "user_id",
    "seat_id",
    "event_id",
    "status",
    "credits_charged",
    "charge_key",
    "otp_required",
    "otp_verified_at",
    "otp_attempts",
    "expires_at",
    "is_expired",
    "created_at",
    "confirmed_at",
)

_TIMES = {"otp_verified_at", "expires_at", "created_at", "confirmed_at"}


def _json_column(name: str) -> str:
    """The SQL of a column in a stored answer. Times have the format of `json_codec`."""
    if name == "is_expired":
        return "expires_at <= app_now() AS is_expired"
    return f"replace(to_jsonb({name}) #>> '{{}}', '+00:00', 'Z') AS {name}" if name in _TIMES else name


_ANSWER_COLUMNS = ", ".join(map(_json_column, FIELDS))

# Hot path: one statement changes the order and records the answer.
_CREATE = effects.with_record(f"""
    INSERT INTO orders (order_id, user_id, seat_id, event_id, credits_charged, expires_at, otp_required)
    VALUES (%(order_id)s, %(user_id)s, %(seat_id)s, %(event_id)s, %(price)s, %(expires_at)s, %(otp_required)s)
    RETURNING {_ANSWER_COLUMNS}""")
_CONFIRM = effects.with_record(f"""
    UPDATE orders SET status = 'CONFIRMED', confirmed_at = app_now(), charge_key = %(charge_key)s
    WHERE order_id = %(order_id)s AND status = 'PENDING'
    RETURNING {_ANSWER_COLUMNS}""")
_CONFIRM_AGAIN = _CONFIRM.replace("status = 'PENDING'", "status IN ('PENDING', 'FAILED')")
_REFUND = """
    UPDATE orders SET status = 'REFUNDED' WHERE order_id = %(order_id)s AND status = 'CONFIRMED'
    RETURNING *, expires_at <= app_now() AS is_expired"""
_FAIL = "UPDATE orders SET status = 'FAILED' WHERE order_id = %(order_id)s AND status = %(from_status)s"
_EXPIRE = """
    UPDATE orders SET status = 'FAILED'
    WHERE order_id = %(order_id)s AND status = 'PENDING' AND expires_at <= app_now()"""
_STORE_SID = """
    UPDATE orders SET verification_sid = CASE WHEN otp_verified_at IS NULL THEN %(sid)s END
    WHERE order_id = %(order_id)s AND status = 'PENDING'
    RETURNING *, expires_at <= app_now() AS is_expired"""
_GET = "SELECT *, expires_at <= app_now() AS is_expired FROM orders WHERE order_id = %(order_id)s"
# Hot path of a scan. Each choice of filters is a statement of its own, which a connection plans once.
_SELECT = "SELECT *, expires_at <= app_now() AS is_expired FROM orders"
_COUNT = "SELECT count(*) AS total FROM orders"
_NEWEST = " ORDER BY created_at DESC, order_id DESC LIMIT %(limit)s OFFSET %(offset)s"


def to_answer(row: Row) -> Answer:
    """Select the columns that callers get."""
    return {name: row[name] for name in FIELDS}


def create(db: Database, order: NewOrder) -> Answer:
    """Create a PENDING order and its record, as an attempt for `effects.apply_recorded`.

    Raises UniqueViolation if the order id (`orders_pkey`) or the key exists.
    """
    created = db.statement(
        _CREATE,
        key=order.key,
        order_id=order.order_id,
        user_id=order.user_id,
        seat_id=order.seat_id,
        event_id=order.event_id,
        price=order.price,
        expires_at=order.expires_at,
        otp_required=order.otp_required,
    )
    logger.info("Order %s status: PENDING for user %s", order.order_id, order.user_id)
    return _stored_answer(created)


def confirm(db: Database, key: str, order_id: UUID, charge_key: str, *, is_repair: bool = False) -> Answer:
    """PENDING → CONFIRMED with its record, as an attempt for `effects.apply_recorded`. A repair confirms FAILED too.

    Expiry is not checked, because the seat's hold decides at the pivot that follows.
    Raises Refused ORDER_NOT_FOUND, ORDER_ALREADY_CONFIRMED or ORDER_FAILED, and UniqueViolation if the key exists.
    """
    confirmed = db.statement(
        _CONFIRM_AGAIN if is_repair else _CONFIRM, key=key, order_id=order_id, charge_key=charge_key
    )
    if confirmed is None:
        with db.transaction() as tx:
            raise not_pending_error(tx, order_id)
    logger.info("Order %s status: %s → CONFIRMED", order_id, "PENDING or FAILED" if is_repair else "PENDING")
    return _stored_answer(confirmed)


def _stored_answer(recorded: Row | None) -> Answer:
    answer: Answer = recorded["answer"] if recorded else {}
    return answer


def refund(tx: Transaction, order_id: UUID) -> Answer:
    """CONFIRMED → REFUNDED. Raises Refused ORDER_NOT_FOUND or ORDER_NOT_REFUNDABLE."""
    row = tx.one(_REFUND, order_id=order_id)
    if row is None:
        find(tx, order_id)
        raise Refused(ErrorCode.ORDER_NOT_REFUNDABLE)
    logger.info("Order %s status: CONFIRMED → REFUNDED", order_id)
    return to_answer(row)


def store_sid(tx: Transaction, order_id: UUID, sid: str) -> Answer:
    """Store the sid of the code that was just sent, unless verified. Raises Refused unless PENDING."""
    row = tx.one(_STORE_SID, order_id=order_id, sid=sid)
    if row is None:
        raise not_pending_error(tx, order_id)
    return to_answer(row)


def undo(db: Database, order_id: UUID, key: str) -> Answer:
    """Undo the step under `key` (create or confirm), so that it never happens and the order is FAILED.

    A PENDING order fails even if the step never arrived. A CONFIRMED order fails only if `key` confirmed it.
    A REFUNDED order does not change. Idempotent, never raises Refused.
    """
    effects.undo(db, key, lambda tx, answer: _undo_step(tx, order_id, answer))
    with db.transaction() as tx:
        _fail(tx, order_id, OrderStatus.PENDING)
        row = tx.one(_GET, order_id=order_id)
    return to_answer(row) if row else {"order_id": order_id, "status": None}


def _undo_step(tx: Transaction, order_id: UUID, answer: Answer) -> None:
    _fail(tx, order_id, OrderStatus.PENDING)
    if answer.get("status") == OrderStatus.CONFIRMED:
        _fail(tx, order_id, OrderStatus.CONFIRMED)


def _fail(tx: Transaction, order_id: UUID, from_status: OrderStatus) -> None:
    if tx.run(_FAIL, order_id=order_id, from_status=from_status):
        logger.warning("Order %s status: %s → FAILED (compensation)", order_id, from_status)


def expire(tx: Transaction, order_id: UUID) -> Answer:
    """PENDING → FAILED if the order has expired by the database's clock. Raises Refused ORDER_NOT_FOUND."""
    if tx.run(_EXPIRE, order_id=order_id):
        logger.warning("Order %s status: PENDING → FAILED (its hold has expired)", order_id)
    return {"order_id": order_id, "status": find(tx, order_id)["status"]}


def get(db: Database, order_id: UUID) -> Answer:
    """Return the order for callers. Raises Refused ORDER_NOT_FOUND."""
    row = db.statement(_GET, order_id=order_id)
    if row is None:
        raise Refused(ErrorCode.ORDER_NOT_FOUND)
    return to_answer(row)


def find(tx: Transaction, order_id: UUID) -> Row:
    """Return the order's row. Raises Refused ORDER_NOT_FOUND."""
    row = tx.one(_GET, order_id=order_id)
    if row is None:
        raise Refused(ErrorCode.ORDER_NOT_FOUND)
    return row


def not_pending_error(tx: Transaction, order_id: UUID) -> Refused | Unknown:
    """The error for a change that needs a PENDING order. Raises Refused ORDER_NOT_FOUND."""
    status = find(tx, order_id)["status"]
    if status == OrderStatus.CONFIRMED:
        return Refused(ErrorCode.ORDER_ALREADY_CONFIRMED)
    if status == OrderStatus.PENDING:
        return Unknown("the order was created between two statements, so retry")
    return Refused(ErrorCode.ORDER_FAILED)


def list_orders(db: Database, filters: Mapping[str, Any], page: int, per_page: int) -> tuple[list[Answer], int]:
    """A page of orders, newest first, and their total. `filters` has seat_id, user_id and status, each may be None."""
    offset = (page - 1) * per_page
    where, values = where_equal(filters)
    rows = [to_answer(row) for row in db.rows(_SELECT + where + _NEWEST, **values, limit=per_page, offset=offset)]
    if 0 < len(rows) < per_page or (page == 1 and not rows):
        return rows, offset + len(rows)  # the last page: its offset and length give the total
    (counted,) = db.rows(_COUNT + where, **values)
    return rows, int(counted["total"])


def where_equal(filters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause that compares the columns of `filters` that are not None, and its parameters."""
    values = {name: value for name, value in filters.items() if value is not None}
    conditions = " AND ".join(f"{name} = %({name})s" for name in values)
    return (f" WHERE {conditions}" if conditions else ""), values
