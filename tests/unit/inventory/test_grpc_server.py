"""gRPC to several replicas: every one of them is asked, and a dead one is not."""

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
    """A server that says its name."""
    answer = grpc.unary_unary_rpc_method_handler(lambda _request, _context: name.encode())
    handler = grpc.method_handlers_generic_handler("who", {"Is": answer})
    server = grpc_server.GrpcServer(f"{ports.HOST}:0", lambda s: s.add_generic_rpc_handlers((handler,)), SERVICE, 2)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def asking(address: str) -> Iterator[tuple[grpc.Channel, Any]]:
    """A channel, and the one call over it."""
    with closing(clients.open_channel(address)) as opened:
        yield opened, opened.unary_unary("/who/Is", bytes, bytes)


def addresses(*servers: grpc_server.GrpcServer) -> str:
    return ",".join(f"{ports.HOST}:{server.port}" for server in servers)


def test_every_replica_is_asked_and_the_calls_of_a_dead_one_go_to_the_other() -> None:
    with replica("one") as one, replica("other") as other, asking(addresses(one, other)) as (_, ask):
        answers: set[bytes] = set()

        def both() -> bool:
            answers.add(ask(b"", timeout=5))
            return answers == {b"one", b"other"}

        assert wait_for(both, seconds=10)
        one.stop()
        assert {ask(b"", timeout=5) for _ in range(20)} == {b"other"}


def test_one_address_is_looked_up_by_name() -> None:
    with replica("one") as server, asking(f"localhost:{server.port}") as (_, ask):
        assert ask(b"", timeout=5, wait_for_ready=True) == b"one"


def test_a_client_connects_anew_from_time_to_time_so_that_it_meets_new_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grpc_server, "CONNECTION_SECONDS", 1)
    seen: list[grpc.ChannelConnectivity] = []
    with replica("one") as server, asking(addresses(server)) as (opened, ask):
        opened.subscribe(seen.append)
        assert ask(b"", timeout=5) == b"one"
        assert wait_for(lambda: seen.count(grpc.ChannelConnectivity.READY) > 1, seconds=10), seen
        assert ask(b"", timeout=5) == b"one"
