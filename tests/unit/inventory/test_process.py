"""`python -m services.inventory.main` as a process: it releases expired holds, notifies Order and ends on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from uuid import UUID

import pytest

from harness.runtime import ports
from services.chassis import json_codec, tokens
from services.chassis.broker import Publisher
from services.chassis.clients import GrpcPeer, open_channel
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from tests.support import queue_admin
from tests.support.brokers import Broker
from tests.support.databases import Databases
from tests.support.http_servers import AnsweringServer, Request
from tests.support.service_settings import SERVICE_KEYS, key_environment, make_credential, new_id
from tests.support.stubs import check_response, example
from tests.support.waiting import wait_until
from tests.unit.inventory.inventory_service import InventoryService

pytestmark = pytest.mark.unit


class Process:
    """An inventory process with its HTTP and gRPC ports."""

    def __init__(self, environment: dict[str, str], http: int, grpc: int) -> None:
        self.http, self.grpc = http, grpc
        self.child = subprocess.Popen(
            [sys.executable, "-m", "services.inventory.main"],
            env={**os.environ, **environment, "PORT": str(http), "GRPC_PORT": str(grpc)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def health(self) -> Any:
        try:
            with urlopen(f"http://127.0.0.1:{self.http}/health", timeout=2) as answer:
                return json.load(answer)
        except (URLError, OSError):
            return {}

    def end(self) -> str:
        """Send SIGTERM and return the output of the process."""
        self.child.send_signal(signal.SIGTERM)
        output, _ = self.child.communicate(timeout=20)
        return output


def read_caller(request: Request) -> str:
    return tokens.verify_caller(SERVICE_KEYS, "order-service", tokens.parse_bearer(request.headers["Authorization"]))


def confirm_expiry(request: Request) -> tuple[int, bytes]:
    """Answer a notice as Order does."""
    done = json.dumps(example("order", "POST", "/orders/{order_id}/expire", 200)).encode()
    return check_response("order", "POST", request.path, 200, done)


@pytest.fixture
def order() -> Iterator[AnsweringServer]:
    """A stub for Order."""
    with AnsweringServer(confirm_expiry) as server:
        yield server


@pytest.fixture
def replicas(databases: Databases, broker: Broker, order: AnsweringServer) -> Iterator[list[Process]]:
    queue_admin.purge(broker)
    database = databases.database_for("inventory")
    environment = {
        "BIND": "127.0.0.1",
        **key_environment("inventory-service"),
        "DB_HOST": database.addresses[0].host,
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": "unused",
        "RABBITMQ_HOST": broker.settings.addresses[0].host,
        "RABBITMQ_PORT": str(broker.settings.addresses[0].port),
        "RABBITMQ_USER": broker.settings.user,
        "RABBITMQ_PASS": broker.settings.password,
        "ORDER_SERVICE_URL": order.origin,
        "SWEEP_SECONDS": "0.2",
        "SWEEP_GRACE_SECONDS": "0.5",
    }
    claimed = ports.claim([20080, 20051, 20081, 20052])
    both = [Process(environment, *claimed[:2]), Process(environment, *claimed[2:])]
    yield both
    for process in both:
        if process.child.poll() is None:
            process.end()
        process.child.stdout.close()  # type: ignore[union-attr]
    ports.release(claimed)


@pytest.mark.claim("consumer/own-thread")
def test_two_replicas_release_holds_and_stop_cleanly(replicas, databases, broker, order):
    wait_until(lambda: all(replica.health().get("consumer") == "consuming" for replica in replicas), seconds=30)
    seats = InventoryService(databases)
    publisher = Publisher(broker.settings, "test")
    publisher.start()
    wait_until(publisher.is_ready, seconds=30)
    try:
        held = [_reserve_at(replicas[n % 2], seats.new_seat()) for n in range(6)]
        for seat_id, hold_id in held[:4]:  # the sweepers find the two without a message
            body = json_codec.encode(
                {"seat_id": seat_id, "order_id": hold_id, "user_id": new_id(), "reserved_at": "now"}
            )
            publisher.publish("seat.hold.exchange", "seat.hold", body, message_id=new_id(), expiration_ms=1100)
        wait_until(lambda: all(seats.seat(seat_id).status == "AVAILABLE" for seat_id, _ in held), seconds=30)
        assert {read_caller(request) for request in order.requests} <= {"inventory-service"}
        paths = [request.path for request in order.requests]
        assert set(paths) <= {f"/orders/{hold_id}/expire" for _, hold_id in held[:4]}
        assert len(paths) == len(set(paths))
    finally:
        publisher.stop()
        seats.close()
    for replica in replicas:
        output = replica.end()
        assert replica.child.returncode == 0, output
        lines = [json.loads(line) for line in output.splitlines()]
        assert not [line for line in lines if line["level"] in ("ERROR", "CRITICAL")]


def _reserve_at(replica: Process, seat_id: str) -> tuple[str, str]:
    peer = GrpcPeer("Inventory", make_credential("orchestrator-service", "inventory-service"))
    hold_id = new_id()
    with open_channel(f"127.0.0.1:{replica.grpc}") as connection:
        stub = InventoryStub(connection)  # type: ignore[no-untyped-call]
        request = pb.ReserveSeatRequest(seat_id=seat_id, user_id=new_id(), hold_id=hold_id, ttl_seconds=1)
        hold = peer.call(stub.ReserveSeat, request)
    assert UUID(hold.hold_id) == UUID(hold_id)
    return seat_id, hold_id


def test_missing_setting_prevents_the_start_with_one_line():
    bare = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", "services.inventory.main"], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.strip().startswith("configuration: ")
    assert len(done.stderr.strip().splitlines()) == 1
