"""HTTP requests over keep-alive connections to all replicas of a service."""

from __future__ import annotations

import math
import select
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from services.chassis.deadlines import Deadline
from services.chassis.kernel_limits import SOCKET_OPTIONS
from services.chassis.replicas import CHECK_SECONDS, NotConnected, Replica, Replicas

CONNECT_SECONDS = 1.0  # the timeout of a connect, as with gRPC
_CHUNK = 65536  # bytes of one read
LIVENESS = "/health/live"
MIN_SECONDS = 0.001  # a socket has no timeout of zero
READ_SECONDS = 1.0  # the timeout of a GET at a replica, if another one can answer it


class PooledTransport:
    """Balances requests over the replicas behind an address (see `Replicas`).

    A request that was not sent goes to the next replica, and so does a GET without an answer. It never retries another
    request, because only the caller has the idempotency key.
    """

    def __init__(self) -> None:
        self._services: dict[str, Replicas[_Replica]] = {}
        weakref.finalize(self, _close_all, self._services)

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        deadline = time.monotonic() + timeout
        address, slash, path = url.removeprefix("http://").partition("/")
        service = self._services.get(address) or self._services.setdefault(address, Replicas(address, _Replica))
        replicas = service.choose()
        for replica in replicas:
            seconds = max(MIN_SECONDS, deadline - time.monotonic())
            if method == "GET" and replica is not replicas[-1]:
                seconds = min(seconds, READ_SECONDS)
            try:
                answer = replica.send(method, slash + path, body, headers, seconds)
            except OSError as error:
                if len(replicas) > 1:
                    replica.suspend()
                if method != "GET" and not isinstance(error, NotConnected):
                    raise
                failure = error
            else:
                replica.note_answer()
                return answer
        service.look_up_soon()
        raise failure


class _Replica(Replica):
    """One address of the service with its idle connections."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._idle: deque[_Connection] = deque()

    def send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Send a request and return status and body. Raises OSError, and NotConnected if nothing was sent."""
        deadline = time.monotonic() + timeout
        request = _build_request(method, path, {"Host": self.address, **headers}, body)
        connection = self._pop_usable() or _connect(self.address, min(timeout, CONNECT_SECONDS))
        left = max(MIN_SECONDS, deadline - time.monotonic())
        try:
            with Deadline(connection, left) as limit:
                answer = connection.exchange(request, left)
        except BaseException as error:
            connection.close()
            self.close_idle()  # the peer that does not answer is that of the idle connections too
            if limit.is_overdue:  # the end of file may look like the end of the connection
                raise TimeoutError(f"{self.address} did not complete its answer within {timeout:g} s") from error
            if isinstance(error, HttpParserError):
                raise ConnectionError(f"{type(error).__name__} from {self.address}") from error
            raise
        if answer.is_reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.content

    def start_check(self) -> None:
        """Request the liveness of the replica on another thread."""
        threading.Thread(target=self._check, name="health check", daemon=True).start()

    def close_idle(self) -> None:
        """Close every idle connection."""
        with suppress(IndexError):  # another thread took the last one
            while True:
                self._idle.pop().close()

    def _check(self) -> None:
        with suppress(OSError):  # it is still silent
            self.send("GET", LIVENESS, None, {}, CHECK_SECONDS)
            self.end_suspension()

    def _pop_usable(self) -> _Connection | None:
        """An idle connection that the server has not closed."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return None
            if connection.is_usable():
                return connection
            connection.close()
        return None


def _build_request(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """Return head and body in one piece, because a second write costs a fifth of a call's CPU time."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class _Answer:
    """One HTTP response. httptools parses it, because http.client and its `email.parser` took twice the CPU time."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self.feed = self._parser.feed_data
        self.status, self.content = 0, b""
        self.is_complete = self.is_reusable = False

    def on_headers_complete(self) -> None:
        self.status, self.is_reusable = self._parser.get_status_code(), self._parser.should_keep_alive()

    def on_body(self, part: bytes) -> None:
        self.content += part

    def on_message_complete(self) -> None:
        self.is_complete = True


class _Connection:
    def __init__(self, address: str, timeout: float) -> None:
        place = urlsplit(f"//{address}")
        self._socket = socket.create_connection((place.hostname, place.port or 80), timeout)
        self._socket.settimeout(None)  # the kernel has the limits, because Python would poll before each read
        for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *SOCKET_OPTIONS):
            self._socket.setsockopt(*option)
        self._limit = 0  # milliseconds of one read or write
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def exchange(self, request: bytes, timeout: float) -> _Answer:
        """Send a request and return its answer. `timeout` limits one read. Raises OSError or HttpParserError."""
        self._set_limit(math.ceil(timeout * 100) * 10)
        answer = _Answer()
        try:
            self._socket.sendall(request)
            while not answer.is_complete:
                received = self._socket.recv(_CHUNK)
                if not received:
                    raise ConnectionResetError("the connection ended before the answer")
                answer.feed(received)
        except BlockingIOError:
            raise TimeoutError(f"no answer within {timeout:g} s") from None
        return answer

    def _set_limit(self, milliseconds: int) -> None:
        if milliseconds != self._limit:
            limit = struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._limit = milliseconds

    def close(self) -> None:
        self._socket.close()

    def shut_down(self) -> None:
        """Shut down the socket from another thread. Raises OSError."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def is_usable(self) -> bool:
        """False if an idle connection has something to read, which is usually the server's close."""
        return not self._poller.poll(0)


def _connect(address: str, timeout: float) -> _Connection:
    try:
        return _Connection(address, timeout)
    except OSError as error:
        raise NotConnected(f"{address} cannot be reached ({type(error).__name__})") from error


def _close_all(services: Mapping[str, Replicas[_Replica]]) -> None:
    for service in services.values():
        for replica in service.present:
            replica.close_idle()
