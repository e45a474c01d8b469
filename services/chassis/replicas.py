"""A gRPC channel to all replicas of a service. A replica that does not answer gets no calls until it is healthy again.

gRPC's own `round_robin` leaves out a replica whose connection is closed, but not one that accepts calls and is silent.
This channel therefore holds one channel for each address.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

logger = logging.getLogger(__name__)

OPTIONS = [
    ("grpc.enable_http_proxy", 0),  # the proxy of the environment is for calls to the outside
    ("grpc.enable_retries", 0),
    ("grpc.lb_policy_name", "round_robin"),  # over one address. It reconnects at once, and pick_first at the next call
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 1000),  # gRPC also uses this as the timeout of a connect
    # A ping without an answer ends the connection, so that the next call connects to the node that has taken over.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 1000),
    ("grpc.http2.ping_timeout_ms", 1000),
    ("grpc.http2.max_pings_without_data", 0),
]
RESOLVE_SECONDS = 5.0  # between two look-ups of the name, so that new replicas get calls
FIRST_CHECK, LAST_CHECK = 0.25, 8.0  # seconds until the health check of a silent replica, doubled each time
CHECK_SECONDS = 1.0  # the timeout of a health check
DETAILS = "grpc-status-details-bin"
NOT_CONNECTED = "connections to all backends failing"  # gRPC's text: the call was not sent


class Replica:
    """One address of the service with its channel."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.channel = grpc.insecure_channel(target, options=OPTIONS)
        self._health = health_pb2_grpc.HealthStub(self.channel)
        self._methods: dict[str, Callable[..., Any]] = {}
        self._pause = FIRST_CHECK
        self._check_at: float | None = None  # None while the replica gets calls

    @property
    def is_silent(self) -> bool:
        """True until a health check succeeds after a call without an answer."""
        return self._check_at is not None

    def method(self, path: str, *codecs: Any) -> Callable[..., Any]:
        """Return the unary call `path`."""
        found = self._methods.get(path)
        if found is None:
            found = self._methods[path] = self.channel.unary_unary(path, *codecs)
        return found

    def suspend(self) -> None:
        """Leave the replica out until it is healthy."""
        if self._check_at is None:
            logger.warning("%s does not answer and gets no calls until it is healthy", self.target)
            self._check_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LAST_CHECK)

    def check_if_due(self, now: float) -> None:
        """Start a health check if it is time. Its answer ends the suspension."""
        if self._check_at is not None and now >= self._check_at:
            self._check_at = now + CHECK_SECONDS + self._pause
            check = self._health.Check.future(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
            check.add_done_callback(self._end_suspension)

    def note_answer(self) -> None:
        """Note that a call was answered, so the next suspension is short again."""
        self._pause = FIRST_CHECK

    def _end_suspension(self, check: Any) -> None:
        code = check.code()
        if code is grpc.StatusCode.UNIMPLEMENTED or (
            code is grpc.StatusCode.OK and check.result().status == health_pb2.HealthCheckResponse.SERVING
        ):
            self._check_at = None


class ReplicatedChannel(grpc.Channel):
    """Balances unary calls over the replicas behind `address`. Other kinds of calls go to one replica.

    `address` is `host:port`, where the host may have several IP addresses, or a comma-separated list of `ip:port`.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._turns = count()
        self._resolve_at = float("-inf")
        self._replicas: tuple[Replica, ...] = ()

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """Return the unary call `method`. It raises grpc.RpcError, or OSError if the address has no replica."""

        def call(request: Any, timeout: float | None = None, **options: Any) -> Any:
            deadline = None if timeout is None else time.monotonic() + timeout
            replicas = self._choose()
            for replica in replicas:
                send = replica.method(method, request_serializer, response_deserializer)
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    answer = send(request, timeout=left, **options)
                except grpc.RpcError as error:
                    if is_silent(error) and len(replicas) > 1:
                        replica.suspend()
                    if not is_unsent(error) or replica is replicas[-1]:
                        raise
                else:  # nothing was sent before, if this is not the first replica
                    replica.note_answer()
                    return answer
            raise ConnectionError(f"{self._address} has no replica")

        return call

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return a call of one replica."""
        return self._choose()[0].channel.unary_stream(*arguments, **options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """Return a call of one replica."""
        return self._choose()[0].channel.stream_unary(*arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return a call of one replica."""
        return self._choose()[0].channel.stream_stream(*arguments, **options)

    def subscribe(self, callback: Callable[..., None], try_to_connect: bool = False) -> None:
        """Call `callback` with every state of the connections to the present replicas."""
        for replica in self._choose():
            replica.channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[..., None]) -> None:
        """End `subscribe`."""
        for replica in self._replicas:
            replica.channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the connections."""
        for replica in self._replicas:
            replica.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _choose(self) -> list[Replica]:
        """Return the replicas in the order in which they get a call: each in turn is first, silent ones are last."""
        now = time.monotonic()
        if now >= self._resolve_at or not self._replicas:
            self._refresh(now)
        replicas = self._replicas
        if len(replicas) < 2:
            return list(replicas)
        turn = next(self._turns) % len(replicas)
        in_turn = [*replicas[turn:], *replicas[:turn]]
        for replica in replicas:
            replica.check_if_due(now)
        return sorted(in_turn, key=lambda replica: replica.is_silent)

    def _refresh(self, now: float) -> None:
        """Look up the name again, in the background if there are replicas already.

        Calls that come during the first look-up wait for it.
        """
        with self._lock:
            if self._replicas and now < self._resolve_at:
                return
            self._resolve_at = float("inf") if "," in self._address else now + RESOLVE_SECONDS
            if not self._replicas:
                self._resolve()
                return
        threading.Thread(target=self._resolve_again, name="resolver", daemon=True).start()

    def _resolve_again(self) -> None:
        try:
            self._resolve()
        except OSError as error:
            logger.warning("%s cannot be resolved, so its replicas stay as they are: %s", self._address, error)

    def _resolve(self) -> None:
        """Raises OSError."""
        known = {replica.target: replica for replica in self._replicas}
        try:
            targets = resolve(self._address)
        except OSError:
            self._resolve_at = time.monotonic() + FIRST_CHECK
            raise
        # A replica that is gone is not closed here, because it may still work on a call.
        self._replicas = tuple(known.get(target) or Replica(target) for target in targets)


def resolve(address: str) -> list[str]:
    """Return the gRPC targets behind an address. Raises OSError for an unknown name."""
    if "," in address:
        return [f"ipv4:{each}" for each in address.split(",")]
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places = sorted({(family, str(place[0]), int(place[1])) for family, *_, place in found})
    return [
        f"ipv6:[{ip}]:{number}" if family is socket.AF_INET6 else f"ipv4:{ip}:{number}" for family, ip, number in places
    ]


def is_silent(error: Any) -> bool:
    """Return whether the replica gave no answer of its own. Every error of our servers has details."""
    is_answer = any(name == DETAILS for name, _ in error.trailing_metadata() or ())
    return not is_answer and error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def is_unsent(error: Any) -> bool:
    """Return whether no connection was made, so that the call was not sent."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and NOT_CONNECTED in (error.details() or "")
