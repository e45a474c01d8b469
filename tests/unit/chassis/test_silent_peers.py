"""A peer that is silent, without FIN or RST: a call in progress ends in time, and the next one gets to a new peer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pika
import pytest
import requests

from services.chassis import broker as broker_module
from services.chassis import clients, db, http_transport
from services.chassis.broker import Publisher, connection_parameters
from services.chassis.clients import HttpPeer
from services.chassis.db import Database, LockNotGranted
from services.chassis.deadlines import Deadline
from services.chassis.errors import NoAnswer, NotSent, Unknown
from services.chassis.http_transport import PooledTransport, _Connection
from services.chassis.kernel_limits import SOCKET_OPTIONS, TCP_LIMITS
from services.chassis.settings import Address, BrokerSettings, DatabaseSettings
from services.user import outside
from services.user.outside import open_session
from services.user.smu import Smu
from tests.support.brokers import Broker
from tests.support.http_servers import AnsweringServer, Request, answer_success
from tests.support.service_settings import make_credential
from tests.support.silent_proxy import SilentProxy, connect_unix
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

BOUND = 5.0  # seconds, on a busy machine
ONE = {"one": 1}


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


# ── PostgreSQL


@pytest.fixture
def node(database_for: Callable[[str], DatabaseSettings]) -> Iterator[tuple[SilentProxy, DatabaseSettings]]:
    """A node of PostgreSQL that can become silent, and settings with a short statement timeout."""
    direct = database_for("order")
    (unix,) = direct.addresses
    with SilentProxy(partial(connect_unix, f"{unix.host}/.s.PGSQL.{unix.port}")) as proxy:
        yield (
            proxy,
            replace(direct, addresses=(Address("127.0.0.1", proxy.port),), pool_size=3, statement_timeout_ms=300),
        )


def test_statement_on_a_silent_node_ends_and_the_pool_recovers(
    node: tuple[SilentProxy, DatabaseSettings],
) -> None:
    proxy, settings = node
    with closing(Database(settings)) as database, ThreadPoolExecutor(3) as pool:
        calls = [partial(database.statement, "SELECT 1 AS one, pg_sleep(0.05)")] * 3
        assert len([future.result() for future in [pool.submit(call) for call in calls]]) == 3
        proxy.silence()
        with at_most(BOUND):
            for future in [pool.submit(call) for call in calls]:
                assert isinstance(future.exception(), NoAnswer)
        proxy.take_over()
        wait_until(database.is_ready, BOUND)
        assert database.statement("SELECT 1 AS one") == ONE


def commit_after(database: Database, happens: Callable[[], object]) -> None:
    """Let something happen between the statement and the commit of a transaction."""
    with database.transaction() as tx:
        assert tx.one("SELECT 1 AS one") == ONE
        happens()


def test_transaction_and_commit_on_a_silent_node_end(node: tuple[SilentProxy, DatabaseSettings]) -> None:
    proxy, settings = node
    with closing(Database(settings)) as database:
        with at_most(BOUND), pytest.raises(NoAnswer):
            commit_after(database, proxy.silence)
        with at_most(BOUND), pytest.raises(Unknown):
            commit_after(database, proxy.silence)


def test_connect_to_a_silent_node_ends(node: tuple[SilentProxy, DatabaseSettings]) -> None:
    proxy, settings = node
    proxy.silence()
    with closing(Database(settings)) as database, at_most(BOUND), pytest.raises(NotSent):
        database.statement("SELECT 1")


def test_kernel_ends_connections_to_a_node_that_is_gone(node: tuple[SilentProxy, DatabaseSettings]) -> None:
    _, settings = node
    with (
        closing(db._open_session(settings, settings.addresses)) as connection,
        socket.socket(fileno=connection.fileno()) as sock,
    ):
        assert_kernel_ends_it(sock)
        sock.detach()


def test_server_frees_the_rows_of_a_client_that_is_gone(database_for: Callable[[str], DatabaseSettings]) -> None:
    """A client that is frozen or cut off sends neither a statement nor a FIN."""
    settings = replace(database_for("order"), statement_timeout_ms=2000)
    insert = "INSERT INTO effects (key, outcome) VALUES ('silent:row', 'DONE')"
    lock = "SELECT key FROM effects WHERE key = 'silent:row' FOR UPDATE NOWAIT"
    with closing(Database(settings)) as frozen, closing(Database(settings)) as other:
        other.statement(insert)

        def is_free() -> bool:
            try:
                with other.transaction() as tx:
                    return tx.one(lock) is not None
            except LockNotGranted:
                return False

        def lose_the_row() -> None:
            with frozen.transaction() as tx:
                tx.one(lock)
                assert not is_free()
                wait_until(is_free, BOUND, "the server frees the row")

        with pytest.raises(Unknown):
            lose_the_row()
        assert frozen.statement("SELECT 1 AS one") == ONE


def test_server_ends_the_session_of_a_client_that_is_gone(database_for: Callable[[str], DatabaseSettings]) -> None:
    """On a Unix socket the settings have no effect, so this reads the values that the client sent."""
    names = ("idle", "interval", "count")
    with closing(Database(database_for("order"))) as database:
        rows = database.rows("SELECT name, reset_val::int AS value FROM pg_settings WHERE name LIKE 'tcp%%'")
    values = {row["name"]: row["value"] for row in rows}
    idle, interval, count = (values[f"tcp_keepalives_{name}"] for name in names)
    assert 0 < idle + interval * count <= BOUND
    assert 0 < values["tcp_user_timeout"] <= BOUND * 1000


def test_closed_connection_can_be_shut_down(database_for: Callable[[str], DatabaseSettings]) -> None:
    """Another thread may close it just before its deadline."""
    settings = database_for("order")
    connection = db._open_session(settings, settings.addresses)
    connection.close()
    connection.shut_down()


class StubbornConnection:
    """A connection whose shutdown fails."""

    def __init__(self) -> None:
        self.calls = 0

    def shut_down(self) -> None:
        """Fail."""
        self.calls += 1
        raise RuntimeError("it cannot be shut down")


def test_connection_that_cannot_be_shut_down_stops_no_deadline() -> None:
    first, second = StubbornConnection(), StubbornConnection()
    with Deadline(first, 0):
        wait_until(lambda: first.calls, BOUND)
    with Deadline(second, 0):
        wait_until(lambda: second.calls, BOUND)


def test_server_ends_its_statement_before_the_client_gives_up(
    database_for: Callable[[str], DatabaseSettings],
) -> None:
    with closing(Database(replace(database_for("order"), statement_timeout_ms=200))) as database:
        with pytest.raises(Unknown) as caught:
            database.statement("SELECT pg_sleep(5)")
        assert not isinstance(caught.value, NoAnswer)
        assert database.statement("SELECT 1 AS one") == ONE


# ── HTTP


def assert_kernel_ends_it(sock: socket.socket) -> None:
    idle, interval, count, user = (sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in TCP_LIMITS)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert 0 < idle + interval * count <= BOUND
    assert 0 < user <= BOUND * 1000


def test_kernel_ends_connections_to_an_api_outside_that_is_gone() -> None:
    """A firewall on the way may forget an idle connection without a sign."""
    with AnsweringServer() as server, open_session(server.origin) as session:
        session.get(server.origin, timeout=(BOUND, BOUND))
        assert_kernel_ends_it(outside._call.connection.sock)
        through_proxy = outside.Adapter().proxy_manager_for("http://127.0.0.1:1")
    assert set(SOCKET_OPTIONS) <= set(through_proxy.connection_pool_kw["socket_options"])


def test_kernel_ends_connections_to_a_service_that_is_gone() -> None:
    with AnsweringServer() as server:
        connection = http_transport._connect(f"127.0.0.1:{server.port}", BOUND)
        with closing(connection):
            assert_kernel_ends_it(connection._socket)


def peer_of(proxy: SilentProxy) -> HttpPeer:
    return HttpPeer("Order", f"http://127.0.0.1:{proxy.port}", make_credential("event-service", "order-service"))


def test_http_call_to_a_silent_service_ends_and_the_pool_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3)

    def answer_together(request: Request) -> tuple[int, bytes]:
        if proxy.accepted <= 3:  # the first three requests
            together.wait()
        return answer_success(request)

    with AnsweringServer(answer_together) as server:
        address = ("127.0.0.1", server.port)
        with SilentProxy(lambda: socket.create_connection(address)) as proxy, ThreadPoolExecutor(3) as pool:
            peer = peer_of(proxy)
            calls = [pool.submit(peer.get, "/orders/1") for _ in range(3)]
            assert [call.result() for call in calls] == [{}] * 3, "three connections are idle"
            monkeypatch.setattr(clients, "CALL_SECONDS", 0.3)
            proxy.silence()
            with at_most(BOUND), pytest.raises(NoAnswer):
                peer.get("/orders/1")
            proxy.take_over()
            monkeypatch.setattr(clients, "CALL_SECONDS", BOUND)
            assert peer.get("/orders/1") == {}


class DrippingServer:
    """Sends an answer byte by byte, each within the timeout of one read, and never ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> DrippingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
                while not self._is_over.wait(0.05):
                    client.sendall(b"x")


