"""A RabbitMQ consumer that pauses while its handler cannot work.

Delivery is at least once. A message is acknowledged after its handler returns, and otherwise returns to its queue.
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
_IDLE_SECONDS = 0.5  # the interval at which an idle consumer checks whether to stop
_CHECK_SECONDS = 2.0
SILENT_SECONDS = 3 * _CHECK_SECONDS  # without an answer of the broker, the state is no longer `consuming`


@dataclass(frozen=True)
class Message:
    """A received message. `message_id` is None if the sender set none."""

    body: bytes
    message_id: str | None
    headers: Mapping[str, Any]


class Consumer:
    """Passes the messages of one queue to `handle`, one at a time, on its own thread.

    A message is acknowledged when `handle` returns. If `handle` raises, the connection closes and all unacknowledged
    messages return to their queue. The consumer reconnects when `may_consume()` is true. Every two seconds it reads
    the depth of `counted_queue` for health and metrics, and pauses if `may_consume()` is false.
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
        self._checked_at = float("-inf")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._state = "starting"  # then connecting, consuming, paused, stopped
        self._proven_at = float("-inf")  # when the broker last answered this consumer
        self.counted: int | None = None  # None while the consumer does not consume

    @property
    def state(self) -> str:
        """`consuming` only after the broker confirmed the consumer, and only while the broker answers."""
        is_silent = time.monotonic() - self._proven_at > SILENT_SECONDS
        return "connecting" if self._state == "consuming" and is_silent else self._state

    def start(self) -> None:
        """Start to consume. Call it once, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Wait up to 5 seconds for the current message. The others return to their queue."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._state = "connecting" if self._may_consume() else "paused"
            if self._state == "connecting":
                self._consume_until_failure()
            self._stopped.wait(RECONNECT_SECONDS)
        self._state = "stopped"

    def _consume_until_failure(self) -> None:
        try:
            self._consume()
        except Unknown as unknown:
            logger.warning("%s returns its messages to the queue: %s", self._thread.name, unknown.message)
        except (AMQPError, OSError) as error:
            logger.warning("%s lost RabbitMQ: %s", self._thread.name, type(error).__name__)
        except Exception:
            logger.exception("%s failed", self._thread.name)

    def _consume(self) -> None:
        connection = _connect(next(self._parameters))
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=PREFETCH)
            # The first turn comes after the broker's confirm. A cancelled consumer ends the loop.
            for method, properties, body in channel.consume(self._queue, inactivity_timeout=_IDLE_SECONDS):
                self._state = "consuming"
                if self._stopped.is_set():
                    return
                if method is not None:
                    self._handle_message(properties, body)
                    channel.basic_ack(method.delivery_tag)
                if self._is_check_due() and not self._check(channel):
                    return
        finally:
            self._state, self.counted = "connecting", None
            if connection.is_open:
                connection.close()

    def _handle_message(self, properties: Any, body: bytes) -> None:
        with correlation.scope(properties.correlation_id):
            self._handle(Message(body, properties.message_id, properties.headers or {}))

    def _is_check_due(self) -> bool:
        return self.counted is None or time.monotonic() - self._checked_at >= _CHECK_SECONDS

    def _check(self, channel: Any) -> bool:
        """Read the depth of the counted queue. False if the consumer has to pause, although no message has failed."""
        self._checked_at = time.monotonic()
        self.counted = channel.queue_declare(self._counted_queue, passive=True).method.message_count
        self._proven_at = time.monotonic()
        return self._may_consume()


def _connect(parameters: pika.ConnectionParameters) -> pika.BlockingConnection:
    try:
        return pika.BlockingConnection(parameters)
    except ValueError as error:  # pika raises it if the broker resets a connection that has just been made
        raise ConnectionResetError from error
