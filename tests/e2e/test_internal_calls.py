"""gRPC methods need a credential of their caller (D32). `tests/abuse` has the HTTP operations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import psycopg2
import pytest

from services.contracts.pb import inventory_pb2
from tests.support import endpoints
from tests.support.endpoints import CALLERS
from tests.support.people import credential, token
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

SIGNERS = frozenset(CALLERS) - {"user-service"}  # User's key signs user tokens, and User calls no other service
STRANGERS = ("api-gateway", "fake-smu", "unknown", "")
DATABASES = ("seats_db", "users_db", "orders_db", "events_db", "sagas_db")


def read_key(system: TestSystem, service: str) -> str:
    """Read the private key of a service. A stranger has none, so it uses the key of Order."""
    return system.env(service if service in CALLERS else "order-service")["PRIVATE_KEY"]


def make_wrong_tokens(system: TestSystem, called: str) -> dict[str, str]:
    """Make tokens that are not a valid credential of a service."""
    key, caller = read_key(system, "orchestrator-service"), "orchestrator-service"
    another = next(name for name in CALLERS if name != called)
    return {
        "a user's token": str(system.person().token),
        "a staff member's": str(system.staff().token),
        "signed with User's key": credential(read_key(system, "user-service"), caller, called),
        "signed with Order's key": credential(read_key(system, "order-service"), caller, called),
        "for another service": credential(key, caller, another),
        "of another issuer": credential(key, caller, called, iss="another"),
        "expired": credential(key, caller, called, exp=1_700_000_000),
        "for longer than five minutes": credential(key, caller, called, exp=int(time.time()) + 3600),
        "a user token signed with a service's key": token(key, system.person().user_id, "staff"),
        "garbage": "garbage",
    }


@pytest.fixture(scope="module")
def channel(system: TestSystem) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(system.stack.address("inventory-service", 50051)) as opened:
        yield opened


def call_method(channel: grpc.Channel, method: str, bearer: str | None) -> Any:
    """Call a method with an empty request and return the status."""
    described = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"].methods_by_name[method]
    path = f"/{described.containing_service.full_name}/{method}"
    call: Any = channel.unary_unary(path, bytes, bytes)  # bytes are sent as they are
    try:
        call(b"", metadata=() if bearer is None else (("authorization", f"Bearer {bearer}"),), timeout=5)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(("method", "callers"), endpoints.rpcs().items())
def test_a_grpc_method_opens_only_to_its_callers(
    system: TestSystem, channel: grpc.Channel, method: str, callers: tuple[str, ...]
) -> None:
    called = "inventory-service"
    for text in (None, *make_wrong_tokens(system, called).values()):
        assert call_method(channel, method, text) is grpc.StatusCode.UNAUTHENTICATED
    for caller in (*CALLERS, *STRANGERS):
        code = call_method(channel, method, credential(read_key(system, caller), caller, called))
        assert (code is grpc.StatusCode.UNAUTHENTICATED) == (caller not in SIGNERS), (caller, code)
        assert (code is grpc.StatusCode.PERMISSION_DENIED) == (caller in SIGNERS and caller not in callers), caller


@pytest.mark.claim("architecture/database-per-service", "schema/database-per-service")
@pytest.mark.parametrize("database", DATABASES)
def test_no_database_role_opens_another_database(system: TestSystem, database: str) -> None:
    own = system.stack.dsn(database)
    psycopg2.connect(own).close()
    role, _, _ = own.rpartition("@")
    for other in set(DATABASES) - {database}:
        _, _, place = system.stack.dsn(other).rpartition("@")
        with pytest.raises(psycopg2.OperationalError, match=r"permission denied for database|authentication failed"):
            psycopg2.connect(f"{role}@{place}")


@pytest.mark.parametrize("service", CALLERS)
def test_health_and_metrics_need_no_token(system: TestSystem, service: str) -> None:
    visitor = system.visitor(system.stack.url(service))
    ready, live, metrics = (visitor.get(path) for path in ("/health", "/health/live", "/metrics"))
    assert (ready.status, live.status, metrics.status) == (200, 200, 200)
    assert ready.envelope["service"] == live.envelope["service"] == service
    assert ready.envelope["checks"]["database"] == "ok"
    assert {"status", "service", "timestamp", "checks"} <= ready.envelope.keys()
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert b"http_requests_total" in metrics.body
