"""Several nodes of RabbitMQ: a connection goes to the next node in turn, so a dead or silent one is left soon."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice

import pytest

from services.chassis import broker as module
from services.chassis.broker import Publisher, connection_parameters
from services.chassis.settings import Address, BrokerSettings
from services.inventory.queue_consumer import Consumer
from tests.support.brokers import Broker
from tests.support.silent_proxy import SilentProxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

BOUND = 5.0  # seconds, on a busy machine
PARKING = "seat.release.parking.queue"
NODES = tuple(Address(host, 5672) for host in "abc")


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first node of the settings is the first one that is tried."""
    monkeypatch.setattr(module, "sample", lambda nodes, _number: list(nodes))


@contextmanager
def dead_node() -> Iterator[Address]:
    """An address that refuses connections."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield Address(*bound.getsockname())


@contextmanager
def silent_node() -> Iterator[Address]:
    """An address that accepts connections and never answers."""
    with SilentProxy(socket.socket) as proxy:
        proxy.silence()
        yield Address("127.0.0.1", proxy.port)


@pytest.mark.parametrize("first_node", [dead_node, silent_node])
def test_publisher_leaves_a_first_node_without_an_answer(
    in_order: None, broker: Broker, first_node: Callable[[], Iterator[Address]]
) -> None:
    with first_node() as first:  # type: ignore[attr-defined]
        publisher = Publisher(replace(broker.settings, addresses=(first, *broker.settings.addresses)), "test")
        publisher.start()
        try:
            wait_until(publisher.is_ready, BOUND)
            publisher.publish("", PARKING, b"{}", message_id="m")
        finally:
            publisher.stop()


@pytest.mark.parametrize("first_node", [dead_node, silent_node])
def test_consumer_leaves_a_first_node_without_an_answer(
    in_order: None, broker: Broker, first_node: Callable[[], Iterator[Address]]
) -> None:
    with first_node() as first:  # type: ignore[attr-defined]
        settings = replace(broker.settings, addresses=(first, *broker.settings.addresses))
        consumer = Consumer(
            settings, "test", "seat.release.queue", print, may_consume=lambda: True, counted_queue=PARKING
        )
        consumer.start()
        try:
            wait_until(lambda: consumer.state == "consuming", BOUND)
        finally:
            consumer.stop()


def test_publisher_leaves_a_node_that_becomes_silent(
    in_order: None, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.5)
    (real,) = broker.settings.addresses
    with SilentProxy(lambda: socket.create_connection(real)) as proxy:
        nodes = (Address("127.0.0.1", proxy.port), real)
        publisher = Publisher(replace(broker.settings, addresses=nodes), "test")
        publisher.start()
        try:
            wait_until(publisher.is_ready, BOUND)
            proxy.silence()
            sent = publisher.send("", PARKING, b"{}", message_id="m")
            assert sent is not None
            wait_until(lambda: sent.done() and publisher.is_ready(), BOUND)
            publisher.publish("", PARKING, b"{}", message_id="m")
        finally:
            publisher.stop()


def test_each_node_has_its_turn_from_a_random_one_on() -> None:
    settings = BrokerSettings(NODES, "u", "p")
    orders = [[each.host for each in islice(connection_parameters(settings, "test"), 6)] for _ in range(50)]
    for order in orders:
        assert sorted(order[:3]) == ["a", "b", "c"]
        assert order[3:] == order[:3]
    assert {order[0] for order in orders} == {"a", "b", "c"}
