"""RabbitMQ: a publisher whose callers wait for the broker's word; `consumer.py` has the other end.

Publishing is `mandatory` under publisher confirms (D36 of the decisions): when `publish` returns, the message is in a
queue on disk. Whatever else happened, returned, nacked, unconfirmed or cut off, is `Unknown`: it may be there or not,
so the caller publishes again under the same message id and the consumer tells the two apart.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from typing import Any

import pika

from services.chassis import correlation
from services.chassis.errors import Unknown
from services.chassis.settings import BrokerSettings

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.5
CONFIRM_SECONDS = 2.0
HEARTBEAT_SECONDS = 10
_CONNECTING_SECONDS = 5
_STOP_SECONDS = 5
_PERSISTENT = 2


def connection_parameters(settings: BrokerSettings, name: str) -> pika.ConnectionParameters:
    """How a connection called `name` is made."""
    return pika.ConnectionParameters(
        host=settings.host,
        port=settings.port,
        credentials=pika.PlainCredentials(settings.user, settings.password),
        heartbeat=HEARTBEAT_SECONDS,
        socket_timeout=_CONNECTING_SECONDS,
        stack_timeout=_CONNECTING_SECONDS,
        client_properties={"connection_name": name},
    )


@dataclass(slots=True)
class _Outgoing:
    exchange: str
    routing_key: str
    body: bytes
    properties: pika.BasicProperties
    confirmed: Future[None] = field(default_factory=Future)


class Publisher:
    """One connection and one I/O thread per process; any number of threads publish through it at once.

    Reconnects by itself. While there is no connection `publish` raises Unknown at once instead of waiting.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        self._parameters = connection_parameters(settings, name)
        self._name = name
        self._stopped = threading.Event()
        self._session: _Session | None = None
        self._thread = threading.Thread(target=self._run, name=f"{name}-publisher", daemon=True)

    def start(self) -> None:
        """Begin to connect; called once, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection. Publishing calls that still wait get Unknown."""
        self._stopped.set()
        if self._session is not None:
            self._session.close()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_SECONDS)

    def is_ready(self) -> bool:
        """True while there is a connection that the broker takes messages from."""
        return self._session is not None and self._session.is_open()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        expiration_ms: int | None = None,
        headers: Mapping[str, Any] | None = None,
        timeout: float = CONFIRM_SECONDS,
    ) -> None:
        """Publish JSON bytes and wait, at most `timeout` seconds, until the broker has them safe in a queue.

        Raises Unknown otherwise: publish again under the same `message_id`. Nothing is retried in here.
        """
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            message_id=message_id,
            correlation_id=correlation.current(),
            expiration=None if expiration_ms is None else str(expiration_ms),
            headers=dict(headers or {}),
        )
        message, started = _Outgoing(exchange, routing_key, body, properties), time.perf_counter()
        if self._session is None or not self._session.take(message):
            raise Unknown("RabbitMQ is not connected")
        try:
            message.confirmed.result(timeout)
        except NotInTime:
            raise Unknown(f"RabbitMQ did not confirm within {timeout:g} s") from None
        logger.info("← RabbitMQ confirmed %s in %.1f ms", routing_key, (time.perf_counter() - started) * 1000)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._connect_and_work()
            except Exception:
                logger.exception("%s publisher failed", self._name)
            self._stopped.wait(RECONNECT_SECONDS)

    def _connect_and_work(self) -> None:
        session = self._session = _Session(self._parameters)
        if self._stopped.is_set():  # `stop` may have looked before this session was there to be closed
            session.close()
        session.run()


class _Session:
    """One connection, from its opening to its end. All but `take` and `close` runs on the I/O thread."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._outbox: deque[_Outgoing] = deque()
        self._unconfirmed: dict[int, _Outgoing] = {}
        self._last_tag = 0
        self._channel: Any = None
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
            on_open_error_callback=lambda _connection, error: self._end(error),
            on_close_callback=lambda _connection, error: self._end(error),
        )
        self._connection.add_on_connection_blocked_callback(lambda *_: self._set_open(False))
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._set_open(True))

    def run(self) -> None:
        """Work until the connection ends."""
        try:
            self._connection.ioloop.start()
        finally:
            self._fail_all("RabbitMQ's connection ended")
            self._connection.ioloop.close()

    def is_open(self) -> bool:
        return self._open

    def take(self, message: _Outgoing) -> bool:
        """Queue a message for sending; False when this connection takes none."""
        with self._lock:
            if not self._open:
                return False
            self._outbox.append(message)
            if len(self._outbox) == 1:  # else the thread is already on its way to empty the outbox
                self._connection.ioloop.add_callback_threadsafe(self._send_all)
        return True

    def close(self) -> None:
        """Ask the I/O thread to close the connection; harmless when it is closed already."""
        with self._lock:
            self._open = False
        self._connection.ioloop.add_callback_threadsafe(self._close)

    def _close(self) -> None:
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    def _set_open(self, value: bool) -> None:
        with self._lock:
            self._open = value

    def _on_channel(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _channel, _reason: self._close())
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._set_open(True))

    def _send_all(self) -> None:
        with self._lock:
            messages, self._outbox = self._outbox, deque()
        for message in messages:
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = message
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties, mandatory=True
            )

    def _on_confirm(self, frame: Any) -> None:
        tag, taken = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        tags = [t for t in self._unconfirmed if t <= tag] if frame.method.multiple else [tag]
        for message in (self._unconfirmed.pop(t) for t in tags if t in self._unconfirmed):
            _resolve(message, None if taken else "RabbitMQ refused the message")

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        """The broker returns a message that no queue takes before it confirms it."""
        for message in self._unconfirmed.values():
            if message.properties.message_id == properties.message_id:
                _resolve(message, f"RabbitMQ has no queue for the message ({method.reply_text})")

    def _end(self, error: BaseException) -> None:
        logger.warning("RabbitMQ connection ended: %s", type(error).__name__)
        self._connection.ioloop.stop()

    def _fail_all(self, reason: str) -> None:
        with self._lock:
            self._open = False
            waiting = [*self._outbox, *self._unconfirmed.values()]
        for message in waiting:
            _resolve(message, reason)


def _resolve(message: _Outgoing, failure: str | None) -> None:
    if message.confirmed.done():
        return
    if failure is None:
        message.confirmed.set_result(None)
    else:
        message.confirmed.set_exception(Unknown(failure))
