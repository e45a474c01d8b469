"""Calling out: one way for HTTP, one for gRPC, with the same three outcomes.

*Done* returns the data. A definite refusal raises `Refused` with the participant's own code. Everything else (no
connection, a timeout, a 5xx, an answer that is not ours) raises `Unknown`, which is never guessed about.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grpc
import msgspec
import urllib3
from grpc_status import rpc_status

from services.chassis import correlation, wire
from services.chassis.errors import Refused, Unknown
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
        """Raises urllib3.exceptions.HTTPError or OSError when there is no answer."""


class PooledTransport:
    """Keep-alive connections by urllib3; never retries by itself, since only the caller knows the key.

    A pool a host, asked directly: urllib3's manager would parse and normalise the same address on every call.
    """

    def __init__(self, connections: int = 64) -> None:
        self._connections = connections
        self._pools: dict[str, urllib3.HTTPConnectionPool] = {}
        self._timeouts: dict[float, urllib3.Timeout] = {}

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        slash = url.index("/", url.index("//") + 2)
        pool = self._pools.get(url[:slash]) or self._added(url[:slash])
        limit = self._timeouts.setdefault(timeout, urllib3.Timeout(timeout))
        answer = pool.urlopen(
            method, url[slash:], body=body, headers=headers, timeout=limit, retries=False, redirect=False
        )
        return answer.status, answer.data

    def _added(self, origin: str) -> urllib3.HTTPConnectionPool:
        pool = urllib3.connection_from_url(origin, maxsize=self._connections)
        return self._pools.setdefault(origin, pool)  # two threads at once: one pool stays


class HttpPeer:
    """Another service over HTTP. Thread-safe; make it after the fork."""

    def __init__(self, name: str, base_url: str, credential: Credential, transport: Transport | None = None) -> None:
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
        """One call, no retry; `CALL_SECONDS` at most. Raises Refused or Unknown."""
        return self.whole(method, path, fields)["data"]

    def whole(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Like `call`, with the whole success envelope (`pagination` beside `data`)."""
        started = time.perf_counter()
        logger.info("→ %s %s %s", self._name, method, path.partition("?")[0])
        status, raw = self._send(method, path, None if fields is None else wire.encode(fields))
        logger.info("← %s %d in %.1f ms", self._name, status, (time.perf_counter() - started) * 1000)
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
        except (urllib3.exceptions.HTTPError, OSError) as error:
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
            envelope = wire.decode(raw)
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
        logger.info("→ %s gRPC %s", self._name, verb)
        try:
            answer = method(request, timeout=CALL_SECONDS, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._translated(verb, error) from error
        logger.info("← %s OK in %.1f ms", self._name, (time.perf_counter() - started) * 1000)
        return answer

    def _metadata(self) -> list[tuple[str, str]]:
        metadata = [("authorization", self._credential.header())]
        if current := correlation.current():
            metadata.append((correlation.METADATA, current))
        return metadata

    def _translated(self, verb: str, error: Any) -> Exception:
        refusal = _refusal_in(error)
        if refusal is None or not _is_verdict(refusal.code):
            logger.warning("← %s %s %s", self._name, verb, error.code())
            return Unknown(f"{self._name} did not answer {verb} ({error.code().name})")
        logger.info("← %s refused %s: %s", self._name, verb, refusal.code)
        return Refused(refusal.code, refusal.message, **(wire.decode(refusal.details_json or "{}")))


def _is_verdict(code: object) -> bool:
    return code in ErrorCode.__members__ and code not in ABOUT_THE_CALL


def _refusal_in(error: Any) -> Any | None:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        refusal = inventory_pb2.Refusal()
        if detail.Unpack(refusal):
            return refusal
    return None


def channel(address: str) -> grpc.Channel:
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
