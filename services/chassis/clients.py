"""Calling out: one way for HTTP, one for gRPC, with the same three outcomes.

*Done* returns the data. A definite refusal raises `Refused` with the participant's own code. Everything else (no
connection, a timeout, a 5xx, an answer that is not ours) raises `Unknown`, which is never guessed about.
"""

from __future__ import annotations

import logging
import select
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any, Protocol

import grpc
import msgspec
from grpc_status import rpc_status

from services.chassis import correlation, json_codec
from services.chassis.errors import ConfigurationError, Refused, Unknown
from services.chassis.tokens import Credential
from services.contracts.errors import ErrorCode
from services.contracts.pb import inventory_pb2

logger = logging.getLogger(__name__)

# A peer that says one of these speaks of our call, not of the business: a rotated secret, a route not there yet.
# It is no verdict on the effect, so it is never taken for one.
ABOUT_THE_CALL = {
    ErrorCode.UNAUTHORIZED,
    ErrorCode.TOKEN_EXPIRED,
    ErrorCode.FORBIDDEN,
    ErrorCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.PAYLOAD_TOO_LARGE,
}
CALL_SECONDS = 2.0  # an answer later than this is no answer


class Transport(Protocol):
    """Sends one HTTP request and returns status and body; the seam where tests put faults."""

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Raises OSError when there is no answer."""


class PooledTransport:
    """Keep-alive connections to each host; never asks again by itself, since only the caller knows the key.

    http.client alone: what urllib3 does around it cost as much again.
    """

    def __init__(self) -> None:
        self._kept: defaultdict[str, deque[_Connection]] = defaultdict(deque)
        weakref.finalize(self, _close_all, self._kept)

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        host, slash, path = url.removeprefix("http://").partition("/")
        kept = self._kept[host]
        connection = _quiet(kept) or _Connection(host, timeout=timeout)
        try:
            connection.request(method, slash + path, body, dict(headers))
            answer = connection.getresponse()
            content = answer.read()
        except HTTPException as error:
            connection.close()
            raise ConnectionError(f"{type(error).__name__} from {host}") from error
        except BaseException:
            connection.close()
            raise
        if not answer.will_close:
            kept.append(connection)
        return answer.status, content


class _Connection(HTTPConnection):
    """Head and body in one write."""

    _buffer: list[bytes]

    def _send_output(self, message_body: bytes | None = None, encode_chunked: bool = False) -> None:
        whole = b"\r\n".join([*self._buffer, b"", message_body or b""])
        self._buffer.clear()
        self.send(whole)

    def is_quiet(self) -> bool:
        """False when there is something to read before anything was asked: the server's end of it, usually."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return not poller.poll(0)


def _quiet(kept: deque[_Connection]) -> _Connection | None:
    """A kept connection that its server has not closed meanwhile."""
    while kept:
        try:
            connection = kept.pop()
        except IndexError:  # another thread was faster
            return None
        if connection.is_quiet():
            return connection
        connection.close()
    return None


def _close_all(kept: Mapping[str, deque[_Connection]]) -> None:
    for connections in kept.values():
        while connections:
            connections.pop().close()


