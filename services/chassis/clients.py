"""HTTP and gRPC clients for calls between services. Each call has one of three outcomes.

done      returns the data
refused   raises Refused with the code of the called service: the effect did not happen
unknown   raises Unknown: no connection, a timeout, a 5xx or an unreadable answer. The effect may have happened
"""

from __future__ import annotations

import logging
import select
import socket
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import grpc
import msgspec
from grpc_status import rpc_status
from httptools import HttpParserError, HttpResponseParser

from services.chassis import correlation, json_codec
from services.chassis.deadlines import Deadline
from services.chassis.errors import ConfigurationError, NoAnswer, Refused, Unknown, Unreachable
from services.chassis.neighbours import UNLIMITED, Neighbour
from services.chassis.replicas import ReplicatedChannel, is_silent, is_unsent
from services.chassis.tokens import Credential
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2

logger = logging.getLogger(__name__)

# These codes describe the call, for example a rotated secret or a route of another version. They do not prove that the
# effect did not happen, so they count as Unknown.
CALL_ERRORS = {
    ErrorCode.UNAUTHORIZED,
    ErrorCode.TOKEN_EXPIRED,
    ErrorCode.FORBIDDEN,
    ErrorCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.PAYLOAD_TOO_LARGE,
}
CALL_SECONDS = 2.0  # the timeout of one call
READ_SECONDS = 1.0  # the timeout of one gRPC call that only reads, because another replica can answer it
# A service that cannot reach its database answers at once with a 5xx. A lock timeout takes longer.
IMMEDIATE_SECONDS = 0.1
_CHUNK = 65536  # bytes of one read


class NotConnected(ConnectionError):
    """No connection was made, so nothing was sent."""


class Transport(Protocol):
    """Sends one HTTP request and returns status and body. Tests inject faults here."""

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Send the request. Raises OSError without an answer, and NotConnected if nothing was sent."""


class PooledTransport:
    """Sends requests over keep-alive connections. It never retries, because only the caller has the idempotency key."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, deque[_Connection]] = defaultdict(deque)
        weakref.finalize(self, _close_all, self._idle)

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        host, slash, path = url.removeprefix("http://").partition("/")
        request = _build_request(method, slash + path, {"Host": host, **headers}, body)
        idle = self._idle[host]
        connection = _pop_usable(idle) or _connect(host, timeout)
        try:
            with Deadline(connection, timeout) as deadline:
                answer = connection.exchange(request)
        except BaseException as error:
            connection.close()
            _close_idle(idle)  # the peer that does not answer is that of the idle connections too
            if deadline.is_overdue:  # the end of file may look like the end of the connection
                raise TimeoutError(f"{host} did not complete its answer within {timeout:g} s") from error
            if isinstance(error, HttpParserError):
                raise ConnectionError(f"{type(error).__name__} from {host}") from error
            raise
        if answer.is_reusable:
            idle.append(connection)
        else:
            connection.close()
        return answer.status, answer.content


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
    def __init__(self, host: str, timeout: float) -> None:
        address = urlsplit(f"//{host}")
        self._socket = socket.create_connection((address.hostname, address.port or 80), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)

    def exchange(self, request: bytes) -> _Answer:
        """Send a request and return its answer. Raises OSError or HttpParserError."""
        self._socket.sendall(request)
        answer = _Answer()
        while not answer.is_complete:
            received = self._socket.recv(_CHUNK)
            if not received:
                raise ConnectionResetError("the connection ended before the answer")
            answer.feed(received)
        return answer

    def close(self) -> None:
        self._socket.close()

    def shut_down(self) -> None:
        """Shut down the socket from another thread. Raises OSError."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def is_usable(self) -> bool:
        """False if an idle connection has something to read, which is usually the server's close."""
        return not self._poller.poll(0)


def _pop_usable(idle: deque[_Connection]) -> _Connection | None:
    """An idle connection that the server has not closed."""
    while idle:
        try:
            connection = idle.pop()
        except IndexError:  # another thread took the last one
            return None
        if connection.is_usable():
            return connection
        connection.close()
    return None


def _connect(host: str, timeout: float) -> _Connection:
    try:
        return _Connection(host, timeout)
    except OSError as error:
        raise NotConnected(f"{host} cannot be reached ({type(error).__name__})") from error


def _close_all(idle: Mapping[str, deque[_Connection]]) -> None:
    for connections in idle.values():
        _close_idle(connections)


def _close_idle(idle: deque[_Connection]) -> None:
    with suppress(IndexError):  # another thread took the last one
        while True:
            idle.pop().close()


