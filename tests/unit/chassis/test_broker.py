"""Publisher with a real RabbitMQ. tests/unit/inventory/test_consumer.py has an outage of the broker."""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pika
import pytest

from harness.runtime.rabbitmq import SOURCES
from services.chassis import broker as module
from services.chassis.broker import Publisher
from services.chassis.errors import Unknown
from services.chassis.settings import Address, BrokerSettings
from services.inventory.queue_consumer import Consumer
from tests.support import queue_admin
from tests.support.brokers import Broker
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

PARKING = "seat.release.parking.queue"


@pytest.fixture
def publisher(broker: Broker) -> Iterator[Publisher]:
    queue_admin.purge(broker)
    publisher = Publisher(broker.settings, "test")
    publisher.start()
    wait_until(publisher.is_ready)
    yield publisher
    publisher.stop()


@pytest.mark.claim("reserve/publishes-hold-message", "queue/hold-exchange")
def test_confirmed_message_is_in_its_queue_with_its_properties(publisher, broker):
    publisher.publish("", PARKING, b'{"a": 1}', message_id="m-1", headers={"attempts": 2})
    properties, body = queue_admin.take(broker, PARKING)
    assert body == b'{"a": 1}'
    assert (properties.message_id, properties.delivery_mode, properties.headers["attempts"]) == ("m-1", 2, 2)


@pytest.mark.claim("log/response-time")
def test_confirmed_message_is_logged_with_its_response_time(publisher, caplog):
    caplog.set_level(logging.INFO)
    publisher.publish("", PARKING, b"{}", message_id="m-2")
    assert [line for line in caplog.messages if line.startswith(f"← RabbitMQ confirmed {PARKING} in ")]


def test_every_queue_has_a_policy_with_a_delivery_limit():
    topology = json.loads((SOURCES / "definitions.json").read_text())
    for queue in topology["queues"]:
        (limit,) = [
            policy["definition"]["delivery-limit"]
            for policy in topology["policies"]
            if re.search(policy["pattern"], queue["name"])
        ]
        assert limit > 1_000_000


@pytest.mark.parametrize("queue", ["seat.release.queue", PARKING])
def test_a_message_survives_any_number_of_redeliveries(publisher, broker, queue):
    """From 4.0 on, RabbitMQ drops a message of a quorum queue after 20 redeliveries, unless a policy sets a limit.

    A consumer returns its message whenever its database is down, so a long outage would lose the notice.
    """
    publisher.publish("", queue, b"{}", message_id="m-3")
    for _ in range(25):
        with queue_admin.channel(broker) as channel:
            wait_until(lambda: channel.basic_get(queue)[0] is not None)
    properties, _ = queue_admin.take(broker, queue)
    assert properties.message_id == "m-3"


@pytest.mark.claim("hold/message-is-dead-lettered", "queue/hold-queue", "queue/release-exchange", "queue/message-path")
@pytest.mark.parametrize("way", [("seat.hold.exchange", "seat.hold"), ("", "seat.release.delay.queue")])
def test_expired_message_arrives_in_the_release_queue(publisher, broker, way):
    name = str(uuid4())
    publisher.publish(*way, b"{}", message_id=name, expiration_ms=50)
    properties, _ = queue_admin.take(broker, "seat.release.queue")
    assert properties.message_id == name


def test_unroutable_message_is_unknown_to_its_caller_only(publisher):
    publisher.publish("", PARKING, b"{}", message_id="fine")
    with pytest.raises(Unknown, match="NO_ROUTE"):
        publisher.publish("seat.hold.exchange", "nowhere", b"{}", message_id="lost")
    publisher.publish("", PARKING, b"{}", message_id="fine too")


def test_publisher_recovers_after_a_missing_exchange(publisher):
    with pytest.raises(Unknown):
        publisher.publish("no.such.exchange", "x", b"{}", message_id="lost")
    wait_until(publisher.is_ready)
    publisher.publish("", PARKING, b"{}", message_id="fine")


