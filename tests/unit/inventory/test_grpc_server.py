"""gRPC calls to several replicas: each live replica gets calls, and a dead or hung one gets none."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from threading import Event
from typing import Any, NoReturn

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse

from harness.runtime import ports
from harness.runtime.process import wait_for
from services.chassis import clients, replicas
from services.chassis.errors import Unknown
from services.chassis.grpc_channel import is_silent, is_unsent
from services.contracts.pb import inventory_pb2
from services.inventory import grpc_server
from services.orchestrator.saga.retry import retry_until

pytestmark = pytest.mark.unit

SERVICE = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"]


@contextmanager
def replica(name: str, is_awake: Event | None = None) -> Iterator[grpc_server.GrpcServer]:
    """A server that returns its name, as soon as `is_awake`."""

    def respond(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        assert is_awake is None or is_awake.wait(20)
        return name.encode()

    get_name = grpc.unary_unary_rpc_method_handler(respond)
    handler = grpc.method_handlers_generic_handler("names", {"Get": get_name})
    server = grpc_server.GrpcServer(f"{ports.HOST}:0", lambda s: s.add_generic_rpc_handlers((handler,)), SERVICE, 2)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def open_client(address: str) -> Iterator[tuple[grpc.Channel, Any]]:
    """A channel and its call."""
    with closing(clients.open_channel(address)) as opened:
        yield opened, opened.unary_unary("/names/Get", bytes, bytes)


def addresses(*servers: grpc_server.GrpcServer) -> str:
    return ",".join(f"{ports.HOST}:{server.port}" for server in servers)


def test_calls_reach_each_replica_and_avoid_a_dead_one() -> None:
    with replica("one") as one, replica("two") as two, open_client(addresses(one, two)) as (_, call):
        answers: set[bytes] = set()

        def have_both_answered() -> bool:
            answers.add(call(b"", timeout=5))
            return answers == {b"one", b"two"}

        assert wait_for(have_both_answered, seconds=10)
        one.stop()
        assert {call(b"", timeout=5) for _ in range(20)} == {b"two"}


def test_a_single_address_is_resolved_by_name() -> None:
    with replica("one") as server, open_client(f"localhost:{server.port}") as (_, call):
        assert call(b"", timeout=5, wait_for_ready=True) == b"one"


def test_a_client_reconnects_periodically(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "CONNECTION_SECONDS", 1)
    seen: list[grpc.ChannelConnectivity] = []
    with replica("one") as server, open_client(addresses(server)) as (opened, call):
        opened.subscribe(seen.append)
        assert call(b"", timeout=5) == b"one"
        assert wait_for(lambda: seen.count(grpc.ChannelConnectivity.READY) > 1, seconds=10), seen
        assert call(b"", timeout=5) == b"one"


def test_a_replica_that_accepts_calls_but_does_not_answer_is_left_out() -> None:
    """Its process still answers pings, so gRPC alone would continue to send it every second call."""
    is_awake = Event()
    is_awake.set()
    with replica("one") as one, replica("two", is_awake) as two, open_client(addresses(one, two)) as (_, call):
        assert {call(b"", timeout=5) for _ in range(4)} == {b"one", b"two"}
        is_awake.clear()
        two.health.set("", HealthCheckResponse.NOT_SERVING)  # a hung process would not answer its health check
        failures = [error.code() for error in (call_safely(call, 2) for _ in range(20)) if error]
        assert failures == [grpc.StatusCode.DEADLINE_EXCEEDED]
        is_awake.set()
        two.health.set("", HealthCheckResponse.SERVING)
        assert wait_for(lambda: call(b"", timeout=5) == b"two", seconds=10)


def call_safely(call: Any, timeout: float) -> Any:
    """Return the error of a call, or None."""
    try:
        call(b"", timeout=timeout)
    except grpc.RpcError as error:
        return error
    return None


def test_a_read_whose_replica_hangs_is_answered_by_the_other() -> None:
    is_awake = Event()
    with replica("one") as one, replica("two", is_awake) as two, open_client(addresses(one, two)) as (_, call):
        deadline = time.monotonic() + 4

        def read() -> bytes:
            error = call_safely(call, clients.READ_SECONDS)
            if error:
                raise Unknown(str(error.code()))
            return b"answered"

        assert [retry_until(deadline, read) for _ in range(10)] == [b"answered"] * 10
        is_awake.set()


def test_a_replica_without_a_single_byte_is_left_out() -> None:
    """A node that is gone: it accepts the connection, but sends nothing."""
    with replica("one") as one, socket.create_server((ports.HOST, 0)) as silent:
        address = f"{addresses(one)},{ports.HOST}:{silent.getsockname()[1]}"
        with open_client(address) as (_, call):
            started = time.monotonic()
            assert {call(b"", timeout=2) for _ in range(20)} == {b"one"}
            assert time.monotonic() - started < 4


def test_all_replicas_get_calls_if_none_answers() -> None:
    (one, two) = ports.claim([20_700, 20_701])
    with open_client(f"{ports.HOST}:{one},{ports.HOST}:{two}") as (_, call):
        error = call_safely(call, 2)
        assert is_unsent(error), error.details()
        assert is_silent(error)
    ports.release([one, two])


def test_an_error_of_the_server_itself_is_an_answer() -> None:
    """A lock timeout of a replica, for example, is no reason to leave it out."""

    def refuse(_request: bytes, context: grpc.ServicerContext) -> NoReturn:
        context.abort_with_status(grpc_server._encode_unknown(Unknown("the row is locked")))

    handler = grpc.method_handlers_generic_handler("names", {"Get": grpc.unary_unary_rpc_method_handler(refuse)})
    server = grpc_server.GrpcServer(f"{ports.HOST}:0", lambda s: s.add_generic_rpc_handlers((handler,)), SERVICE, 2)
    server.start()
    with open_client(addresses(server)) as (_, call):
        error = call_safely(call, 5)
    server.stop()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not is_silent(error)


def test_first_calls_of_a_new_channel_wait_for_its_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that call while another thread still looks up the name must not meet an empty list."""
    is_found = Event()
    with replica("one") as one, open_client("inventory-service:50051") as (_, call), ThreadPoolExecutor(8) as pool:

        def resolve(_address: str) -> list[str]:
            assert is_found.wait(10)
            return [addresses(one)]

        monkeypatch.setattr(replicas, "resolve", resolve)
        monkeypatch.setattr(replicas, "LOOK_UP_SECONDS", 30.0)
        calls = [pool.submit(call, b"", timeout=30) for _ in range(8)]
        ended, _ = wait(calls, timeout=0.2, return_when=FIRST_COMPLETED)
        is_found.set()
        assert not ended
        assert {each.result() for each in calls} == {b"one"}


def test_new_replicas_of_a_name_get_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "RESOLVE_SECONDS", 0.05)
    with replica("one") as one, replica("two") as two:
        found = [f"{ports.HOST}:{one.port}"]
        monkeypatch.setattr(replicas, "resolve", lambda _address: list(found))
        with open_client("inventory-service:50051") as (_, call):
            assert call(b"", timeout=5) == b"one"
            found.append(f"{ports.HOST}:{two.port}")
            assert wait_for(lambda: call(b"", timeout=5) == b"two", seconds=10)
            found.pop(0)
            assert wait_for(lambda: {call(b"", timeout=5) for _ in range(6)} == {b"two"}, seconds=10)


def test_a_name_without_an_address_is_not_connected() -> None:
    with open_client("no-such-host.invalid:50051") as (_, call), pytest.raises(OSError, match="has no address"):
        call(b"", timeout=2)
