"""At least once, on both ends: nothing is acknowledged before its work, nothing is published without the broker's word.

The broker here is as much of pika as is needed to see in which order things happen; test_broker.py has a real one.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pika
import pytest

from services.chassis import broker
from services.chassis.broker import Publisher
from services.chassis.consumer import Consumer, Message
from services.chassis.errors import Unknown
from services.chassis.settings import BrokerSettings

pytestmark = pytest.mark.unit

NOWHERE = BrokerSettings("broker.test", 1, "nobody", "nothing")


class OneMessage:
    """A connection and its channel, with one message waiting; writes down what happens to it."""

    def __init__(self, happened: list[str]) -> None:
        self.is_open = True
        self._happened = happened

    def channel(self) -> OneMessage:
        return self

    def basic_qos(self, **_: Any) -> None:
        """Takes any number."""

    def consume(self, _queue: str, **_: Any) -> Any:
        yield SimpleNamespace(delivery_tag=1), SimpleNamespace(correlation_id=None, message_id="m", headers={}), b"{}"
        self._happened.append("asked for the next")

    def basic_ack(self, _tag: int) -> None:
        self._happened.append("acknowledged")

    def queue_declare(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(method=SimpleNamespace(message_count=0))

    def close(self) -> None:
        self.is_open = False
        self._happened.append("closed")


def _consumed(monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> list[str]:
    """What happened, in order, until the consumer was done with its one message."""
    happened: list[str] = []
    monkeypatch.setattr(pika, "BlockingConnection", lambda _: OneMessage(happened))

    def handle(_message: Message) -> None:
        happened.append("worked off")
        stop.set()
        if failure:
            raise failure

    stop = threading.Event()
    consumer = Consumer(NOWHERE, "test", "queue", handle, may_consume=lambda: not stop.is_set(), counted_queue="other")
    consumer.start()
    assert stop.wait(5)
    consumer.stop()
    return happened


def test_message_is_acknowledged_after_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _consumed(monkeypatch)[:2] == ["worked off", "acknowledged"]


def test_message_whose_work_failed_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _consumed(monkeypatch, Unknown("the database is down")) == ["worked off", "closed"]


class Silent:
    """A session whose broker takes every message and never confirms one."""

    works = threading.Event()

    def __init__(self, _parameters: object) -> None:
        self._closed = threading.Event()

    def run(self) -> None:
        self.works.set()
        self._closed.wait(5)

    def close(self) -> None:
        self._closed.set()

    def take(self, _message: object) -> bool:
        return True


def test_message_that_the_broker_does_not_confirm_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_Session", Silent)
    publisher = Publisher(NOWHERE, "test")
    publisher.start()
    assert Silent.works.wait(5)
    with pytest.raises(Unknown, match="did not confirm"):
        publisher.publish("", "queue", b"{}", message_id="m", timeout=0.05)
    publisher.stop()
