"""Notices to Order: one attempt each, and the caller never waits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from uuid import UUID, uuid4

import pytest

from services.chassis.clients import HttpPeer
from services.inventory import order_notifier as module
from services.inventory.order_notifier import OrderNotifier
from tests.support.service_settings import make_credential
from tests.support.stubs import check_response, example

pytestmark = pytest.mark.unit

DONE = (200, json.dumps(example("order", "POST", "/orders/{order_id}/expire", 200)).encode())


class Order:
    """A stub transport for Order. It returns the given answer and records the requests."""

    def __init__(self, answer: Callable[[], tuple[int, bytes]], wrong: bool = False) -> None:
        self._answer, self._wrong = answer, wrong
        self.requests: list[str] = []

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        self.requests.append(f"{method} {url}")
        return check_response("order", method, url, *self._answer(), wrong=self._wrong)


def _start_notifier(order: Order) -> OrderNotifier:
    notifier = OrderNotifier(
        HttpPeer("Order", "http://order", make_credential("inventory-service", "order-service"), order)
    )
    notifier.start()
    return notifier


def test_order_gets_one_notice_per_expired_order():
    order, orders = Order(lambda: DONE), [uuid4(), uuid4()]
    notifier = _start_notifier(order)
    for order_id in orders:
        notifier.notify(order_id)
    notifier.stop()
    assert order.requests == [f"POST http://order/orders/{order_id}/expire" for order_id in orders]


@pytest.mark.parametrize("answer", [(503, b""), (404, b'{"error_code": "ORDER_NOT_FOUND"}'), (200, b"not json")])
def test_failed_notice_is_not_retried_and_the_next_is_sent(answer):
    order = Order(lambda: answer, wrong=True)
    notifier = _start_notifier(order)
    notifier.notify(UUID(int=1))
    notifier.notify(UUID(int=2))
    notifier.stop()
    assert len(order.requests) == 2


def test_silent_order_does_not_block_the_caller(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    silence = threading.Event()

    def wait_in_silence() -> tuple[int, bytes]:
        silence.wait(10)
        return DONE

    order = Order(wait_in_silence)
    notifier = _start_notifier(order)
    started = time.monotonic()
    for _ in range(20):
        notifier.notify(uuid4())
    assert time.monotonic() - started < 5, "the order service is silent for 10 s"
    silence.set()
    notifier.stop()
    assert 3 <= len(order.requests) <= 5  # the queue of three, and those that were sent before it was full
