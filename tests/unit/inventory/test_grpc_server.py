"""gRPC calls to several replicas: each live replica gets calls, and a dead one gets none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest

from harness.runtime import ports
from harness.runtime.process import wait_for
from services.chassis import clients
from services.contracts.pb import inventory_pb2
from services.inventory import grpc_server

pytestmark = pytest.mark.unit

SERVICE = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"]


@contextmanager
def replica(name: str) -> Iterator[grpc_server.GrpcServer]:
    """A server that returns its name."""
    get_name = grpc.unary_unary_rpc_method_handler(lambda _request, _context: name.encode())
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
