"""Notices to Order: best effort, once, and never in the consumer's way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from uuid import UUID, uuid4

import pytest

from services.chassis.clients import HttpPeer
from services.chassis.tokens import Credential
from services.inventory import notices as module
from services.inventory.notices import OrderNotices
from tests.support.stubs import check_response, example

pytestmark = pytest.mark.unit

SECRET = "i" * 32
DONE = (200, json.dumps(example("order", "POST", "/orders/{order_id}/expire", 200)).encode())


class Order:
    """Order at the transport: answers as told, and remembers what was asked."""

    def __init__(self, answer: Callable[[], tuple[int, bytes]], wrong: bool = False) -> None:
        self._answer, self._wrong = answer, wrong
        self.asked: list[str] = []

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        self.asked.append(f"{method} {url}")
        return check_response("order", method, url, *self._answer(), wrong=self._wrong)


def _notices(order: Order) -> OrderNotices:
    notices = OrderNotices(HttpPeer("Order", "http://order", Credential("inventory-service", SECRET), order))
    notices.start()
    return notices


def test_order_is_told_of_each_expired_order_once():
    order, orders = Order(lambda: DONE), [uuid4(), uuid4()]
    notices = _notices(order)
    for order_id in orders:
        notices.tell(order_id)
    notices.stop()
    assert order.asked == [f"POST http://order/orders/{order_id}/expire" for order_id in orders]


@pytest.mark.parametrize("answer", [(503, b""), (404, b'{"error_code": "ORDER_NOT_FOUND"}'), (200, b"not json")])
def test_order_that_fails_is_not_asked_again_and_the_next_is_told(answer):
    order = Order(lambda: answer, wrong=True)
    notices = _notices(order)
    notices.tell(UUID(int=1))
    notices.tell(UUID(int=2))
    notices.stop()
    assert len(order.asked) == 2


def test_order_that_does_not_answer_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(module, "WAITING", 3)
    silence = threading.Event()

    def silent() -> tuple[int, bytes]:
        silence.wait(10)
        return DONE

    order = Order(silent)
    notices = _notices(order)
    started = time.monotonic()
    for _ in range(20):
        notices.tell(uuid4())
    assert time.monotonic() - started < 1
    silence.set()
    notices.stop()
    assert 3 <= len(order.asked) <= 5  # those that fitted; the rest is Order's sweeper's
