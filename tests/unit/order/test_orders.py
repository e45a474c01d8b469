"""Orders: keyed effects, changes of status, lists, invalid input and callers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from services.contracts.errors import ERRORS
from services.order import order_store
from tests.support.concurrency import run_concurrently
from tests.support.service_settings import new_id, new_key, user_token
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit
PAST = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()


# ── creating


@pytest.mark.claim("layers/order-over-rest", "schema/orders.credits_charged", "schema/orders.confirmed_at")
def test_new_order_is_pending_at_the_reserved_price(service: OrderService) -> None:
    reply = service.create(price=350)
    assert reply.status == 201
    assert reply.data["status"] == "PENDING"
    assert b'"credits_charged":350.00' in reply.raw
    assert service.order(reply.data["order_id"])["is_expired"] is False


def test_repeated_create_returns_the_first_answer(service: OrderService) -> None:
    fields = {"order_id": new_id(), "user_id": new_id(), "seat_id": new_id(), "event_id": new_id(), "key": new_key()}
    first = service.create(**fields)
    service.confirm(fields["order_id"])
    assert service.create(**fields).data == first.data


def test_concurrent_creates_with_one_key_make_one_order(service: OrderService) -> None:
    fields = {"order_id": new_id(), "key": new_key()}
    replies = run_concurrently([lambda: service.create(**fields)] * 8)
    assert {reply.status for reply in replies} == {201}
    assert len({json.dumps(reply.data, sort_keys=True) for reply in replies}) == 1


def test_existing_id_is_refused_under_another_key(service: OrderService) -> None:
    order_id = service.add_pending()
    assert service.create(order_id=order_id).code == "VALIDATION_ERROR"


def test_create_after_its_undo_makes_no_order(service: OrderService) -> None:
    order_id, key = new_id(), new_key("create")
    assert service.fail(order_id, key).data == {"order_id": order_id, "status": None}
    assert service.create(order_id=order_id, key=key).code == "STEP_VOIDED"
    assert service.call("GET", f"/orders/{order_id}").code == "ORDER_NOT_FOUND"


@pytest.mark.claim("schema/orders-are-immutable")
def test_order_is_immutable_and_cannot_be_deleted(
    service: OrderService,
) -> None:
    order_id = service.add_pending()
    before = {name: service.order(order_id)[name] for name in ("user_id", "seat_id", "event_id", "credits_charged")}
    others = {name: 1 if name == "credits_charged" else new_id() for name in before}
    assert service.call("PATCH", f"/orders/{order_id}", {"key": new_key(), **others}).code == "VALIDATION_ERROR"
    service.confirm(order_id)
    change = {"key": new_key(), "status": "REFUNDED", **others}
    assert service.call("PATCH", f"/orders/{order_id}", change).code == "VALIDATION_ERROR"
    service.refund(order_id)
    assert service.call("DELETE", f"/orders/{order_id}").code == "METHOD_NOT_ALLOWED"
    order = service.order(order_id)
    assert (order["status"], {name: order[name] for name in before}) == ("REFUNDED", before)


# ── confirming, undoing, refunding


@pytest.mark.claim("schema/orders.confirmed_at", "pay/confirms-order", "layers/order-over-rest")
def test_confirmed_order_stores_the_charge_key(service: OrderService) -> None:
    confirmed = service.confirm(service.add_pending()).data
    assert (confirmed["status"], confirmed["charge_key"]) == ("CONFIRMED", "pay:1:deduct")
    assert confirmed["confirmed_at"].endswith("Z")


def test_repeated_confirm_returns_the_first_answer(service: OrderService) -> None:
    order_id, key = service.add_pending(), new_key("confirm")
    assert service.confirm(order_id, key).data == service.confirm(order_id, key).data


def test_one_of_ten_concurrent_confirms_succeeds(service: OrderService) -> None:
    order_id = service.add_pending()
    replies = run_concurrently([lambda: service.confirm(order_id)] * 10)
    assert sorted(reply.code or "" for reply in replies) == [""] + ["ORDER_ALREADY_CONFIRMED"] * 9


@pytest.mark.parametrize(
    ("state", "code"),
    [("confirmed", "ORDER_ALREADY_CONFIRMED"), ("failed", "ORDER_FAILED"), ("absent", "ORDER_NOT_FOUND")],
)
def test_only_a_pending_order_can_be_confirmed(service: OrderService, state: str, code: str) -> None:
    order_id = new_id() if state == "absent" else service.add_pending()
    if state != "absent":
        service.confirm(order_id) if state == "confirmed" else service.fail(order_id)
    assert service.confirm(order_id).code == code


def test_stored_refusal_is_repeated(service: OrderService) -> None:
    order_id, key = new_id(), new_key("confirm")
    assert service.confirm(order_id, key).code == "ORDER_NOT_FOUND"
    service.add_pending(order_id=order_id)
    assert service.confirm(order_id, key).code == "ORDER_NOT_FOUND"
    assert service.order(order_id)["status"] == "PENDING"


def test_undo_of_a_confirm_fails_the_order(service: OrderService) -> None:
    order_id, key = service.add_pending(), new_key("confirm")
    service.confirm(order_id, key)
    assert service.fail(order_id, key).data["status"] == "FAILED"
    assert service.fail(order_id, key).data["status"] == "FAILED"


def test_confirm_after_its_undo_is_refused(service: OrderService) -> None:
    order_id, key = service.add_pending(), new_key("confirm")
    assert service.fail(order_id, key).data["status"] == "FAILED"
    assert service.confirm(order_id, key).code in ("STEP_VOIDED", "ORDER_FAILED")
    assert service.order(order_id)["status"] == "FAILED"


def test_undo_under_another_key_keeps_a_confirmed_order(service: OrderService) -> None:
    create_key = new_key("create")
    order_id = service.add_pending(key=create_key)
    service.confirm(order_id)
    assert service.fail(order_id, new_key("confirm")).data["status"] == "CONFIRMED"
    assert service.fail(order_id, create_key).data["status"] == "CONFIRMED"


def test_undo_keeps_a_refunded_order(service: OrderService) -> None:
    order_id, confirm_key, refund_key = service.add_pending(), new_key("confirm"), new_key("refund")
    service.confirm(order_id, confirm_key)
    assert service.refund(order_id, refund_key).data["status"] == "REFUNDED"
    for key in (confirm_key, refund_key, new_key()):
        assert service.fail(order_id, key).data["status"] == "REFUNDED"


def test_concurrent_confirm_and_undo_fail_the_order(service: OrderService) -> None:
    for _ in range(10):
        order_id, key = service.add_pending(), new_key("confirm")
        run_concurrently([partial(service.confirm, order_id, key), partial(service.fail, order_id, key)])
        assert service.order(order_id)["status"] == "FAILED"


def test_confirmed_order_is_refunded_once(service: OrderService) -> None:
    order_id = service.add_confirmed()
    assert service.refund(order_id).data["status"] == "REFUNDED"
    assert service.refund(order_id).code == "ORDER_NOT_REFUNDABLE"
    assert service.refund(service.add_pending()).code == "ORDER_NOT_REFUNDABLE"
    assert service.refund(new_id()).code == "ORDER_NOT_FOUND"


# ── expiry by the consumer


@pytest.mark.claim("hold/pending-order-fails")
def test_expired_order_fails(service: OrderService) -> None:
    order_id = service.add_pending(expires_at=PAST)
    assert service.expire(order_id).data["status"] == "FAILED"
    assert service.expire(order_id).data["status"] == "FAILED"


def test_expire_keeps_current_and_confirmed_orders(service: OrderService) -> None:
    assert service.expire(service.add_pending()).data["status"] == "PENDING"
    assert service.expire(service.add_confirmed(expires_at=PAST)).data["status"] == "CONFIRMED"
    assert service.expire(new_id()).code == "ORDER_NOT_FOUND"


# ── a locked row


def test_confirm_of_a_locked_order_is_503_until_retried(service: OrderService, impatient: OrderService) -> None:
    order_id, key = service.add_pending(), new_key("confirm")
    with service.db.transaction() as tx:
        tx.one("SELECT 1 FROM orders WHERE order_id = %(id)s FOR UPDATE", id=UUID(order_id))
        refused = impatient.confirm(order_id, key)
    assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
    assert refused.headers["Retry-After"] == "1"
    assert service.confirm(order_id, key).data["status"] == "CONFIRMED"


# ── lists


def test_lists_are_paged_newest_first(service: OrderService) -> None:
    user_id = new_id()
    added = [service.add_pending(user_id=user_id) for _ in range(5)]
    listed: list[str] = []
    for page in (1, 2, 3):
        reply = service.call("GET", f"/orders?user_id={user_id}&page={page}&per_page=2")
        assert reply.body["pagination"] == {"page": page, "per_page": 2, "total": 5, "total_pages": 3}
        listed += [order["order_id"] for order in reply.data]
    assert listed == added[::-1]
    last_page = service.call("GET", f"/orders?user_id={user_id}&page=4&per_page=2")
    assert (last_page.data, last_page.body["pagination"]["total"]) == ([], 5)


@pytest.mark.claim("gate/reads-order", "schema/orders.seat_id")
def test_list_finds_the_confirmed_order_of_a_seat(service: OrderService) -> None:
    seat_id = new_id()
    order_id = service.add_confirmed(seat_id=seat_id)
    service.add_pending(seat_id=seat_id)
    found = service.call("GET", f"/orders?seat_id={seat_id}&status=CONFIRMED").data
    assert [order["order_id"] for order in found] == [order_id]


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"seat_id": UUID(int=1), "status": "CONFIRMED"}, "orders_by_seat"),
        ({"user_id": UUID(int=1)}, "orders_by_user"),
        ({}, "orders_newest"),
    ],
)
def test_every_list_has_an_index(service: OrderService, filters: dict[str, Any], index: str) -> None:
    sql = f"EXPLAIN {order_store._SELECT}{order_store.where_equal(filters)[0]}{order_store._NEWEST}"
    with service.db.transaction() as tx:
        tx.run("SET LOCAL enable_seqscan = off")
        tx.run("SET LOCAL enable_sort = off")
        plan = "\n".join(row["QUERY PLAN"] for row in tx.all(sql, **filters, limit=20, offset=0))
    assert index in plan
    assert "Sort" not in plan


# ── invalid input, wrong callers

BAD_BODIES = [
    ({"order_id": "x"}, "INVALID_UUID"),
    ({"order_id": None}, "VALIDATION_ERROR"),
    ({"price": 0}, "VALIDATION_ERROR"),
    ({"price": -1}, "VALIDATION_ERROR"),
    ({"price": 1.001}, "VALIDATION_ERROR"),
    ({"price": "350"}, "VALIDATION_ERROR"),
    ({"price": 1e300}, "VALIDATION_ERROR"),
    ({"price": 100000000}, "VALIDATION_ERROR"),
    ({"price": True}, "VALIDATION_ERROR"),
    ({"expires_at": "tomorrow"}, "VALIDATION_ERROR"),
    ({"expires_at": "2026-01-01T00:00:00"}, "VALIDATION_ERROR"),
    ({"expires_at": "0001-01-01T00:00:00+14:00"}, "VALIDATION_ERROR"),
    ({"expires_at": "9999-12-31T23:59:59-10:00"}, "VALIDATION_ERROR"),
    ({"otp_required": 1}, "VALIDATION_ERROR"),
    ({"key": ""}, "VALIDATION_ERROR"),
    ({"key": "k" * 513}, "VALIDATION_ERROR"),
    ({"key": "a\0b"}, "VALIDATION_ERROR"),
    ({"surprise": 1}, "VALIDATION_ERROR"),
]


@pytest.mark.parametrize(("fields", "code"), BAD_BODIES)
def test_invalid_order_is_refused(service: OrderService, fields: dict[str, Any], code: str) -> None:
    fields = {"key": new_key(), **fields}
    assert service.create(**fields).code == code


def test_expiry_with_any_offset_is_stored_in_utc(service: OrderService) -> None:
    reply = service.create(expires_at="2030-01-02T00:00:00+23:59")
    assert (reply.status, reply.data["expires_at"]) == (201, "2030-01-01T00:01:00Z")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "PENDING"},
        {"status": "CONFIRMED"},
        {"status": "FAILED", "charge_key": "k"},
        {"charge_key": "k"},
        {"status": "FAILED", "verification_sid": "VE1"},
        {"verification_sid": ""},
        {"status": None},
    ],
)
def test_invalid_change_is_refused(service: OrderService, fields: dict[str, Any]) -> None:
    assert service.change(service.add_pending(), **fields).code == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/orders/42", "INVALID_UUID"),
        ("/orders?user_id=42", "INVALID_UUID"),
        ("/orders?status=SOLD", "VALIDATION_ERROR"),
        ("/orders?page=0", "VALIDATION_ERROR"),
        ("/orders?per_page=101", "VALIDATION_ERROR"),
        ("/orders?page=x", "VALIDATION_ERROR"),
        ("/nowhere", "NOT_FOUND"),
    ],
)
def test_invalid_address_is_refused(service: OrderService, path: str, code: str) -> None:
    assert service.call("GET", path).code == code


def test_body_that_is_not_json_is_refused(service: OrderService) -> None:
    for raw, kind, code in (
        (b"{", "application/json", "VALIDATION_ERROR"),
        (b"[]", "application/json", "VALIDATION_ERROR"),
        (b'{"key": "\xff"}', "application/json", "VALIDATION_ERROR"),
        (b"{}", "text/plain", "UNSUPPORTED_MEDIA_TYPE"),
    ):
        assert service.call("POST", "/orders", data=raw, content_type=kind).code == code


def list_routes(service: OrderService) -> list[tuple[str, str]]:
    """Every internal route with a method."""
    found = []
    for rule in service.app.url_map.iter_rules():
        path = rule.rule.replace("<order_id>", new_id()).replace("<transfer_id>", new_id())
        found += [(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}]
    return [(method, path) for method, path in found if not path.startswith(("/health", "/metrics"))]


def test_each_route_needs_a_service_credential(service: OrderService) -> None:
    bearer = {"Authorization": f"Bearer {user_token(UUID(int=1))}"}
    for method, path in list_routes(service):
        assert service.call(method, path, caller=None).code == "UNAUTHORIZED"
        assert service.call(method, path, caller=None, headers=bearer).code == "UNAUTHORIZED"


def test_each_route_allows_one_caller(service: OrderService) -> None:
    for method, path in list_routes(service):
        for caller in ("order-service", "event-service", "inventory-service", "orchestrator-service"):
            expected = "inventory-service" if path.endswith("/expire") else "orchestrator-service"
            code = service.call(method, path, caller=caller).code
            assert (code == "FORBIDDEN") == (caller != expected), (method, path, caller, code)


def test_refusal_has_the_error_envelope(service: OrderService) -> None:
    reply = service.confirm(new_id())
    assert reply.status == ERRORS[reply.code].http  # type: ignore[index]
    assert set(reply.body) == {"success", "error_code", "message", "correlation_id"}
