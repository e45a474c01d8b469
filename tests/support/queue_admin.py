"""A test's own connection to the broker: how many messages wait where, and messages of its own making."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from uuid import uuid4

import pika

from harness import Stack
from harness.runtime.process import wait_for

HOLD, RELEASE, DELAY, PARKING = (
    "seat.hold.queue",
    "seat.release.queue",
    "seat.release.delay.queue",
    "seat.release.parking.queue",
)

TAKE_SECONDS = 10.0


@contextmanager
def channel(stack: Stack) -> Iterator[Any]:
    """A channel with publisher confirms."""
    with closing(pika.BlockingConnection(pika.URLParameters(stack.url("rabbitmq")))) as connection:
        opened = connection.channel()
        opened.confirm_delivery()
        yield opened


def depth(stack: Stack, queue: str) -> int:
    """How many messages wait in a queue."""
    with channel(stack) as opened:
        return int(opened.queue_declare(queue, passive=True).method.message_count)


def purge(stack: Stack, queue: str) -> None:
    """Empty a queue."""
    with channel(stack) as opened:
        opened.queue_purge(queue)


def release(stack: Stack, seat: str, order_id: str, message_id: str | None = None) -> None:
    """Put a wake-up message straight into the release queue, as if its time had come."""
    body = {"seat_id": seat, "user_id": str(uuid4()), "order_id": order_id, "reserved_at": "2026-01-01T00:00:00Z"}
    send(stack, json.dumps(body).encode(), message_id or str(uuid4()))


@contextmanager
def kept(stack: Stack) -> Iterator[None]:
    """A message that waits when the block begins is still there when it ends, and is taken then."""
    body = uuid4().bytes
    with channel(stack) as opened:
        opened.basic_publish("", PARKING, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    yield
    with channel(stack) as opened:
        assert wait_for(lambda: opened.basic_get(PARKING, auto_ack=True)[2] == body, TAKE_SECONDS)


def send(stack: Stack, body: bytes, message_id: str | None) -> None:
    """Put anything into the release queue."""
    properties = pika.BasicProperties(message_id=message_id, delivery_mode=2)
    with channel(stack) as opened:
        opened.basic_publish("", RELEASE, body, properties, mandatory=True)
