"""The connection pool and transactions: failures leave no transaction open, and the pool reconnects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

from services.chassis import db as db_module
from services.chassis.db import (
    _IS_READY,
    Database,
    DatabaseFault,
    LockNotGranted,
    Transaction,
    UniqueViolation,
    _Connection,
)
from services.chassis.errors import Unknown
from services.chassis.settings import DatabaseSettings
from tests.support.databases import Databases

pytestmark = pytest.mark.unit

RECORD = "INSERT INTO effects (key, outcome) VALUES (%(key)s, 'DONE') RETURNING key"
FIND = "SELECT key FROM effects WHERE key = %(key)s"


@pytest.fixture
def db(database_for: Callable[[str], DatabaseSettings]) -> Iterator[Database]:
    """Order's database with a pool of one connection, so that an open transaction blocks the next one."""
    database = Database(replace(database_for("order"), pool_size=1, lock_timeout_ms=200))
    yield database
    database.close()


def record_then_fail(db: Database, key: str) -> float:
    """A transaction whose caller fails after a write."""
    with db.transaction() as tx:
        return tx.run(RECORD, key=key) / 0


def record_twice(db: Database, key: str) -> None:
    """A transaction that PostgreSQL refuses at its second statement."""
    with db.transaction() as tx:
        tx.run(RECORD, key=key)
        tx.run(RECORD, key=key)


def test_a_transaction_commits_completely_or_not_at_all(db: Database) -> None:
    with db.transaction() as tx:
        assert tx.only(RECORD, key="db:whole") == {"key": "db:whole"}
    with pytest.raises(ZeroDivisionError):
        record_then_fail(db, "db:nothing")
    with db.transaction() as tx:
        assert [row["key"] for row in tx.all("SELECT key FROM effects WHERE key LIKE 'db:%%'")] == ["db:whole"]


def test_no_transaction_is_open_after_a_refused_statement(db: Database) -> None:
    with pytest.raises(UniqueViolation, match="effects_pkey"):
        record_twice(db, "db:twice")
    db.statement(RECORD, key="db:alone")
    with pytest.raises(UniqueViolation):
        db.statement(RECORD, key="db:alone")
    assert db.statement(FIND, key="db:twice") is None
    assert db.statement(FIND, key="db:alone") == {"key": "db:alone"}
    assert db.statement("SELECT pg_current_xact_id_if_assigned() IS NULL AS none_is_open") == {"none_is_open": True}


def test_a_lock_timeout_leaves_the_connection_usable(db: Database, databases: Databases) -> None:
    db.statement(RECORD, key="db:locked")
    holder = databases.superuser("order")
    with holder.cursor() as cursor:
        cursor.execute("BEGIN; SELECT FROM effects WHERE key = 'db:locked' FOR UPDATE")
        with pytest.raises(LockNotGranted), db.transaction() as tx:
            tx.one(FIND + " FOR UPDATE", key="db:locked")
        assert db.statement(FIND, key="db:locked") is not None
    holder.close()


def end_connections(databases: Databases) -> None:
    """End every connection of Order, as a restart of PostgreSQL does, and wait until they are gone."""
    with closing(databases.superuser("order")) as superuser, superuser.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'order_svc_user'")


@pytest.mark.parametrize("call", ["statement", "read", "transaction", "write"])
def test_first_call_after_a_restart_of_the_database_succeeds(
    db: Database, databases: Databases, call: str, request: pytest.FixtureRequest
) -> None:
    key = f"db:{request.node.name}"
    calls: dict[str, Callable[[], Any]] = {
        "statement": lambda: db.statement("SELECT 1 AS one"),
        "read": lambda: db.read(lambda tx: tx.one("SELECT 1 AS one")),
        "transaction": lambda: record(db, key),
        "write": lambda: db.statement(RECORD, key=key),
    }
    assert db.is_ready()
    end_connections(databases)
    assert calls[call]() in ({"one": 1}, {"key": key})


def record(db: Database, key: str) -> Any:
    with db.transaction() as tx:
        return tx.one(RECORD, key=key)


class Interrupted:
    """Reads whose connection ends while they run. `runs` counts the tries."""

    def __init__(self, db: Database, databases: Databases) -> None:
        self._db = db
        self._databases = databases
        self.runs = 0

    def read(self, tx: Transaction) -> Any:
        found = tx.one("SELECT 1 AS one")
        self.runs += 1
        if self.runs == 1:
            end_connections(self._databases)
        tx.one("SELECT 2")
        return found


