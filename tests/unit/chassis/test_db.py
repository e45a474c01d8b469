"""The connection pool and transactions: failures leave no transaction open, and the pool reconnects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from services.chassis.db import Database, LockNotGranted, UniqueViolation
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


def test_closed_connections_cost_one_unknown_and_are_replaced(
    database_for: Callable[[str], DatabaseSettings], databases: Databases
) -> None:
    db = Database(replace(database_for("order"), pool_size=3))
    with db.transaction() as one, db.transaction() as other:
        assert one.one("SELECT 1") == other.one("SELECT 1")
    with databases.superuser("order") as superuser, superuser.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'order_svc_user'")
    superuser.close()
    with pytest.raises(Unknown):
        db.statement("SELECT 1 AS one")
    with db.transaction() as one, db.transaction() as other:
        assert one.one("SELECT 1") == other.one("SELECT 1")
    db.close()


def test_a_call_without_a_free_connection_is_unknown(db: Database) -> None:
    with db.transaction() as tx:
        tx.one("SELECT 1")
        with pytest.raises(Unknown, match="busy"):
            db.statement("SELECT 1")
    assert db.is_ready()


def test_a_database_without_its_schema_is_not_ready(
    database_for: Callable[[str], DatabaseSettings],
) -> None:
    db = Database(replace(database_for("order"), name="postgres"))
    assert not db.is_ready()
    db.close()