def test_http_answer_byte_by_byte_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Connection, "_set_limit", lambda *_: None)  # the limit of one read
    with DrippingServer() as server, at_most(BOUND), pytest.raises(TimeoutError):
        PooledTransport()("GET", f"{server.origin}/x", None, {}, 0.5)


def test_answer_of_smu_byte_by_byte_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.user.smu.TIMEOUT", (0.2, 0.3))
    with DrippingServer() as server, at_most(BOUND), pytest.raises(NoAnswer):
        Smu(server.origin, "key").send_sms("+6581234567", "hello")


def test_body_of_stripe_byte_by_byte_ends_in_time() -> None:
    timed_out = pytest.raises(requests.ReadTimeout)
    with DrippingServer() as server, open_session(server.origin) as session, at_most(BOUND), timed_out:
        session.get(f"{server.origin}/v1/payment_intents", timeout=(0.2, 0.3))


def test_reset_after_the_deadline_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    is_shut_down = threading.Event()
    connection = SimpleNamespace(sock=SimpleNamespace(shutdown=lambda _: is_shut_down.set()))

    def lose_connection(*_: object, **__: object) -> None:
        outside._call.connection = connection
        assert is_shut_down.wait(BOUND)
        raise requests.exceptions.ChunkedEncodingError("reset by peer")

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lose_connection)
    with open_session("http://127.0.0.1") as session, pytest.raises(requests.ReadTimeout):
        session.get("http://127.0.0.1/v1/payment_intents", timeout=(0.2, 0.3))