def test_no_server_after_a_dead_connection_is_unknown(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise psycopg2.OperationalError("connection refused")

    db.statement("SELECT 1 AS one")
    monkeypatch.setattr(db_module._Connection, "is_usable", lambda _connection: False)
    monkeypatch.setattr(db_module, "_open_session", refuse)
    with pytest.raises(Unknown, match="the database cannot be reached"):
        db.statement("SELECT 1 AS one")


def test_read_is_repeated_once_when_its_connection_breaks(
    db: Database, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_module, "_REPEAT_SECONDS", 60.0)
    interrupted = Interrupted(db, databases)
    assert db.read(interrupted.read) == {"one": 1}
    assert interrupted.runs == 2


def test_select_is_repeated_once_when_its_connection_breaks(
    db: Database, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the idle connection sees nothing, as after a failover without a FIN."""
    monkeypatch.setattr(db_module, "_REPEAT_SECONDS", 60.0)
    monkeypatch.setattr(_Connection, "is_usable", lambda _: True)
    assert db.is_ready()
    end_connections(databases)
    assert db.statement("SELECT 1 AS one") == {"one": 1}


@pytest.mark.parametrize("write", [record, lambda db, key: db.statement(RECORD, key=key)], ids=["transaction", "one"])
def test_write_is_never_repeated(
    db: Database, databases: Databases, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Any]
) -> None:
    """It may have happened, so only its caller may repeat it with its key."""
    monkeypatch.setattr(db_module, "_REPEAT_SECONDS", 60.0)
    monkeypatch.setattr(_Connection, "is_usable", lambda _: True)
    assert db.is_ready()
    end_connections(databases)
    with pytest.raises(Unknown, match="closed the connection"):
        write(db, "db:interrupted")
    assert db.statement(FIND, key="db:interrupted") is None


def test_change_of_the_schema_fails_no_statement(db: Database) -> None:
    """PostgreSQL refuses a prepared statement whose result has other columns now."""
    insert = "INSERT INTO changing VALUES (1) RETURNING *"
    with db.transaction() as tx:
        tx.run("CREATE TABLE changing (one int)")
    try:
        assert db.statement(insert) == {"one": 1}
        with db.transaction() as tx:
            tx.run("ALTER TABLE changing ADD COLUMN two int")
        assert db.statement(insert) == {"one": 1, "two": None}
        assert db.rows("SELECT one FROM changing") == [{"one": 1}] * 2
    finally:
        with db.transaction() as tx:
            tx.run("DROP TABLE changing")


def test_read_can_change_nothing(db: Database) -> None:
    with pytest.raises(DatabaseFault, match="read-only"):
        db.read(lambda tx: tx.one(RECORD, key="db:read"))


@pytest.mark.parametrize("code", ["53100", "53200", "58030"], ids=["disk full", "out of memory", "I/O error"])
def test_trouble_of_the_server_is_unknown(db: Database, code: str) -> None:
    """A retry can succeed once the disk has space again. It is not a bug of the service."""
    with pytest.raises(Unknown), db.transaction() as tx:
        tx.run(f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END $$")
    assert db.is_ready()


def test_all_closed_connections_are_replaced_at_once(
    database_for: Callable[[str], DatabaseSettings], databases: Databases
) -> None:
    db = Database(replace(database_for("order"), pool_size=3))
    with db.transaction() as one, db.transaction() as other:
        assert one.one("SELECT 1") == other.one("SELECT 1")
    end_connections(databases)
    with db.transaction() as one, db.transaction() as other:
        assert one.one("SELECT 1") == other.one("SELECT 1")
    db.close()


def test_a_call_without_a_free_connection_is_unknown(db: Database) -> None:
    with db.transaction() as tx:
        tx.one("SELECT 1")
        with pytest.raises(Unknown, match="busy"):
            db.statement("SELECT 1")
    assert db.is_ready()


def test_a_database_with_half_of_its_schema_is_not_ready(db: Database) -> None:
    assert db.is_ready()
    with db.transaction() as tx:
        tx.run("DROP SCHEMA init_complete")
        try:
            assert tx.one(_IS_READY) is None
        finally:
            tx.run("CREATE SCHEMA init_complete")


def test_a_database_without_its_schema_is_not_ready(
    database_for: Callable[[str], DatabaseSettings],
) -> None:
    db = Database(replace(database_for("order"), name="postgres"))
    assert not db.is_ready()
    db.close()
