"""The list of effects, and the repair of rows that a restore has lost. Both are for `admin reconcile`."""

from __future__ import annotations

from typing import Any

import pytest

from services.chassis import effects
from tests.support.service_settings import new_key
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit


def list_effects(service: OrderService, **query: Any) -> Any:
    return service.call("POST", "/effects/list", query).data


def test_effects_of_keys_have_their_outcomes(service: OrderService) -> None:
    done, refused, voided = new_key("confirm"), new_key("refund"), new_key("fail")
    order_id = service.add_pending()
    service.refund(order_id, refused)
    service.confirm(order_id, done)
    service.fail(order_id, voided)
    found = list_effects(service, keys=[done, refused, voided, new_key()])
    assert found == {"outcomes": {done: "DONE", refused: "REFUSED", voided: "VOIDED"}, "next": ""}


def test_pages_contain_each_effect_of_the_ages_once(service: OrderService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "PAGE", 2)
    young, old = ([new_key("create") for _ in range(3)] for _ in range(2))
    for key in (*young, *old):
        service.create(key)
    with service.db.transaction() as tx:
        tx.run("UPDATE effects SET created_at = app_now() - interval '1 hour' WHERE key = ANY(%(keys)s)", keys=old)
    found: list[str] = []
    after = None
    while after != "":
        page = list_effects(service, after=after or "", max_age=7200, min_age=1800)
        found, after = [*found, *page["outcomes"]], page["next"]
    assert sorted(key for key in found if key in {*young, *old}) == sorted(old)


def test_repair_confirms_a_failed_order_and_nothing_else_does(service: OrderService) -> None:
    order_id = service.add_pending()
    service.fail(order_id)
    assert service.confirm(order_id).code == "ORDER_FAILED"
    fields = {"status": "CONFIRMED", "charge_key": "pay:1:deduct"}
    assert service.change(order_id, is_repair=True, **fields).data["status"] == "CONFIRMED"
    assert service.change(order_id, status="FAILED", is_repair=True).code == "VALIDATION_ERROR"


def test_repair_does_not_confirm_a_refunded_order(service: OrderService) -> None:
    order_id = service.add_confirmed()
    service.refund(order_id)
    repaired = service.change(order_id, status="CONFIRMED", charge_key="pay:1:deduct", is_repair=True)
    assert (repaired.status, service.order(order_id)["status"]) == (409, "REFUNDED")


def test_repair_completes_a_transfer_whose_codes_are_lost(service: OrderService) -> None:
    transfer_id = service.add_awaiting()
    path, key = f"/transfers/{transfer_id}", new_key("complete")
    body = {"status": "COMPLETED", "expected": "PENDING_OTP"}
    assert service.call("PATCH", path, {"key": new_key(), **body}).code == "TRANSFER_INVALID_STATE"
    completed = service.call("PATCH", path, {"key": key, **body, "is_repair": True})
    assert completed.data["status"] == "COMPLETED"
    again = service.call("PATCH", path, {"key": new_key(), **body, "is_repair": True})
    assert again.code == "TRANSFER_INVALID_STATE"