class HttpPeer:
    """A client for another service over HTTP. Thread-safe. Create it after the fork.

    `slots` is the number of threads that may wait for the service at once.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        credential: Credential,
        transport: Transport | None = None,
        slots: int = UNLIMITED,
    ) -> None:
        if not base_url.startswith("http://"):
            raise ConfigurationError(f"{base_url!r} is not an address of {name}: use http://host:port")
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._credential = credential
        self._transport = transport or PooledTransport()
        self.neighbour = Neighbour(name, slots)

    def get(self, path: str) -> Any:
        """The `data` of a GET. Raises Refused or Unknown."""
        return self.call("GET", path)

    def post(self, path: str, **fields: Any) -> Any:
        """The `data` of a POST of `fields`. Raises Refused or Unknown."""
        return self.call("POST", path, fields)

    def patch(self, path: str, **fields: Any) -> Any:
        """The `data` of a PATCH of `fields`. Raises Refused or Unknown."""
        return self.call("PATCH", path, fields)

    def call(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        """The `data` of one call. It has a timeout of CALL_SECONDS and no retry. Raises Refused or Unknown."""
        return self._call(method, path, fields)["data"]

    def get_page(self, path: str) -> dict[str, Any]:
        """The success envelope of a GET: `data` and `pagination`. Raises Refused or Unknown."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        started = time.perf_counter()
        with self.neighbour.calling():
            status, raw = self._send(method, path, None if fields is None else json_codec.encode(fields))
            log_call(self._name, f"{method} {path.partition('?')[0]}", status, started)
            return self._parse_envelope(status, raw, started)

    def fetch(self, path: str, etag: str | None = None) -> bytes | None:
        """The undecoded envelope of a GET, for large answers. None if the answer still has `etag` (304).

        Raises Refused or Unknown.
        """
        started = time.perf_counter()
        conditions = {"If-None-Match": f'"{etag}"'} if etag else {}
        with self.neighbour.calling():
            status, raw = self._send("GET", path, None, conditions)
            if status == 304 and etag:
                return None
            if status != 200:
                self._parse_envelope(status, raw, started)
            return raw

    def _send(
        self, method: str, path: str, content: bytes | None, conditions: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        headers = {"Authorization": self._credential.header(), "Accept": "application/json", **(conditions or {})}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if current := correlation.current():
            headers[correlation.HEADER] = current
        try:
            return self._transport(method, self._base_url + path, content, headers, CALL_SECONDS)
        except OSError as error:
            logger.warning("← %s %s %s: %s", self._name, method, path.partition("?")[0], type(error).__name__)
            kind = Unreachable if isinstance(error, NotConnected | ConnectionRefusedError) else NoAnswer
            raise kind(f"{self._name} did not answer ({type(error).__name__})") from error

    def _parse_envelope(self, status: int, raw: bytes, started: float) -> dict[str, Any]:
        envelope = self._decode(status, raw)
        if status < 300 and "data" in envelope:
            return envelope
        if 400 <= status < 500 and _is_verdict(envelope.get("error_code")):
            details = envelope.get("details") or {}
            raise Refused(envelope["error_code"], envelope.get("message"), **details)
        kind = NoAnswer if status >= 500 and _is_immediate(started) else Unknown
        raise kind(f"{self._name} answered {status}")

    def _decode(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            envelope = json_codec.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unknown(f"{self._name} answered {status} with a body that is not JSON") from None
        if not isinstance(envelope, dict):
            raise Unknown(f"{self._name} answered {status} with JSON that is not an envelope")
        return envelope


class GrpcPeer:
    """A client for another service over gRPC. Thread-safe. Create it after the fork.

    `slots` is the number of threads that may wait for the service at once.
    """

    def __init__(self, name: str, credential: Credential, slots: int = UNLIMITED) -> None:
        self._name = name
        self._credential = credential
        self.neighbour = Neighbour(name, slots)

    def call(self, method: Callable[..., Any], request: Any, seconds: float = CALL_SECONDS) -> Any:
        """The reply of one call. It has a timeout of `seconds` and no retry. Raises Refused or Unknown."""
        verb = type(request).__name__.removesuffix("Request")
        started = time.perf_counter()
        with self.neighbour.calling():
            try:
                reply = method(request, timeout=seconds, metadata=self._metadata())
            except grpc.RpcError as error:
                raise self._translate(verb, error, started) from error
            except OSError as error:  # the name of the service is unknown
                raise Unreachable(f"{self._name} cannot be reached ({type(error).__name__})") from error
        log_call(self._name, f"gRPC {verb}", "OK", started)
        return reply

    def _metadata(self) -> list[tuple[str, str]]:
        metadata = [("authorization", self._credential.header())]
        if current := correlation.current():
            metadata.append((correlation.METADATA, current))
        return metadata

    def _translate(self, verb: str, error: Any, started: float) -> Exception:
        refusal = _find_refusal(error)
        if refusal is None or not _is_verdict(refusal.code):
            logger.warning("← %s gRPC %s: %s", self._name, verb, error.code())
            return _classify(error, started)(f"{self._name} did not answer {verb} ({error.code().name})")
        log_call(self._name, f"gRPC {verb}", refusal.code, started)
        return Refused(refusal.code, refusal.message, **(json_codec.decode(refusal.details_json or "{}")))


def log_call(name: str, what: str, outcome: object, started: float) -> None:
    """Log a call in one line, because two lines a call took a sixth of the orchestrator's CPU time.

    `started` is the reading of `time.perf_counter()` before the call.
    """
    logger.info("→ %s %s ← %s %s in %.1f ms", name, what, name, outcome, (time.perf_counter() - started) * 1000)


def _is_immediate(started: float) -> bool:
    return time.perf_counter() - started < IMMEDIATE_SECONDS


def _classify(error: Any, started: float) -> type[Unknown]:
    if is_unsent(error):
        return Unreachable
    return NoAnswer if is_silent(error) or _is_immediate(started) else Unknown


def _is_verdict(code: object) -> bool:
    return code in ErrorCode.__members__ and code not in CALL_ERRORS


def _find_refusal(error: Any) -> Any | None:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        refusal = inventory_pb2.Refusal()
        if detail.Unpack(refusal):
            return refusal
    return None


def open_channel(address: str) -> ReplicatedChannel:
    """Open a channel that balances calls over every replica behind `address`. See `ReplicatedChannel`."""
    return ReplicatedChannel(address)
