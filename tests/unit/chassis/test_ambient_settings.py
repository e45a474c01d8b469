"""Calls between services use their own settings alone: no proxy, no libpq variable, no `.netrc`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.chassis.clients import HttpPeer, open_channel
from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings
from services.contracts.pb import inventory_pb2
from services.inventory.grpc_server import GrpcServer
from services.user.outside import is_internal, open_session
from tests.support.http_servers import AnsweringServer
from tests.support.service_settings import make_credential

pytestmark = pytest.mark.unit

NOWHERE = "http://127.0.0.1:1"
SERVICE = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
LIBPQ = {
    "PGHOSTADDR": "127.0.0.2",
    "PGSERVICE": "no-such-service",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c lock_timeout=1",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGREQUIREAUTH": "none",
    "PGPASSFILE": "/nonexistent",
}


@pytest.fixture(autouse=True)
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that names a proxy leads to a closed port, and no variable excludes an address."""
    for name in PROXIES:
        monkeypatch.setenv(name, NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    """A server that answers every request with an envelope."""
    with AnsweringServer() as answering:
        yield answering


def test_grpc_calls_ignore_the_proxy_of_the_environment() -> None:
    server = GrpcServer("127.0.0.1:0", lambda _server: None, SERVICE, 2)
    server.start()
    try:
        with closing(open_channel(f"127.0.0.1:{server.port}")) as channel:
            status = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"", timeout=5)
    finally:
        server.stop()
    assert status == b"\x08\x01"  # SERVING


def test_http_calls_ignore_the_proxy_of_the_environment(server: AnsweringServer) -> None:
    peer = HttpPeer("Order", server.origin, make_credential("event-service", "order-service"))
    assert peer.get("/orders/1") == {}


@pytest.mark.parametrize("variable", LIBPQ)
def test_database_ignores_the_variables_of_libpq(
    variable: str, database_for: Callable[[str], DatabaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = database_for("order")
    monkeypatch.setenv(variable, LIBPQ[variable])
    with closing(Database(settings)) as db:
        assert db.statement("SELECT current_setting('lock_timeout') AS it") == {"it": "1s"}


def test_fake_next_to_the_service_is_called_without_proxy_and_netrc(
    server: AnsweringServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login robot password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with open_session(server.origin) as session:
        answer = session.post(f"{server.origin}/SendSMS", headers={"Authorization": "Bearer key"}, timeout=(30, 30))
    assert (answer.status_code, server.requests[-1].headers["Authorization"]) == (200, "Bearer key")


def test_address_outside_is_called_through_the_proxy() -> None:
    with open_session("https://api.stripe.com") as session:
        assert session.proxies["https"] == NOWHERE
        assert not session.trust_env


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://fake-smu:6001", True),
        ("http://fake-smu.shop.svc.cluster.local:6001", True),
        ("http://localhost:6001", True),
        ("http://[::1]:6001", True),
        ("http://10.1.2.3:6001", True),
        ("http://127.0.0.1:6001", True),
        ("https://api.stripe.com", False),
        ("https://8.8.8.8", False),
        ("http://smu.example.org", False),
    ],
)
def test_internal_addresses_are_on_the_machine_or_in_the_cluster(url: str, expected: bool) -> None:
    assert is_internal(url) is expected
