"""A RabbitMQ publisher that waits for the broker's confirm.

Each message is `mandatory` and uses publisher confirms (D36). When `publish` returns, a queue has the message on disk.
A returned, nacked, unconfirmed or interrupted message raises `Unknown`, because it may be in a queue or not.
The caller then publishes again with the same message id, and the consumer ignores the duplicate.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as ConfirmTimeout
from dataclasses import dataclass, field
from itertools import cycle
from random import sample
from typing import Any

import pika

from services.chassis import correlation
from services.chassis.errors import NoAnswer, Unknown, Unreachable
from services.chassis.kernel_limits import TCP_LIMITS
from services.chassis.neighbours import UNLIMITED, Neighbour
from services.chassis.settings import Address, BrokerSettings

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 0.5
CONFIRM_SECONDS = 2.0
HEARTBEAT_SECONDS = 5  # pika notices a silent broker after this and 5 s more
_CONNECTING_SECONDS = 2
_STOP_SECONDS = 5
_PERSISTENT = 2


def connection_parameters(settings: BrokerSettings, name: str) -> Iterator[pika.ConnectionParameters]:
    """Yield without end the parameters of the next connection, which the broker shows as `name`.

    Each node has its turn, so a node without an answer delays one connection only. The first node is a random one.
    """
    return (
        _build_parameters(settings, name, address)
        for address in cycle(sample(settings.addresses, len(settings.addresses)))
    )


def _build_parameters(settings: BrokerSettings, name: str, address: Address) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        credentials=pika.PlainCredentials(settings.user, settings.password),
        heartbeat=HEARTBEAT_SECONDS,
        socket_timeout=_CONNECTING_SECONDS,
        stack_timeout=_CONNECTING_SECONDS,
        tcp_options=TCP_LIMITS,
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
    """One connection with one I/O thread per process. Thread-safe.

    It reconnects by itself. Without a connection, `publish` raises Unknown immediately. `slots` is the number of
    threads that may wait for confirms at once.
    """

    def __init__(self, settings: BrokerSettings, name: str, slots: int = UNLIMITED) -> None:
        self._parameters = connection_parameters(settings, name)
        self._name = name
        self._stopped = threading.Event()
        self._session: _Session | None = None
        self._thread = threading.Thread(target=self._run, name=f"{name}-publisher", daemon=True)
        self.neighbour = Neighbour("RabbitMQ", slots)

    def start(self) -> None:
        """Start to connect. Call it once, after the fork."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection. Calls of `publish` that still wait raise Unknown."""
        self._stopped.set()
        if self._session is not None:
            self._session.close()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_SECONDS)

    def is_ready(self) -> bool:
        """True while the broker accepts messages on the connection."""
        return self._session is not None and self._session.is_open()

    def send(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        expiration_ms: int | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> Future[None] | None:
        """Send JSON bytes and return the broker's confirm, for which `publish` waits. None without a connection."""
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=_PERSISTENT,
            message_id=message_id,
            correlation_id=correlation.current(),
            expiration=None if expiration_ms is None else str(expiration_ms),
            headers=dict(headers or {}),
        )
        message, session = _Outgoing(exchange, routing_key, body, properties), self._session
        return message.confirmed if session is not None and session.take(message) else None

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        sent: Future[None] | None = None,
        timeout: float = CONFIRM_SECONDS,
        **properties: Any,
    ) -> None:
        """Publish JSON bytes and wait up to `timeout` seconds for the broker's confirm. See `send` for `properties`.

        `sent` is the confirm of the same message, if it was sent before. Raises Unknown without a confirm. The caller
        retries with the same `message_id`.
        """
        started = time.perf_counter()
        with self.neighbour.calling():
            confirmed = sent or self.send(exchange, routing_key, body, **properties)
            if confirmed is None:
                raise Unreachable("RabbitMQ is not connected")
            try:
                confirmed.result(timeout)
            except ConfirmTimeout:
                raise NoAnswer(f"RabbitMQ did not confirm within {timeout:g} s") from None
        logger.info("← RabbitMQ confirmed %s in %.1f ms", routing_key, (time.perf_counter() - started) * 1000)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._run_session()
            except Exception:
                logger.exception("%s publisher failed", self._name)
            self._stopped.wait(RECONNECT_SECONDS)

    def _run_session(self) -> None:
        session = self._session = _Session(next(self._parameters))
        if self._stopped.is_set():  # `stop` may have run before this session existed
            session.close()
        session.run()


