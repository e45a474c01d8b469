"""HTTP and gRPC clients for calls between services. Each call has one of three outcomes.

done      returns the data
refused   raises Refused with the code of the called service: the effect did not happen
unknown   raises Unknown: no connection, a timeout, a 5xx or an unreadable answer. The effect may have happened
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grpc
import msgspec
from grpc_status import rpc_status

from services.chassis import correlation, json_codec
from services.chassis.errors import ConfigurationError, NoAnswer, Refused, Unknown, Unreachable
from services.chassis.grpc_channel import ReplicatedChannel, is_silent, is_unsent
from services.chassis.http_transport import PooledTransport
from services.chassis.neighbours import UNLIMITED, Call, Neighbour
from services.chassis.replicas import NotConnected
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
# A service that cannot reach its database answers at once with a 503. A lock timeout takes longer, and a bug is a 500.
IMMEDIATE_SECONDS = 0.1


class Transport(Protocol):
    """Sends one HTTP request and returns status and body. Tests inject faults here."""

    def __call__(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        """Send the request. Raises OSError without an answer, and NotConnected if nothing was sent."""


class HttpPeer:
    """A client for another service over HTTP. Thread-safe. Create it after the fork.

    `slots` is the number of threads that may wait for the service at once. `probe_seconds` is the timeout of a call to
    a service that is away.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        credential: Credential,
        transport: Transport | None = None,
        slots: int = UNLIMITED,
        probe_seconds: float = CALL_SECONDS,
    ) -> None:
        if not base_url.startswith("http://"):
            raise ConfigurationError(f"{base_url!r} is not an address of {name}: use http://host:port")
        self._name = name
        self._base_url = base_url.rstrip("/")
        self._credential = credential
        self._transport = transport or PooledTransport()
        self.neighbour = Neighbour(name, slots, probe_seconds=probe_seconds)

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
        content = None if fields is None else json_codec.encode(fields)
        with self.neighbour.calling() as call:
            status, raw = self._send(call, method, path, content)
            log_call(self._name, f"{method} {path.partition('?')[0]}", status, started)
            return self._parse_envelope(status, raw, started)

    def fetch(self, path: str, etag: str | None = None) -> bytes | None:
        """The undecoded envelope of a GET, for large answers. None if the answer still has `etag` (304).

        Raises Refused or Unknown.
        """
        started = time.perf_counter()
        conditions = {"If-None-Match": f'"{etag}"'} if etag else {}
        with self.neighbour.calling() as call:
            status, raw = self._send(call, "GET", path, None, conditions)
            if status == 304 and etag:
                return None
            if status != 200:
                self._parse_envelope(status, raw, started)
            return raw

    def _send(
        self, call: Call, method: str, path: str, content: bytes | None, conditions: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        headers = {"Authorization": self._credential.header(), "Accept": "application/json", **(conditions or {})}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if current := correlation.current():
            headers[correlation.HEADER] = current
        try:
            return self._transport(method, self._base_url + path, content, headers, call.limit(CALL_SECONDS))
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
        kind = NoAnswer if status > 500 and _is_immediate(started) else Unknown
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

    `slots` and `probe_seconds` are those of HttpPeer.
    """

    def __init__(
        self, name: str, credential: Credential, slots: int = UNLIMITED, probe_seconds: float = CALL_SECONDS
    ) -> None:
        self._name = name
        self._credential = credential
        self.neighbour = Neighbour(name, slots, probe_seconds=probe_seconds)

    def call(self, method: Callable[..., Any], request: Any, seconds: float = CALL_SECONDS) -> Any:
        """The reply of one call. It has a timeout of `seconds` and no retry. Raises Refused or Unknown."""
        verb = type(request).__name__.removesuffix("Request")
        started = time.perf_counter()
        with self.neighbour.calling() as attempt:
            try:
                reply = method(request, timeout=attempt.limit(seconds), metadata=self._metadata())
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
    is_unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
    return NoAnswer if is_silent(error) or (is_unavailable and _is_immediate(started)) else Unknown


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
