"""Reads queue depths, and publishes and purges messages, over a test's own connection to RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import pika
from pika.exceptions import AMQPError

from harness import Stack
from tests.support.brokers import Broker
from tests.support.waiting import wait_until

HOLD, RELEASE, DELAY, PARKING = (
    "seat.hold.queue",
    "seat.release.queue",
    "seat.release.delay.queue",
    "seat.release.parking.queue",
)

TAKE_SECONDS = 10.0
BLOCKED_SECONDS = 0.5


@contextmanager
def channel(at: Stack | Broker) -> Iterator[Any]:
    """Open a channel with publisher confirms."""
    with closing(pika.BlockingConnection(pika.URLParameters(at.url("rabbitmq")))) as connection:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened


def accepts_messages(at: Stack | Broker) -> bool:
    """Whether RabbitMQ confirms a message at once. It blocks publishers while it lacks memory or disk space."""
    parameters = pika.URLParameters(at.url("rabbitmq"))
    parameters.blocked_connection_timeout = BLOCKED_SECONDS
    try:
        with closing(pika.BlockingConnection(parameters)) as connection:
            opened = connection.channel()
            opened.confirm_delivery()
            opened.basic_publish("", opened.queue_declare("", exclusive=True).method.queue, b"x", mandatory=True)
            return True
    except (AMQPError, OSError, ValueError):  # pika raises ValueError if a new connection is reset at once
        return False


def depth(at: Stack | Broker, queue: str) -> int:
    """The number of messages that wait in a queue."""
    with channel(at) as opened:
        return int(opened.queue_declare(queue, passive=True).method.message_count)


def message_ids(at: Stack | Broker, queue: str) -> set[str]:
    """The ids of all messages in a queue, which stay there."""
    with channel(at) as opened:
        waiting = iter(lambda: opened.basic_get(queue), (None, None, None))
        return {str(properties.message_id) for _, properties, _ in waiting}  # not acknowledged, so put back


def purge(at: Stack | Broker, *queues: str) -> None:
    """Delete all messages of these queues, or of all."""
    with channel(at) as opened:
        for queue in queues or (HOLD, RELEASE, DELAY, PARKING):
            opened.queue_purge(queue)


def take(at: Stack | Broker, queue: str) -> tuple[Any, bytes]:
    """Consume the next message of a queue and return its properties and body. Waits up to 10 s."""

    def read() -> tuple[Any, bytes] | None:
        method, properties, body = opened.basic_get(queue, auto_ack=True)
        return None if method is None else (properties, body)

    with channel(at) as opened:
        return wait_until(read, TAKE_SECONDS, f"a message in {queue}")


@contextmanager
def message_survives(at: Stack | Broker) -> Iterator[None]:
    """Publish a message before the block, and consume it after the block. Raises AssertionError if it is lost."""
    body = uuid4().bytes
    with channel(at) as opened:
        opened.basic_publish("", PARKING, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    yield
    with channel(at) as opened:
        wait_until(lambda: opened.basic_get(PARKING, auto_ack=True)[2] == body, TAKE_SECONDS)


def send(at: Stack | Broker, body: bytes, message_id: str | None) -> None:
    """Publish any body to the release queue."""
    properties = pika.BasicProperties(message_id=message_id, delivery_mode=2)
    with channel(at) as opened:
        opened.basic_publish("", RELEASE, body, properties, mandatory=True)
