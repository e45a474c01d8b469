"""gRPC to several replicas: every one of them is asked, and a dead one is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from harness import ports
from harness.process import wait_for
from services.chassis import clients, rpc
from services.contracts.pb import inventory_pb2

pytestmark = pytest.mark.unit

SERVICE = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"]


@contextmanager
def replica(name: str) -> Iterator[rpc.GrpcServer]:
    """A server that says its name."""
    answer = grpc.unary_unary_rpc_method_handler(lambda _request, _context: name.encode())
    handler = grpc.method_handlers_generic_handler("who", {"Is": answer})
    server = rpc.GrpcServer(f"{ports.HOST}:0", lambda s: s.add_generic_rpc_handlers((handler,)), SERVICE, 2)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def asking(*servers: rpc.GrpcServer) -> tuple[grpc.Channel, Any]:
    opened = clients.channel(",".join(f"{ports.HOST}:{server.port}" for server in servers))
    return opened, opened.unary_unary("/who/Is", bytes, bytes)


def test_every_replica_is_asked_and_the_calls_of_a_dead_one_go_to_the_other() -> None:
    with replica("one") as one, replica("other") as other:
        opened, ask = asking(one, other)
        answers: set[bytes] = set()

        def both() -> bool:
            answers.add(ask(b"", timeout=5))
            return answers == {b"one", b"other"}

        assert wait_for(both, seconds=10)
        one.stop()
        assert {ask(b"", timeout=5) for _ in range(20)} == {b"other"}
        opened.close()


def test_one_address_is_looked_up_by_name() -> None:
    with replica("one") as server:
        opened = clients.channel(f"localhost:{server.port}")
        ask: Any = opened.unary_unary("/who/Is", bytes, bytes)
        assert ask(b"", timeout=5, wait_for_ready=True) == b"one"
        opened.close()


def test_a_client_connects_anew_from_time_to_time_so_that_it_meets_new_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc, "CONNECTION_SECONDS", 1)
    seen: list[grpc.ChannelConnectivity] = []
    with replica("one") as server:
        opened, ask = asking(server)
        opened.subscribe(seen.append)
        assert ask(b"", timeout=5) == b"one"
        assert wait_for(lambda: seen.count(grpc.ChannelConnectivity.READY) > 1, seconds=10), seen
        assert ask(b"", timeout=5) == b"one"
        opened.close()