def test_unroutable_messages_fail_no_concurrent_message(publisher, broker):
    failures: list[str] = []
    threads = [threading.Thread(target=_publish_some, args=(publisher, 30, failures)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        with pytest.raises(Unknown):
            publisher.publish("seat.hold.exchange", "nowhere", b"{}", message_id=str(uuid4()))
    for thread in threads:
        thread.join()
    assert failures == []
    wait_until(lambda: queue_admin.depth(broker, PARKING) == 6 * 30)


def _publish_some(publisher: Publisher, number: int, failures: list[str]) -> None:
    for _ in range(number):
        try:
            publisher.publish("", PARKING, b"{}", message_id=str(uuid4()))
        except Unknown as unknown:
            failures.append(unknown.message)


def test_stopped_publisher_accepts_no_message(broker):
    publisher = Publisher(broker.settings, "test")
    publisher.start()
    wait_until(publisher.is_ready)
    publisher.stop()
    assert not publisher.is_ready()
    with pytest.raises(Unknown):
        publisher.publish("", PARKING, b"{}", message_id="m")


def test_publisher_that_never_connected_stops_promptly(broker):
    with closing(_unused_port()) as port:
        nowhere = BrokerSettings((Address(*port.getsockname()),), "nobody", "x")
        publisher = Publisher(nowhere, "test")
        publisher.start()
        started = time.monotonic()
        publisher.stop()
        assert time.monotonic() - started < 2


def _unused_port() -> socket.socket:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))  # it does not listen, so connections are refused
    return bound


def test_connection_that_is_reset_while_it_is_made_is_no_bug(publisher, broker, caplog):
    """pika raises ValueError for a new socket without a peer. The consumer's connection is reset, too."""
    consumer = Consumer(
        broker.settings, "test", PARKING, lambda _message: None, may_consume=lambda: True, counted_queue=PARKING
    )
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(socket.socket, "getpeername", refuse_peer)
            publisher._session.close()
            wait_until(lambda: "RabbitMQ connection ended: ValueError" in caplog.text)
            consumer.start()
            wait_until(lambda: "test lost RabbitMQ: ConnectionResetError" in caplog.text)
        wait_until(publisher.is_ready)
        wait_until(lambda: consumer.state == "consuming")
    finally:
        consumer.stop()
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("services"))


def refuse_peer(_socket: socket.socket) -> None:
    """Raise what a socket raises whose peer has reset the connection."""
    raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")


class SilentSession:
    """A session whose broker accepts every message and confirms none."""

    started = threading.Event()

    def __init__(self, _parameters: object) -> None:
        self._closed = threading.Event()

    def run(self) -> None:
        self.started.set()
        self._closed.wait(5)

    def close(self) -> None:
        self._closed.set()

    def take(self, _message: object) -> bool:
        return True


def test_message_without_a_confirm_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_Session", SilentSession)
    publisher = Publisher(BrokerSettings((Address("broker.test", 1),), "nobody", "nothing"), "test")
    publisher.start()
    assert SilentSession.started.wait(5)
    with pytest.raises(Unknown, match="did not confirm"):
        publisher.publish("", "queue", b"{}", message_id="m", timeout=0.05)
    publisher.stop()


class StubConnection:
    """A connection and its channel that only record the callbacks, so that a test plays the broker."""

    is_closing = is_closed = True

    def __init__(self, *_: Any, **callbacks: Any) -> None:
        self.callbacks = callbacks
        self.ioloop = self

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given, **more: self.callbacks.update({name: more.get("callback", given[0] if given else None)})


def test_session_is_open_only_while_its_channel_confirms(monkeypatch):
    """A connection that is unblocked before it has a channel accepts no message."""
    connection = StubConnection()
    monkeypatch.setattr(pika, "SelectConnection", lambda *_, **more: connection.callbacks.update(more) or connection)
    session = module._Session(
        next(module.connection_parameters(BrokerSettings((Address("broker.test", 1),), "a", "b"), "test"))
    )
    connection.callbacks["add_on_connection_unblocked_callback"](None)
    assert not session.is_open()
    session._on_channel(connection)
    assert not session.is_open()
    connection.callbacks["confirm_delivery"](None)
    assert session.is_open()
    connection.callbacks["add_on_connection_blocked_callback"](None)
    assert not session.is_open()
    connection.callbacks["add_on_connection_unblocked_callback"](None)
    assert session.is_open()
    connection.callbacks["add_on_close_callback"](None, None)
    assert not session.is_open()


def test_sent_message_is_published_once(publisher, broker):
    """`publish` waits for the confirm of a message that was sent before."""
    sent = publisher.send("", PARKING, b"{}", message_id="early")
    publisher.publish("", PARKING, b"{}", message_id="early", sent=sent)
    assert sent.done()
    assert queue_admin.take(broker, PARKING)[0].message_id == "early"
    with queue_admin.channel(broker) as channel:
        assert channel.basic_get(PARKING)[0] is None


def test_message_that_was_sent_in_vain_is_unknown(publisher):
    sent = publisher.send("", "no.such.queue", b"{}", message_id="lost")
    with pytest.raises(Unknown, match="no queue"):
        publisher.publish("", PARKING, b"{}", message_id="lost", sent=sent)


def test_send_without_a_connection_sends_nothing(broker):
    assert Publisher(broker.settings, "test").send("", PARKING, b"{}", message_id="never") is None
