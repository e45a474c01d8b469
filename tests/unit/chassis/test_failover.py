"""The database fails over: the pool leaves a server that accepts no writes, and finds the one that does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from services.chassis import db
from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.chassis.settings import Address, DatabaseSettings
from tests.support.database_nodes import Node
from tests.support.silent_proxy import SilentProxy, connect_unix
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

BOUND = 10.0  # seconds, on a busy machine
CONNECT_SECONDS = 2
TABLE = "CREATE TABLE written (key text PRIMARY KEY)"
WRITE = "INSERT INTO written VALUES (%(key)s) RETURNING key"
COUNT = "SELECT count(*) AS number FROM written"
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = '{}'"


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    """A server that accepts writes and has the table `written`. Tests share it."""
    with closing(Node()) as node:
        node.execute(TABLE)
        yield node


@pytest.fixture
def changing_server(server: Node) -> Iterator[Node]:
    """The server, which accepts writes again after the test."""
    yield server
    set_read_only(server, "off")


@pytest.fixture
def leader() -> Iterator[Node]:
    """A server of this test alone, which can lose its role."""
    with closing(Node()) as node:
        node.execute(TABLE)
        yield node


@pytest.fixture
def standby(leader: Node) -> Iterator[Node]:
    """A standby of `leader`."""
    with closing(Node(leader)) as node:
        yield node


def settings_of(*addresses: Address) -> DatabaseSettings:
    return DatabaseSettings(addresses, "postgres", "postgres", "", pool_size=4, statement_timeout_ms=500)


def set_read_only(node: Node, value: str) -> None:
    """Change what the server allows, and wait until a new session notices it."""
    node.execute(READ_ONLY.format(value))
    node.execute("SELECT pg_reload_conf()")
    wait_until(lambda: node.execute("SHOW default_transaction_read_only") == [(value,)])


class Writer:
    """A thread that writes one row after another. It allows no exception but Unknown."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[str] = []
        self.wrong: list[Exception] = []

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def write_more(self) -> None:
        """Wait until another row is acknowledged."""
        before = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > before, BOUND, "a row is written")

    def _run(self) -> None:
        number = 0
        while not self._is_over.wait(0.01):
            number += 1
            try:
                with self._database.transaction() as tx:
                    tx.one(WRITE, key=str(number))
                self.acknowledged.append(str(number))
            except Unknown:
                continue
            except Exception as error:
                self.wrong.append(error)


@pytest.mark.parametrize("is_standby_first", [False, True])
def test_writes_go_on_after_a_switchover_without_a_restart(leader: Node, standby: Node, is_standby_first: bool) -> None:
    addresses = [leader.address, standby.address]
    settings = settings_of(*(reversed(addresses) if is_standby_first else addresses))
    with closing(Database(settings)) as database:
        with Writer(database) as writer:
            writer.write_more()
            leader.stop()
            standby.promote()
            writer.write_more()
            leader.demote(standby)
            writer.write_more()
        assert writer.wrong == []
        assert database.statement("SELECT pg_is_in_recovery() AS it") == {"it": False}
        number = database.statement(COUNT)
        assert number is not None
        assert number["number"] >= len(writer.acknowledged)


def test_standby_alone_is_unreachable(leader: Node, standby: Node) -> None:
    with closing(Database(settings_of(standby.address))) as database:
        with pytest.raises(Unknown, match="cannot be reached"):
            database.statement("SELECT 1 AS one")
        assert not database.is_ready()


def open_three(database: Database) -> None:
    """Leave three idle connections in the pool."""
    with database.transaction() as one, database.transaction() as two, database.transaction() as three:
        for tx in (one, two, three):
            tx.one("SELECT 1")


def write_alone(database: Database) -> Any:
    return database.statement(WRITE, key=str(uuid4()))


def write_in_transaction(database: Database) -> Any:
    with database.transaction() as tx:
        return tx.one(WRITE, key=str(uuid4()))


@pytest.mark.parametrize("write", [write_alone, write_in_transaction])
def test_write_at_a_server_that_became_read_only_is_unknown(
    changing_server: Node, write: Callable[[Database], Any]
) -> None:
    """The sessions live on, as after a demotion without a restart. The caller retries with its key."""
    with closing(Database(settings_of(changing_server.address))) as database:
        open_three(database)
        set_read_only(changing_server, "on")
        with pytest.raises(Unknown, match="accepts no writes"):
            write(database)
        assert not database._idle, "the other connections are closed too"
        with pytest.raises(Unknown, match="cannot be reached"):
            write(database)
        set_read_only(changing_server, "off")
        assert wait_until(lambda: write_or_none(database, write), BOUND)


def write_or_none(database: Database, write: Callable[[Database], Any]) -> Any:
    try:
        return write(database)
    except Unknown:
        return None