class HttpPeer:
    """Another service over HTTP. Thread-safe; make it after the fork."""

    def __init__(self, name: str, base_url: str, credential: Credential, transport: Transport | None = None) -> None:
        if not base_url.startswith("http://"):
            raise ConfigurationError(f"{name} is asked over http://host:port, not at {base_url!r}")
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._credential = credential
        self._transport = transport or PooledTransport()

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
        """The `data` of one call without a retry. It takes at most CALL_SECONDS. Raises Refused or Unknown."""
        return self._call(method, path, fields)["data"]

    def get_page(self, path: str) -> dict[str, Any]:
        """The success envelope of a GET: `data` and `pagination`. Raises Refused or Unknown."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        started = time.perf_counter()
        status, raw = self._send(method, path, None if fields is None else json_codec.encode(fields))
        log_call(self._name, f"{method} {path.partition('?')[0]}", status, started)
        return self._understood(status, raw)

    def fetch(self, path: str, unless: str | None = None) -> bytes | None:
        """The undecoded envelope of a GET whose answer is large; None (304) while its ETag is still `unless`.

        Raises Refused or Unknown.
        """
        asked = {"If-None-Match": f'"{unless}"'} if unless else {}
        status, raw = self._send("GET", path, None, asked)
        if status == 304 and unless:
            return None
        if status != 200:
            self._understood(status, raw)
        return raw

    def _send(
        self, method: str, path: str, content: bytes | None, asked: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        headers = {"Authorization": self._credential.header(), "Accept": "application/json", **(asked or {})}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if current := correlation.current():
            headers[correlation.HEADER] = current
        try:
            return self._transport(method, self._base_url + path, content, headers, CALL_SECONDS)
        except OSError as error:
            logger.warning("← %s %s %s: %s", self._name, method, path.partition("?")[0], type(error).__name__)
            raise Unknown(f"{self._name} did not answer ({type(error).__name__})") from error

    def _understood(self, status: int, raw: bytes) -> dict[str, Any]:
        envelope = self._decoded(status, raw)
        if status < 300 and "data" in envelope:
            return envelope
        if 400 <= status < 500 and _is_verdict(envelope.get("error_code")):
            details = envelope.get("details") or {}
            raise Refused(envelope["error_code"], envelope.get("message"), **details)
        raise Unknown(f"{self._name} answered {status}")

    def _decoded(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            envelope = json_codec.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unknown(f"{self._name} answered {status} with something that is not JSON") from None
        if not isinstance(envelope, dict):
            raise Unknown(f"{self._name} answered {status} with something that is no envelope")
        return envelope


class GrpcPeer:
    """Another service over gRPC. Thread-safe; make it after the fork."""

    def __init__(self, name: str, credential: Credential) -> None:
        self._name = name
        self._credential = credential

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """One call, no retry; `CALL_SECONDS` at most. Raises Refused or Unknown."""
        verb = type(request).__name__.removesuffix("Request")
        started = time.perf_counter()
        try:
            answer = method(request, timeout=CALL_SECONDS, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._translated(verb, error, started) from error
        log_call(self._name, f"gRPC {verb}", "OK", started)
        return answer

    def _metadata(self) -> list[tuple[str, str]]:
        metadata = [("authorization", self._credential.header())]
        if current := correlation.current():
            metadata.append((correlation.METADATA, current))
        return metadata

    def _translated(self, verb: str, error: Any, started: float) -> Exception:
        refusal = _refusal_in(error)
        if refusal is None or not _is_verdict(refusal.code):
            logger.warning("← %s gRPC %s: %s", self._name, verb, error.code())
            return Unknown(f"{self._name} did not answer {verb} ({error.code().name})")
        log_call(self._name, f"gRPC {verb}", refusal.code, started)
        return Refused(refusal.code, refusal.message, **(json_codec.decode(refusal.details_json or "{}")))


def log_call(name: str, what: str, outcome: object, started: float) -> None:
    """One line for question and answer: logging was a sixth of the orchestrator's time.

    `started` is the reading of `time.perf_counter()` when it was asked.
    """
    logger.info("→ %s %s ← %s %s in %.1f ms", name, what, name, outcome, (time.perf_counter() - started) * 1000)


def _is_verdict(code: object) -> bool:
    return code in ErrorCode.__members__ and code not in ABOUT_THE_CALL


def _refusal_in(error: Any) -> Any | None:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        refusal = inventory_pb2.Refusal()
        if detail.Unpack(refusal):
            return refusal
    return None


def open_channel(address: str) -> grpc.Channel:
    """A channel to every replica behind `address`, balanced on the client's side.

    `address` is `host:port`, where the host may have several addresses, or several `ip:port` with commas between.
    Reconnects by itself: at most one second after the server is back.
    """
    scheme = "ipv4:" if "," in address else "dns:///"
    options = [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.enable_retries", 0),
    ]
    return grpc.insecure_channel(f"{scheme}{address}", options=options)
