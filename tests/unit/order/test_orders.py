"""Orders: keyed effects, statuses by compare-and-set, lists, and what bad input gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from services.chassis import tokens
from services.chassis.settings import DatabaseSettings
from services.contracts.errors import ERRORS
from services.order import order_store
from tests.support.concurrency import run_concurrently
from tests.unit.order.order_service import SECRET, OrderService, a_key, an_id

pytestmark = pytest.mark.unit
PAST = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


# ── creating


@pytest.mark.claim("layers/order-over-rest", "schema/orders.credits_charged", "schema/orders.confirmed_at")
def test_a_new_order_is_pending_at_the_price_of_its_reservation(service: OrderService) -> None:
    reply = service.create(price=350)
    assert reply.status == 201
    assert reply.data["status"] == "PENDING"
    assert b'"credits_charged":350.00' in reply.raw
    assert service.order(reply.data["order_id"])["is_expired"] is False


def test_the_same_create_twice_is_one_order_and_one_answer(service: OrderService) -> None:
    fields = {"order_id": an_id(), "user_id": an_id(), "seat_id": an_id(), "event_id": an_id(), "key": a_key()}
    first = service.create(**fields)
    service.confirm(fields["order_id"])
    assert service.create(**fields).data == first.data


def test_one_create_at_once_eight_times_is_one_order(service: OrderService) -> None:
    fields = {"order_id": an_id(), "key": a_key()}
    replies = run_concurrently([lambda: service.create(**fields)] * 8)
    assert {reply.status for reply in replies} == {201}
    assert len({json.dumps(reply.data, sort_keys=True) for reply in replies}) == 1


def test_an_id_that_is_taken_is_refused_under_another_key(service: OrderService) -> None:
    order_id = service.pending()
    assert service.create(order_id=order_id).code == "VALIDATION_ERROR"


def test_a_create_that_comes_after_its_undo_makes_no_order(service: OrderService) -> None:
    order_id, key = an_id(), a_key("create")
    assert service.fail(order_id, key).data == {"order_id": order_id, "status": None}
    assert service.create(order_id=order_id, key=key).code == "STEP_VOIDED"
    assert service.ask("GET", f"/orders/{order_id}").code == "ORDER_NOT_FOUND"


@pytest.mark.claim("schema/orders-are-immutable")
def test_what_an_order_says_of_buyer_seat_and_credits_never_changes_and_it_is_never_deleted(
    service: OrderService,
) -> None:
    order_id = service.pending()
    said = {name: service.order(order_id)[name] for name in ("user_id", "seat_id", "event_id", "credits_charged")}
    others = {name: 1 if name == "credits_charged" else an_id() for name in said}
    assert service.ask("PATCH", f"/orders/{order_id}", {"key": a_key(), **others}).code == "VALIDATION_ERROR"
    service.confirm(order_id)
    rewritten = {"key": a_key(), "status": "REFUNDED", **others}
    assert service.ask("PATCH", f"/orders/{order_id}", rewritten).code == "VALIDATION_ERROR"
    service.refund(order_id)
    assert service.ask("DELETE", f"/orders/{order_id}").code == "METHOD_NOT_ALLOWED"
    order = service.order(order_id)
    assert (order["status"], {name: order[name] for name in said}) == ("REFUNDED", said)


# ── confirming and taking back


@pytest.mark.claim("schema/orders.confirmed_at", "pay/confirms-order", "layers/order-over-rest")
def test_a_pending_order_is_confirmed_and_keeps_the_key_of_its_charge(service: OrderService) -> None:
    confirmed = service.confirm(service.pending()).data
    assert (confirmed["status"], confirmed["charge_key"]) == ("CONFIRMED", "pay:1:deduct")
    assert confirmed["confirmed_at"].endswith("Z")


def test_the_same_confirm_twice_gives_the_first_answer(service: OrderService) -> None:
    order_id, key = service.pending(), a_key("confirm")
    assert service.confirm(order_id, key).data == service.confirm(order_id, key).data


def test_of_ten_confirms_at_once_one_does_it(service: OrderService) -> None:
    order_id = service.pending()
    replies = run_concurrently([lambda: service.confirm(order_id)] * 10)
    assert sorted(reply.code or "" for reply in replies) == [""] + ["ORDER_ALREADY_CONFIRMED"] * 9


@pytest.mark.parametrize(
    ("made", "code"),
    [("confirmed", "ORDER_ALREADY_CONFIRMED"), ("failed", "ORDER_FAILED"), ("absent", "ORDER_NOT_FOUND")],
)
def test_only_a_pending_order_can_be_confirmed(service: OrderService, made: str, code: str) -> None:
    order_id = an_id() if made == "absent" else service.pending()
    if made != "absent":
        service.confirm(order_id) if made == "confirmed" else service.fail(order_id)
    assert service.confirm(order_id).code == code


def test_a_refusal_is_repeated_even_when_it_would_succeed_now(service: OrderService) -> None:
    order_id, key = an_id(), a_key("confirm")
    assert service.confirm(order_id, key).code == "ORDER_NOT_FOUND"
    service.pending(order_id=order_id)
    assert service.confirm(order_id, key).code == "ORDER_NOT_FOUND"
    assert service.order(order_id)["status"] == "PENDING"


def test_undoing_a_confirm_fails_the_order(service: OrderService) -> None:
    order_id, key = service.pending(), a_key("confirm")
    service.confirm(order_id, key)
    assert service.fail(order_id, key).data["status"] == "FAILED"
    assert service.fail(order_id, key).data["status"] == "FAILED"


def test_a_confirm_that_comes_after_its_undo_is_refused(service: OrderService) -> None:
    order_id, key = service.pending(), a_key("confirm")
    assert service.fail(order_id, key).data["status"] == "FAILED"
    assert service.confirm(order_id, key).code in ("STEP_VOIDED", "ORDER_FAILED")
    assert service.order(order_id)["status"] == "FAILED"


def test_an_undo_under_another_key_does_not_touch_a_sale(service: OrderService) -> None:
    create_key = a_key("create")
    order_id = service.pending(key=create_key)
    service.confirm(order_id)
    assert service.fail(order_id, a_key("confirm")).data["status"] == "CONFIRMED"
    assert service.fail(order_id, create_key).data["status"] == "CONFIRMED"


def test_an_undo_never_touches_a_refunded_order(service: OrderService) -> None:
    order_id, confirm_key, refund_key = service.pending(), a_key("confirm"), a_key("refund")
    service.confirm(order_id, confirm_key)
    assert service.refund(order_id, refund_key).data["status"] == "REFUNDED"
    for key in (confirm_key, refund_key, a_key()):
        assert service.fail(order_id, key).data["status"] == "REFUNDED"


def test_confirm_and_undo_at_once_never_leave_a_sale(service: OrderService) -> None:
    for _ in range(10):
        order_id, key = service.pending(), a_key("confirm")
        run_concurrently([partial(service.confirm, order_id, key), partial(service.fail, order_id, key)])
        assert service.order(order_id)["status"] == "FAILED"


def test_a_refund_is_for_a_confirmed_order_once(service: OrderService) -> None:
    order_id = service.confirmed()
    assert service.refund(order_id).data["status"] == "REFUNDED"
    assert service.refund(order_id).code == "ORDER_NOT_REFUNDABLE"
    assert service.refund(service.pending()).code == "ORDER_NOT_REFUNDABLE"
    assert service.refund(an_id()).code == "ORDER_NOT_FOUND"


# ── expiry by the consumer


@pytest.mark.claim("hold/pending-order-fails")
def test_a_hold_that_has_run_out_fails_its_order(service: OrderService) -> None:
    order_id = service.pending(expires_at=PAST)
    assert service.expire(order_id).data["status"] == "FAILED"
    assert service.expire(order_id).data["status"] == "FAILED"


def test_expiry_leaves_what_still_has_time_and_what_is_sold(service: OrderService) -> None:
    assert service.expire(service.pending()).data["status"] == "PENDING"
    assert service.expire(service.confirmed(expires_at=PAST)).data["status"] == "CONFIRMED"
    assert service.expire(an_id()).code == "ORDER_NOT_FOUND"


# ── a locked row


def test_a_locked_order_is_unknown_within_the_lock_timeout_and_confirmed_later(service: OrderService) -> None:
    order_id, key = service.pending(), a_key("confirm")
    with service.db.transaction() as tx:
        tx.one("SELECT 1 FROM orders WHERE order_id = %(id)s FOR UPDATE", id=UUID(order_id))
        refused = service.confirm(order_id, key)
    assert (refused.status, refused.code) == (503, "SERVICE_UNAVAILABLE")
    assert refused.headers["Retry-After"] == "1"
    assert service.confirm(order_id, key).data["status"] == "CONFIRMED"


# ── lists


def test_lists_are_newest_first_page_by_page(service: OrderService) -> None:
    user_id = an_id()
    made = [service.pending(user_id=user_id) for _ in range(5)]
    seen: list[str] = []
    for page in (1, 2, 3):
        reply = service.ask("GET", f"/orders?user_id={user_id}&page={page}&per_page=2")
        assert reply.body["pagination"] == {"page": page, "per_page": 2, "total": 5, "total_pages": 3}
        seen += [order["order_id"] for order in reply.data]
    assert seen == made[::-1]
    past_the_end = service.ask("GET", f"/orders?user_id={user_id}&page=4&per_page=2")
    assert (past_the_end.data, past_the_end.body["pagination"]["total"]) == ([], 5)


@pytest.mark.claim("gate/reads-order", "schema/orders.seat_id")
def test_the_gate_finds_the_one_sale_of_a_seat(service: OrderService) -> None:
    seat_id = an_id()
    sale = service.confirmed(seat_id=seat_id)
    service.pending(seat_id=seat_id)
    found = service.ask("GET", f"/orders?seat_id={seat_id}&status=CONFIRMED").data
    assert [order["order_id"] for order in found] == [sale]


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"seat_id": UUID(int=1), "status": "CONFIRMED"}, "orders_by_seat"),
        ({"user_id": UUID(int=1)}, "orders_by_user"),
        ({}, "orders_newest"),
    ],
)
def test_every_list_has_an_index(service: OrderService, filters: dict[str, Any], index: str) -> None:
    given = {"seat_id": None, "user_id": None, "status": None, **filters, "limit": 20, "offset": 0}
    with service.db.transaction() as tx:
        tx.run("SET LOCAL enable_seqscan = off")
        tx.run("SET LOCAL enable_sort = off")
        plan = "\n".join(row["QUERY PLAN"] for row in tx.all("EXPLAIN " + order_store._LIST, **given))
    assert index in plan
    assert "Sort" not in plan


# ── bad input, wrong callers

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
    ({"otp_required": 1}, "VALIDATION_ERROR"),
    ({"key": ""}, "VALIDATION_ERROR"),
    ({"key": "k" * 513}, "VALIDATION_ERROR"),
    ({"key": "a\0b"}, "VALIDATION_ERROR"),
    ({"surprise": 1}, "VALIDATION_ERROR"),
]


@pytest.mark.parametrize(("fields", "code"), BAD_BODIES)
def test_a_bad_order_is_refused_with_its_code(service: OrderService, fields: dict[str, Any], code: str) -> None:
    fields = {"key": a_key(), **fields}
    assert service.create(**fields).code == code


def test_any_legal_offset_of_a_time_is_taken(service: OrderService) -> None:
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
def test_a_change_that_makes_no_sense_is_refused(service: OrderService, fields: dict[str, Any]) -> None:
    assert service.change(service.pending(), **fields).code == "VALIDATION_ERROR"


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
def test_a_bad_address_is_refused_with_its_code(service: OrderService, path: str, code: str) -> None:
    assert service.ask("GET", path).code == code


def test_text_that_is_not_json_is_refused(service: OrderService) -> None:
    for raw, kind, code in (
        (b"{", "application/json", "VALIDATION_ERROR"),
        (b"[]", "application/json", "VALIDATION_ERROR"),
        (b'{"key": "\xff"}', "application/json", "VALIDATION_ERROR"),
        (b"{}", "text/plain", "UNSUPPORTED_MEDIA_TYPE"),
    ):
        assert service.ask("POST", "/orders", data=raw, content_type=kind).code == code


def routes(service: OrderService) -> list[tuple[str, str]]:
    """Every internal route with a method."""
    found = []
    for rule in service.app.url_map.iter_rules():
        path = rule.rule.replace("<order_id>", an_id()).replace("<transfer_id>", an_id())
        found += [(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}]
    return [(method, path) for method, path in found if not path.startswith(("/health", "/metrics"))]


def test_nobody_calls_without_a_credential_of_his_own(service: OrderService) -> None:
    user_token = tokens.issue(SECRET, UUID(int=1), "customer", "sid", "access")
    for method, path in routes(service):
        assert service.ask(method, path, caller=None).code == "UNAUTHORIZED"
        bearer = {"Authorization": f"Bearer {user_token}"}
        assert service.ask(method, path, caller=None, headers=bearer).code == "UNAUTHORIZED"


def test_each_call_has_one_caller(service: OrderService) -> None:
    for method, path in routes(service):
        for caller in ("user-service", "event-service", "inventory-service", "orchestrator-service"):
            expected = "inventory-service" if path.endswith("/expire") else "orchestrator-service"
            code = service.ask(method, path, caller=caller).code
            assert (code == "FORBIDDEN") == (caller != expected), (method, path, caller, code)


def test_every_refusal_is_in_the_error_table(service: OrderService) -> None:
    reply = service.confirm(an_id())
    assert reply.status == ERRORS[reply.code].http  # type: ignore[index]
    assert set(reply.body) == {"success", "error_code", "message", "correlation_id"}
