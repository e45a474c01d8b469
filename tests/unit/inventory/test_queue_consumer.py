"""The order of work and acknowledgement in Consumer, with a stub for pika. test_consumer.py uses a real broker."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from services.chassis.errors import Unknown
from services.chassis.settings import BrokerSettings
from services.inventory.queue_consumer import Consumer, Message

pytestmark = pytest.mark.unit

NOWHERE = BrokerSettings("broker.test", 1, "nobody", "nothing")


class OneMessage:
    """A connection and its channel with one waiting message. It records each event in `happened`."""

    def __init__(self, happened: list[str]) -> None:
        self.is_open = True
        self._happened = happened

    def channel(self) -> OneMessage:
        return self

    def basic_qos(self, **_: Any) -> None:
        """Accept any prefetch count."""

    def consume(self, _queue: str, **_: Any) -> Any:
        yield SimpleNamespace(delivery_tag=1), SimpleNamespace(correlation_id=None, message_id="m", headers={}), b"{}"
        self._happened.append("next message requested")

    def basic_ack(self, _tag: int) -> None:
        self._happened.append("acknowledged")

    def queue_declare(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(method=SimpleNamespace(message_count=0))

    def close(self) -> None:
        self.is_open = False
        self._happened.append("closed")


def _consume_one(monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> list[str]:
    """Run a consumer until it is done with the one message. Return the events in order."""
    happened: list[str] = []
    monkeypatch.setattr(pika, "BlockingConnection", lambda _: OneMessage(happened))

    def handle(_message: Message) -> None:
        happened.append("handled")
        stop.set()
        if failure:
            raise failure

    stop = threading.Event()
    consumer = Consumer(NOWHERE, "test", "queue", handle, may_consume=lambda: not stop.is_set(), counted_queue="other")
    consumer.start()
    assert stop.wait(5)
    consumer.stop()
    return happened


def test_message_is_acknowledged_after_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _consume_one(monkeypatch)[:2] == ["handled", "acknowledged"]


def test_failed_message_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _consume_one(monkeypatch, Unknown("the database is down")) == ["handled", "closed"]