# ── RabbitMQ


@pytest.fixture
def node_of_broker(broker: Broker) -> Iterator[tuple[SilentProxy, Publisher]]:
    """A node of RabbitMQ that can become silent, and a publisher with a connection to it."""
    with SilentProxy(lambda: socket.create_connection(broker.settings.addresses[0])) as proxy:
        publisher = Publisher(replace(broker.settings, addresses=(Address("127.0.0.1", proxy.port),)), "test")
        publisher.start()
        wait_until(publisher.is_ready)
        yield proxy, publisher
        publisher.stop()


def test_publish_to_a_silent_broker_ends_and_the_next_connects(
    node_of_broker: tuple[SilentProxy, Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "CONFIRM_SECONDS", 0.5)
    proxy, publisher = node_of_broker
    proxy.silence()
    with at_most(BOUND), pytest.raises(NoAnswer):
        publisher.publish("", "seat.release.parking.queue", b"{}", message_id="m", timeout=0.3)
    proxy.take_over()
    accepted = proxy.accepted
    wait_until(lambda: proxy.accepted > accepted and publisher.is_ready(), BOUND)
    publisher.publish("", "seat.release.parking.queue", b"{}", message_id="m")


def test_connections_to_the_broker_have_bounds() -> None:
    parameters = next(connection_parameters(BrokerSettings((Address("h", 1),), "u", "p"), "test"))
    assert 0 < parameters.heartbeat <= BOUND
    assert 0 < parameters.socket_timeout <= BOUND
    assert 0 < parameters.stack_timeout <= BOUND
    assert parameters.tcp_options["TCP_USER_TIMEOUT"] <= BOUND * 1000
    assert isinstance(parameters, pika.ConnectionParameters)
