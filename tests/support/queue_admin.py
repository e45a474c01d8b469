"""Reads queue depths, and publishes and purges messages, over a test's own connection to RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import pika

from harness import Stack
from tests.support.waiting import wait_until

HOLD, RELEASE, DELAY, PARKING = (
    "seat.hold.queue",
    "seat.release.queue",
    "seat.release.delay.queue",
    "seat.release.parking.queue",
)

TAKE_SECONDS = 10.0


@contextmanager
def channel(stack: Stack) -> Iterator[Any]:
    """Open a channel with publisher confirms."""
    with closing(pika.BlockingConnection(pika.URLParameters(stack.url("rabbitmq")))) as connection:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened


def depth(stack: Stack, queue: str) -> int:
    """The number of messages that wait in a queue."""
    with channel(stack) as opened:
        return int(opened.queue_declare(queue, passive=True).method.message_count)


def purge(stack: Stack, queue: str) -> None:
    """Delete all messages of a queue."""
    with channel(stack) as opened:
        opened.queue_purge(queue)


@contextmanager
def message_survives(stack: Stack) -> Iterator[None]:
    """Publish a message before the block, and consume it after the block. Raises AssertionError if it is lost."""
    body = uuid4().bytes
    with channel(stack) as opened:
        opened.basic_publish("", PARKING, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    yield
    with channel(stack) as opened:
        wait_until(lambda: opened.basic_get(PARKING, auto_ack=True)[2] == body, TAKE_SECONDS)


def send(stack: Stack, body: bytes, message_id: str | None) -> None:
    """Publish any body to the release queue."""
    properties = pika.BasicProperties(message_id=message_id, delivery_mode=2)
    with channel(stack) as opened:
        opened.basic_publish("", RELEASE, body, properties, mandatory=True)
