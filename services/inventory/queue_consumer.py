"""RabbitMQ's receiving end: a consumer that can put its work down.

Consuming is at least once: a message is acknowledged when its handler has returned, and goes back to its queue
whatever else happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pika
from pika.exceptions import AMQPError

from services.chassis import correlation
from services.chassis.broker import RECONNECT_SECONDS, connection_parameters
from services.chassis.errors import Unknown
from services.chassis.settings import BrokerSettings

logger = logging.getLogger(__name__)

PREFETCH = 32
STOP_SECONDS = 5
_IDLE_SECONDS = 0.5  # how soon a consumer without messages notices that it is to stop
_COUNT_SECONDS = 2.0


@dataclass(frozen=True)
class Message:
    """A message as it came. `message_id` is None when its sender gave none."""

    body: bytes
    message_id: str | None
    headers: Mapping[str, Any]


class Consumer:
    """Hands each message of one queue to `handle`, one after the other, on a thread of its own.

    `handle` returning acknowledges the message. `handle` raising puts everything down: the connection is closed,
    unacknowledged messages return to their queue, and nothing is taken before `may_consume()` says so. It is asked
    before every connection. The depth of `counted_queue` is looked at every few seconds, for health and metrics.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        name: str,
        queue: str,
        handle: Callable[[Message], None],
        *,
        may_consume: Callable[[], bool],
        counted_queue: str,
    ) -> None:
        self._parameters = connection_parameters(settings, name)
        self._queue = queue
        self._handle = handle
        self._may_consume = may_consume
        self._counted_queue = counted_queue
        self._counted_at = float("-inf")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.state = "starting"  # then connecting, consuming, paused, stopped
        self.counted: int | None = None

    def start(self) -> None:
        """Begin to consume; called once, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the message in hand (at most 5 seconds); the others return to their queue."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.state = "connecting" if self._may_consume() else "paused"
            if self.state == "connecting":
                self._consume_or_put_down()
            self._stopped.wait(RECONNECT_SECONDS)
        self.state = "stopped"

    def _consume_or_put_down(self) -> None:
        try:
            self._consume()
        except Unknown as unknown:
            logger.warning("%s puts its messages down: %s", self._thread.name, unknown.message)
        except (AMQPError, OSError) as error:
            logger.warning("%s lost RabbitMQ: %s", self._thread.name, type(error).__name__)
        except Exception:
            logger.exception("%s failed", self._thread.name)

    def _consume(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=PREFETCH)
            self.state = "consuming"
            for method, properties, body in channel.consume(self._queue, inactivity_timeout=_IDLE_SECONDS):
                if self._stopped.is_set():
                    return
                if method is not None:
                    self._handled(properties, body)
                    channel.basic_ack(method.delivery_tag)
                self._count(channel)
        finally:
            if connection.is_open:
                connection.close()

    def _handled(self, properties: Any, body: bytes) -> None:
        with correlation.scope(properties.correlation_id):
            self._handle(Message(body, properties.message_id, properties.headers or {}))

    def _count(self, channel: Any) -> None:
        if time.monotonic() - self._counted_at >= _COUNT_SECONDS:
            self._counted_at = time.monotonic()
            self.counted = channel.queue_declare(self._counted_queue, passive=True).method.message_count
