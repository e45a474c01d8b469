"""HTTP and gRPC clients for calls between services. Each call has one of three outcomes.

done      returns the data
refused   raises Refused with the code of the called service: the effect did not happen
unknown   raises Unknown: no connection, a timeout, a 5xx or an unreadable answer. The effect may have happened
"""

from __future__ import annotations

import logging
import select
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
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


class Transport(Protocol):
    """Sends one HTTP request and returns status and body. Tests inject faults here."""

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Send the request. Raises OSError without an answer."""


class PooledTransport:
    """Sends requests over keep-alive connections. It never retries, because only the caller has the idempotency key.

    It uses http.client alone, because urllib3 around it doubled the CPU time of a call.
    """

    def __init__(self) -> None:
        self._idle: defaultdict[str, deque[_Connection]] = defaultdict(deque)
        weakref.finalize(self, _close_all, self._idle)

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        host, slash, path = url.removeprefix("http://").partition("/")
        idle = self._idle[host]
        connection = _pop_usable(idle) or _Connection(host, timeout=timeout)
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
            idle.append(connection)
        return answer.status, content


class _Connection(HTTPConnection):
    """Sends head and body in one write, because a second write costs a fifth of a call's CPU time."""

    def __init__(self, host: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self._unsent: list[bytes] = []

    def send(self, data: Any) -> None:
        """Collect a part of the request."""
        self._unsent.append(data)

    def getresponse(self) -> HTTPResponse:
        """Send the collected request and read the head of the response."""
        request = b"".join(self._unsent)
        self._unsent.clear()
        super().send(request)
        return super().getresponse()

    def is_usable(self) -> bool:
        """False if an idle connection has something to read, which is usually the server's close."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return not poller.poll(0)


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


def _close_all(idle: Mapping[str, deque[_Connection]]) -> None:
    for connections in idle.values():
        while connections:
            connections.pop().close()


class HttpPeer:
    """A client for another service over HTTP. Thread-safe. Create it after the fork."""

    def __init__(self, name: str, base_url: str, credential: Credential, transport: Transport | None = None) -> None:
        if not base_url.startswith("http://"):
            raise ConfigurationError(f"{base_url!r} is not an address of {name}: use http://host:port")
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
        """The `data` of one call. It has a timeout of CALL_SECONDS and no retry. Raises Refused or Unknown."""
        return self._call(method, path, fields)["data"]

    def get_page(self, path: str) -> dict[str, Any]:
        """The success envelope of a GET: `data` and `pagination`. Raises Refused or Unknown."""
        return self._call("GET", path)

    def _call(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        started = time.perf_counter()
        status, raw = self._send(method, path, None if fields is None else json_codec.encode(fields))
        log_call(self._name, f"{method} {path.partition('?')[0]}", status, started)
        return self._parse_envelope(status, raw)

    def fetch(self, path: str, etag: str | None = None) -> bytes | None:
        """The undecoded envelope of a GET, for large answers. None if the answer still has `etag` (304).

        Raises Refused or Unknown.
        """
        conditions = {"If-None-Match": f'"{etag}"'} if etag else {}
        status, raw = self._send("GET", path, None, conditions)
        if status == 304 and etag:
            return None
        if status != 200:
            self._parse_envelope(status, raw)
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
            raise Unknown(f"{self._name} did not answer ({type(error).__name__})") from error

    def _parse_envelope(self, status: int, raw: bytes) -> dict[str, Any]:
        envelope = self._decode(status, raw)
        if status < 300 and "data" in envelope:
            return envelope
        if 400 <= status < 500 and _is_verdict(envelope.get("error_code")):
            details = envelope.get("details") or {}
            raise Refused(envelope["error_code"], envelope.get("message"), **details)
        raise Unknown(f"{self._name} answered {status}")

    def _decode(self, status: int, raw: bytes) -> dict[str, Any]:
        try:
            envelope = json_codec.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unknown(f"{self._name} answered {status} with a body that is not JSON") from None
        if not isinstance(envelope, dict):
            raise Unknown(f"{self._name} answered {status} with JSON that is not an envelope")
        return envelope


class GrpcPeer:
    """A client for another service over gRPC. Thread-safe. Create it after the fork."""

    def __init__(self, name: str, credential: Credential) -> None:
        self._name = name
        self._credential = credential

    def call(self, method: Callable[..., Any], request: Any) -> Any:
        """The reply of one call. It has a timeout of CALL_SECONDS and no retry. Raises Refused or Unknown."""
        verb = type(request).__name__.removesuffix("Request")
        started = time.perf_counter()
        try:
            reply = method(request, timeout=CALL_SECONDS, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._translate(verb, error, started) from error
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
            return Unknown(f"{self._name} did not answer {verb} ({error.code().name})")
        log_call(self._name, f"gRPC {verb}", refusal.code, started)
        return Refused(refusal.code, refusal.message, **(json_codec.decode(refusal.details_json or "{}")))


def log_call(name: str, what: str, outcome: object, started: float) -> None:
    """Log a call in one line, because two lines a call took a sixth of the orchestrator's CPU time.

    `started` is the reading of `time.perf_counter()` before the call.
    """
    logger.info("→ %s %s ← %s %s in %.1f ms", name, what, name, outcome, (time.perf_counter() - started) * 1000)


def _is_verdict(code: object) -> bool:
    return code in ErrorCode.__members__ and code not in CALL_ERRORS


def _find_refusal(error: Any) -> Any | None:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        refusal = inventory_pb2.Refusal()
        if detail.Unpack(refusal):
            return refusal
    return None


def open_channel(address: str) -> grpc.Channel:
    """Open a channel that balances calls over every replica behind `address`.

    `address` is `host:port`, where the host may have several IP addresses, or a comma-separated list of `ip:port`.
    The channel reconnects within a second of the server's return.
    """
    scheme = "ipv4:" if "," in address else "dns:///"
    options = [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),  # the proxy of the environment is for calls to the outside
    ]
    return grpc.insecure_channel(f"{scheme}{address}", options=options)