def test_read_at_a_server_that_became_read_only_is_the_last_one(changing_server: Node) -> None:
    with closing(Database(settings_of(changing_server.address))) as database:
        open_three(database)
        set_read_only(changing_server, "on")
        assert database.statement("SELECT 1 AS one") == {"one": 1}
        assert not database._idle
        with pytest.raises(Unknown, match="cannot be reached"):
            database.statement("SELECT 1 AS one")


def test_silent_first_node_delays_only_the_first_connection(server: Node) -> None:
    with SilentProxy(partial(connect_unix, f"{server.address.host}/.s.PGSQL.5432")) as proxy:
        proxy.silence()
        silent = Address("127.0.0.1", proxy.port)
        with closing(Database(settings_of(silent, server.address))) as database:
            started = time.monotonic()
            database.statement("SELECT 1 AS one")
            assert CONNECT_SECONDS - 0.5 < time.monotonic() - started < BOUND
            with ExitStack() as opened:
                for _ in range(4):
                    opened.enter_context(database.transaction()).one("SELECT 1")
            assert proxy.accepted == 1


def test_node_whose_connection_broke_is_tried_last(server: Node) -> None:
    """An old leader without its Patroni still accepts connections, but its writes get no answer."""
    first, second = (SilentProxy(partial(connect_unix, f"{server.address.host}/.s.PGSQL.5432")) for _ in range(2))
    with first, second:
        addresses = (Address("127.0.0.1", proxy.port) for proxy in (first, second))
        with closing(Database(settings_of(*addresses))) as database:
            database.statement("SELECT 1 AS one")
            first.silence()
            with pytest.raises(Unknown, match="did not answer in time"):
                write_alone(database)
            first.take_over()
            wait_until(lambda: write_or_none(database, write_in_transaction), BOUND)
            assert (first.accepted, second.accepted) == (1, 1)


def test_old_leader_that_does_not_notice_is_left_by_reads_too(
    leader: Node, standby: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Patroni is dead, so it still accepts reads and writes, but no standby confirms its commits."""
    monkeypatch.setattr(db, "PROOF_SECONDS", 0.3)
    with closing(Database(settings_of(leader.address, standby.address))) as database:
        assert database.statement(COUNT) == {"number": 0}
        standby.promote()
        leader.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        leader.execute("SELECT pg_reload_conf()")
        wait_until(lambda: leader.execute("SHOW synchronous_standby_names") == [("gone",)])
        wait_until(lambda: standby.execute("SELECT pg_is_in_recovery()") == [(False,)])
        standby.execute("INSERT INTO written VALUES ('new')")
        time.sleep(0.3)  # the time for which a proof is valid
        found = [read_or_none(database) for _ in range(3)]
        assert {"number": 0} not in found
        assert wait_until(lambda: read_or_none(database), BOUND) == {"number": 1}


def read_or_none(database: Database) -> Any:
    try:
        return database.statement(COUNT)
    except Unknown:
        return None


@pytest.mark.parametrize(("nodes", "standbys", "proofs"), [(1, 0, 0), (2, 0, 1), (1, 2, 1)])
def test_only_a_cluster_commits_before_reads(
    database_for: Callable[[str], DatabaseSettings],
    nodes: int,
    standbys: int,
    proofs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The role of a service may do so. An operator of Kubernetes has one address for all nodes."""
    sent: list[str] = []
    execute = db._Connection.execute

    def record(connection: db._Connection, sql: str, params: dict[str, Any] | None = None) -> Any:
        sent.append(sql)
        return execute(connection, sql, params)

    monkeypatch.setattr(db._Connection, "execute", record)
    monkeypatch.setattr(db, "PROOF_SECONDS", 60)
    settings = database_for("order")
    with closing(Database(replace(settings, addresses=settings.addresses * nodes, standbys=standbys))) as database:
        for _ in range(5):
            database.statement("SELECT 1 AS one")
    assert sent.count(db._PROOF) == proofs


def test_every_node_silent_ends_in_time(server: Node) -> None:
    with SilentProxy(partial(connect_unix, f"{server.address.host}/.s.PGSQL.5432")) as proxy:
        proxy.silence()
        with closing(Database(settings_of(*[Address("127.0.0.1", proxy.port)] * 2))) as database:
            started = time.monotonic()
            with pytest.raises(Unknown, match="cannot be reached"):
                database.statement("SELECT 1 AS one")
            assert time.monotonic() - started < BOUND


def test_dead_first_node_costs_nothing(server: Node) -> None:
    with closing(Database(settings_of(Address("127.0.0.1", 1), server.address))) as database:
        started = time.monotonic()
        assert database.statement("SELECT 1 AS one") == {"one": 1}
        assert time.monotonic() - started < CONNECT_SECONDS