class _Session:
    """One connection. All methods except `take`, `close` and `is_open` run on the I/O thread."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._outbox: deque[_Outgoing] = deque()
        self._unconfirmed: dict[int, _Outgoing] = {}
        self._last_tag = 0
        self._channel: Any = None
        self._is_confirming = False  # the broker has accepted that it confirms the messages of the channel
        self._silent_since = 0.0  # the last confirm, or the first message that waits for one
        self._is_watched = False
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
            on_open_error_callback=lambda _connection, error: self._end(error),
            on_close_callback=lambda _connection, error: self._end(error),
        )
        self._connection.add_on_connection_blocked_callback(lambda *_: self._set_open(False))
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._set_open(self._is_confirming))

    def run(self) -> None:
        """Run the I/O loop until the connection ends."""
        try:
            self._connection.ioloop.start()
        except ValueError as error:
            if self._channel is not None:
                raise
            self._end(error)  # pika raises it if the broker resets a connection that has just been made
        finally:
            self._fail_all()
            self._connection.ioloop.close()

    def is_open(self) -> bool:
        return self._open

    def take(self, message: _Outgoing) -> bool:
        """Add a message to the outbox. Return False if the connection accepts none."""
        with self._lock:
            if not self._open:
                return False
            self._outbox.append(message)
            if len(self._outbox) == 1:  # otherwise a `_send_all` is already scheduled
                self._connection.ioloop.add_callback_threadsafe(self._send_all)
        return True

    def close(self) -> None:
        """Make the I/O thread close the connection. Has no effect on a closed connection."""
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
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=self._on_confirming)

    def _on_confirming(self, _frame: Any) -> None:
        self._is_confirming = True
        self._set_open(True)

    def _on_channel_close(self, _channel: Any, _reason: Any) -> None:
        self._is_confirming = False
        self._set_open(False)
        self._close()

    def _send_all(self) -> None:
        with self._lock:
            messages, self._outbox = self._outbox, deque()
        if not self._unconfirmed:
            self._silent_since = time.monotonic()
        for message in messages:
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = message
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties, mandatory=True
            )

        self._watch_silence()

    def _watch_silence(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._connection.ioloop.call_later(CONFIRM_SECONDS, self._end_if_silent)

    def _end_if_silent(self) -> None:
        """End the connection if the broker is silent, because the next connection may reach another broker.

        A broker that lacks memory or disk space is not silent: it blocks the connection, which is then not open.
        """
        self._is_watched = False
        if not self._unconfirmed or not self._open:
            return
        if time.monotonic() - self._silent_since < CONFIRM_SECONDS:
            self._watch_silence()
            return
        self._set_open(False)
        # A silent broker never answers pika's `close`, so this does what pika does without a heartbeat.
        self._connection._terminate_stream(TimeoutError("no confirm"))

    def _on_confirm(self, frame: Any) -> None:
        self._silent_since = time.monotonic()
        tag, is_ack = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        tags = [t for t in self._unconfirmed if t <= tag] if frame.method.multiple else [tag]
        for message in (self._unconfirmed.pop(t) for t in tags if t in self._unconfirmed):
            _resolve(message, None if is_ack else Unknown("RabbitMQ refused the message"))

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        """Fail an unroutable message. The broker returns it first and then confirms it."""
        for message in self._unconfirmed.values():
            if message.properties.message_id == properties.message_id:
                _resolve(message, Unknown(f"RabbitMQ has no queue for the message ({method.reply_text})"))

    def _end(self, error: BaseException) -> None:
        logger.warning("RabbitMQ connection ended: %s", type(error).__name__)
        self._connection.ioloop.stop()

    def _fail_all(self) -> None:
        with self._lock:
            self._open = False
            unsent = list(self._outbox)
        for message in unsent:
            _resolve(message, Unreachable("RabbitMQ's connection ended"))
        for message in self._unconfirmed.values():
            _resolve(message, NoAnswer("RabbitMQ's connection ended"))


def _resolve(message: _Outgoing, failure: Unknown | None) -> None:
    if message.confirmed.done():
        return
    if failure is None:
        message.confirmed.set_result(None)
    else:
        message.confirmed.set_exception(failure)
