"""The order of work and acknowledgement in Consumer, with a stub for pika. test_consumer.py uses a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from services.chassis.errors import Unknown
from services.chassis.settings import Address, BrokerSettings
from services.inventory.queue_consumer import SILENT_SECONDS, Consumer, Message

pytestmark = pytest.mark.unit

NOWHERE = BrokerSettings((Address("broker.test", 1),), "nobody", "nothing")


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


class ScriptedChannel(OneMessage):
    """A broker that refuses, confirms, cancels or freezes its consumer. `states` has the state seen at each turn."""

    def __init__(self, script: str, look: Callable[[], None]) -> None:
        super().__init__([])
        self._script = script
        self._look = look

    def consume(self, _queue: str, **_: Any) -> Any:
        self._look()
        if self._script == "refused":
            raise ChannelClosedByBroker(404, "NOT_FOUND - no queue")
        yield None, None, None
        yield None, None, None
        self._look()

    def queue_declare(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(method=SimpleNamespace(message_count=3))


def _watch_states(monkeypatch: pytest.MonkeyPatch, script: str) -> list[tuple[str, int | None]]:
    """Run one connection of a consumer. Return state and count before, during and after it."""
    seen: list[tuple[str, int | None]] = []
    consumer = Consumer(NOWHERE, "test", "queue", print, may_consume=lambda: True, counted_queue="other")

    def look() -> None:
        seen.append((consumer.state, consumer.counted))

    monkeypatch.setattr(pika, "BlockingConnection", lambda _: ScriptedChannel(script, look))
    consumer._consume_until_failure()
    look()
    return seen


def test_state_is_consuming_only_between_confirm_and_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker cancels a consumer without an error when its queue is deleted."""
    starting, consuming, after = _watch_states(monkeypatch, "cancelled")
    assert (starting, consuming, after) == (("starting", None), ("consuming", 3), ("connecting", None))


def test_refused_consumer_is_never_consuming(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _watch_states(monkeypatch, "refused") == [("starting", None), ("connecting", None)]


def test_consumer_of_a_silent_broker_is_not_consuming(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic
    shift = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now() + shift[0])
    states = []
    consumer = Consumer(NOWHERE, "test", "queue", print, may_consume=lambda: True, counted_queue="other")

    def look() -> None:
        states.append(consumer.state)
        shift[0] += SILENT_SECONDS + 1
        states.append(consumer.state)

    monkeypatch.setattr(pika, "BlockingConnection", lambda _: ScriptedChannel("cancelled", look))
    consumer._consume_until_failure()
    assert states[2:] == ["consuming", "connecting"]


def test_message_is_acknowledged_after_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _consume_one(monkeypatch)[:2] == ["handled", "acknowledged"]


def test_failed_message_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _consume_one(monkeypatch, Unknown("the database is down")) == ["handled", "closed"]
