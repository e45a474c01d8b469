"""The audit table: commands of staff and operators are recorded with their effect."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest

from services.chassis.db import Database, Row
from services.chassis.settings import DatabaseSettings
from services.orchestrator import admin, audit
from services.orchestrator.admin import ParkedSagas
from services.orchestrator.saga.journal import Entry, Journal, Status

pytestmark = pytest.mark.unit


@pytest.fixture
def journal(db: Database) -> Journal:
    return Journal(db, deadline_seconds=60, park_seconds=120)


def begin(journal: Journal, **given: str) -> Entry:
    """Begin a refund of a new order."""
    entry, _ = journal.begin("refund", uuid4(), given, caller=None, dispute_number=0, one_attempt=False)
    return entry


def find_records(db: Database, subject: UUID) -> list[Row]:
    """List the records of one order, newest first."""
    return [row for row in audit.list_records(db, 1, 100)[0] if row["subject"] == subject]


def test_saga_of_staff_is_recorded_and_one_of_a_customer_is_not(db: Database, journal: Journal) -> None:
    staff_id = uuid4()
    commanded, other = begin(journal, staff_id=str(staff_id)), begin(journal)
    (record,) = find_records(db, commanded.subject)
    assert (record["staff_id"], record["action"], record["saga_id"]) == (staff_id, "refund", commanded.saga_id)
    assert (record["outcome"], record["operator"]) == ("RUNNING", None)
    assert find_records(db, other.subject) == []


def test_commands_of_an_operator_are_recorded_with_the_name(db: Database, journal: Journal) -> None:
    entry = begin(journal)
    journal.end(entry, Status.PARKED, {})
    retry = ["retry", str(entry.saga_id), "--by", "ada"]
    resolve = ["resolve", str(entry.saga_id), "--as", "DONE", "--note", "ticket 4711", "--by", "bob"]
    assert admin.main(retry, ParkedSagas(db)) == 0
    assert admin.main(resolve, ParkedSagas(db)) == 1, "it is no longer parked"
    with db.transaction() as tx:
        tx.run("UPDATE sagas SET status = 'PARKED' WHERE saga_id = %(saga_id)s", saga_id=entry.saga_id)
    assert admin.main(resolve, ParkedSagas(db)) == 0
    found = [(record["operator"], record["action"], record["note"]) for record in find_records(db, entry.subject)]
    assert found == [("bob", "resolve", "DONE: ticket 4711"), ("ada", "retry", None)]


@pytest.mark.parametrize("change", ["UPDATE audit SET action = 'none'", "DELETE FROM audit", "TRUNCATE audit"])
def test_records_cannot_be_changed_even_by_the_service(
    database_for: Callable[[str], DatabaseSettings], change: str
) -> None:
    own = database_for("orchestrator")
    access: dict[str, Any] = {
        "host": own.addresses[0].host,
        "dbname": own.name,
        "user": own.user,
        "password": own.password,
    }
    with closing(psycopg2.connect(**access)) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.errors.RaiseException, match="audit is append-only"):
            cursor.execute(change)


def test_pages_of_records_are_newest_first(db: Database, journal: Journal) -> None:
    entries = [begin(journal, staff_id=str(uuid4())) for _ in range(3)]
    (first,), total = audit.list_records(db, 1, 1)
    (second,), _ = audit.list_records(db, 2, 1)
    assert [first["saga_id"], second["saga_id"]] == [entries[2].saga_id, entries[1].saga_id]
    assert total >= 3
