"""A gRPC channel to all replicas of a service. A replica that does not answer gets no calls until it is healthy again.

gRPC's own `round_robin` leaves out a replica whose connection is closed, but not one that accepts calls and is silent.
This channel therefore holds one channel for each address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.replicas import CHECK_SECONDS, Replica, Replicas

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
DETAILS = "grpc-status-details-bin"
NOT_CONNECTED = "connections to all backends failing"  # gRPC's text: the call was not sent


class _Replica(Replica):
    """One address of the service with its channel."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        family = "ipv6" if address.startswith("[") else "ipv4"
        self.channel = grpc.insecure_channel(f"{family}:{address}", options=OPTIONS)
        self._health = health_pb2_grpc.HealthStub(self.channel)
        self._methods: dict[str, Callable[..., Any]] = {}

    def method(self, path: str, *codecs: Any) -> Callable[..., Any]:
        """Return the unary call `path`."""
        found = self._methods.get(path)
        if found is None:
            found = self._methods[path] = self.channel.unary_unary(path, *codecs)
        return found

    def start_check(self) -> None:
        """Call the standard health service of gRPC."""
        check = self._health.Check.future(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        check.add_done_callback(self._note_health)

    def _note_health(self, check: Any) -> None:
        code = check.code()
        if code is grpc.StatusCode.UNIMPLEMENTED or (
            code is grpc.StatusCode.OK and check.result().status == health_pb2.HealthCheckResponse.SERVING
        ):
            self.end_suspension()


class ReplicatedChannel(grpc.Channel):
    """Balances unary calls over the replicas behind `address` (see `Replicas`). Other calls go to one replica."""

    def __init__(self, address: str) -> None:
        self._replicas = Replicas(address, _Replica)

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *_: Any, **__: Any
    ) -> Any:
        """Return the unary call `method`. It raises grpc.RpcError, or NotConnected if the name has no address."""

        def call(request: Any, timeout: float | None = None, **options: Any) -> Any:
            deadline = None if timeout is None else time.monotonic() + timeout
            replicas = self._replicas.choose()
            for replica in replicas:
                send = replica.method(method, request_serializer, response_deserializer)
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    answer = send(request, timeout=left, **options)
                except grpc.RpcError as error:
                    if is_silent(error) and len(replicas) > 1:
                        replica.suspend()
                    if not is_unsent(error):
                        raise
                    failure = error
                else:  # nothing was sent before, if this is not the first replica
                    replica.note_answer()
                    return answer
            self._replicas.look_up_soon()
            raise failure

        return call

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return a call of one replica."""
        return self._replicas.choose()[0].channel.unary_stream(*arguments, **options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """Return a call of one replica."""
        return self._replicas.choose()[0].channel.stream_unary(*arguments, **options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """Return a call of one replica."""
        return self._replicas.choose()[0].channel.stream_stream(*arguments, **options)

    def subscribe(self, callback: Callable[..., None], try_to_connect: bool = False) -> None:
        """Call `callback` with every state of the connections to the present replicas."""
        for replica in self._replicas.choose():
            replica.channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[..., None]) -> None:
        """End `subscribe`."""
        for replica in self._replicas.present:
            replica.channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the connections."""
        for replica in self._replicas.present:
            replica.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_silent(error: Any) -> bool:
    """Return whether the replica gave no answer of its own. Every error of our servers has details."""
    is_answer = any(name == DETAILS for name, _ in error.trailing_metadata() or ())
    return not is_answer and error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def is_unsent(error: Any) -> bool:
    """Return whether no connection was made, so that the call was not sent."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and NOT_CONNECTED in (error.details() or "")
