"""Models ⇔ schema.sql ⇔ the live database, both ways; and each way in which one of the three can be wrong, told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from harness import Stack
from tests.contract import code_vs_schema, schemas
from tests.contract.code_vs_schema import Code
from tests.support.databases import ROLES, scripts

pytestmark = pytest.mark.contract
SERVICES = list(ROLES)


class Live:
    """A service's database in the running system."""

    def __init__(self, stack: Stack, service: str) -> None:
        database, self.role = ROLES[service]
        self.service = service
        self.connection: Any = psycopg2.connect(stack.admin_dsn(database))

    def catalogue(self, *changes: str) -> set[str]:
        """What is there, or would be after `changes`, which are rolled back."""
        with self.connection.cursor() as cursor:
            for change in changes:
                cursor.execute(change)
            found = schemas.catalogue(cursor, "public")
        self.connection.rollback()
        return found

    def unprepared(self, code: Code, *changes: str) -> list[str]:
        """The statements that it does not take, as it is or would be after `changes`."""
        with self.connection.cursor() as cursor:
            for change in changes:
                cursor.execute(change)
            found = list(code_vs_schema.unprepared(cursor, code.statements))
        self.connection.rollback()
        return found

    def written(self, *texts: str) -> set[str]:
        """What schema.sql makes, or `texts` in its place; every line of it, for nothing may be there already."""
        with schemas.scratch(self.connection, self.role) as cursor:
            for text in texts or schemas.written(self.service):
                schemas.run(cursor, text, strictly=True)
            return schemas.catalogue(cursor, schemas.SCRATCH)

    def changed(self, *more: str) -> set[str]:
        """What schema, seed and `more` change of tables and rows when they are run for the second time."""
        texts = [*(script.read_text() for script in scripts(self.service)), *more]
        with schemas.scratch(self.connection, self.role) as cursor:
            once = self._run(cursor, texts)
            assert len(once) > 20
            return once ^ self._run(cursor, texts)

    def _run(self, cursor: Any, texts: list[str]) -> set[str]:
        for text in texts:
            schemas.run(cursor, text)
        return schemas.contents(cursor) | schemas.catalogue(cursor, schemas.SCRATCH)


@pytest.fixture(params=SERVICES)
def live(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Live]:
    """Each service's database."""
    opened = Live(stack, request.param)
    with closing(opened.connection):
        yield opened


@pytest.fixture
def orders(stack: Stack) -> Iterator[Live]:
    """Order's database, to be broken in thought."""
    opened = Live(stack, "order")
    with closing(opened.connection):
        yield opened


def test_live_database_is_what_schema_sql_says(live: Live) -> None:
    assert list(schemas.differences(live.written(), live.catalogue())) == []


def test_schema_and_seed_applied_twice_change_nothing(live: Live) -> None:
    assert live.changed() == set()


def test_code_and_live_database_name_the_same_things(live: Live) -> None:
    code, there = Code.of(live.service), live.catalogue()
    assert len(code.statements) >= 9
    assert live.unprepared(code) == []
    assert list(code_vs_schema.disagreements(there, code)) == []


def test_every_vocabulary_guard_and_view_is_of_a_table_that_there_is(stack: Stack) -> None:
    tables: set[str] = set()
    admitted: set[str] = set()
    for service in SERVICES:
        live = Live(stack, service)
        with closing(live.connection):
            there = live.catalogue()
        tables |= code_vs_schema.columns(there).keys()
        admitted |= code_vs_schema.vocabularies(there).keys()
        named = {f"{table}.{column}" for table, of in code_vs_schema.columns(there).items() for column in of}
        admitted |= named & code_vs_schema.UNNAMED.keys()
    assert code_vs_schema.VOCABULARIES.keys() | code_vs_schema.UNNAMED.keys() <= admitted
    assert code_vs_schema.GUARDS.keys() | code_vs_schema.VIEWS.keys() <= tables


LIVE_DRIFT = {
    "a column lost": "ALTER TABLE orders DROP COLUMN charge_key",
    "a column more": "ALTER TABLE orders ADD COLUMN colour text",
    "another type": "ALTER TABLE transfers ALTER COLUMN credits_amount TYPE numeric(12, 2)",
    "null allowed": "ALTER TABLE orders ALTER COLUMN seat_id DROP NOT NULL",
    "another default": "ALTER TABLE orders ALTER COLUMN status SET DEFAULT 'CONFIRMED'",
    "a status more": "ALTER TABLE orders DROP CONSTRAINT orders_status_check, "
    "ADD CONSTRAINT orders_status_check CHECK (status IN ('PENDING', 'CONFIRMED', 'FAILED', 'REFUNDED', 'LOST'))",
    "a check lost": "ALTER TABLE transfers DROP CONSTRAINT transfers_credits_amount_check",
    "the partial unique index lost": "DROP INDEX one_open_transfer_a_seat",
    "the partial unique index without DISPUTED": "DROP INDEX one_open_transfer_a_seat; CREATE UNIQUE INDEX "
    "one_open_transfer_a_seat ON transfers (seat_id) WHERE status IN ('INITIATED', 'PENDING_OTP')",
    "the partial unique index not unique": "DROP INDEX one_open_transfer_a_seat; CREATE INDEX "
    "one_open_transfer_a_seat ON transfers (seat_id) WHERE status IN ('INITIATED', 'PENDING_OTP', 'DISPUTED')",
    "a plain index lost": "DROP INDEX orders_due",
    "the clock replaced": "CREATE OR REPLACE FUNCTION app_now() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
    "a right too many": "GRANT UPDATE ON clock_offset TO order_svc_user",
}


@pytest.mark.parametrize("change", LIVE_DRIFT.values(), ids=LIVE_DRIFT)
@pytest.mark.negative_control
def test_live_database_that_has_drifted_is_found_out(orders: Live, change: str) -> None:
    assert list(schemas.differences(orders.written(), orders.catalogue(change)))


WRITTEN_DRIFT = {
    "a column more": ("charge_key       text,", "charge_key text, colour text,"),
    "a column lost": ("dispute_reason          text,", ""),
    "another predicate": ("'PENDING_OTP', 'DISPUTED');", "'PENDING_OTP');"),
    "an index that is not made": ("CREATE INDEX IF NOT EXISTS orders_newest", "-- "),
}


@pytest.mark.parametrize(("old", "new"), WRITTEN_DRIFT.values(), ids=WRITTEN_DRIFT)
@pytest.mark.negative_control
def test_schema_sql_that_has_drifted_is_found_out(orders: Live, old: str, new: str) -> None:
    chassis, own = schemas.written("order")
    assert old in own
    assert list(schemas.differences(orders.written(chassis, own.replace(old, new)), orders.catalogue()))


@pytest.mark.negative_control
def test_line_of_schema_sql_that_is_passed_over_is_found_out(orders: Live) -> None:
    twin = "CREATE INDEX IF NOT EXISTS orders_by_user ON orders (event_id);"
    with pytest.raises(psycopg2.errors.DuplicateTable):
        orders.written(*schemas.written("order"), twin)


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO effects (key, outcome) VALUES (gen_random_uuid()::text, 'DONE');",
        "ALTER TABLE orders ADD CHECK (true);",
    ],
)
@pytest.mark.negative_control
def test_script_that_is_not_safe_to_run_again_is_found_out(orders: Live, script: str) -> None:
    assert orders.changed(script)


CODE_DRIFT = {
    "a column that no code names": "ALTER TABLE orders ADD COLUMN colour text",
    "a column that rows are shown without": "ALTER TABLE orders ADD COLUMN amount text",
    "a status that no code knows": LIVE_DRIFT["a status more"],
    "a word that no code says": "ALTER TABLE effects DROP CONSTRAINT effects_outcome_check, "
    "ADD CONSTRAINT effects_outcome_check CHECK (outcome IN ('DONE', 'REFUSED', 'VOIDED', 'FORGOTTEN'))",
    "the partial unique index lost": LIVE_DRIFT["the partial unique index lost"],
    "the partial unique index without DISPUTED": LIVE_DRIFT["the partial unique index without DISPUTED"],
    "the key of effects lost": "ALTER TABLE effects DROP CONSTRAINT effects_pkey",
}


@pytest.mark.parametrize("change", CODE_DRIFT.values(), ids=CODE_DRIFT)
@pytest.mark.negative_control
def test_database_that_the_code_does_not_know_is_found_out(orders: Live, change: str) -> None:
    code = Code.of("order")
    assert list(code_vs_schema.disagreements(orders.catalogue(change), code))


@pytest.mark.parametrize(
    "change",
    [
        LIVE_DRIFT["a column lost"],
        "ALTER TABLE transfers RENAME TO handovers",
        "ALTER FUNCTION app_now() RENAME TO moment",
    ],
)
@pytest.mark.negative_control
def test_statement_that_the_database_does_not_take_is_found_out(orders: Live, change: str) -> None:
    assert orders.unprepared(Code.of("order"), change)


@pytest.mark.negative_control
def test_enum_of_the_code_that_has_drifted_is_found_out(orders: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    there, code = orders.catalogue(), Code.of("order")
    for name in ("orders.status", "transfers.initiated_by"):
        with monkeypatch.context() as patch:
            patch.setitem(code_vs_schema.VOCABULARIES, name, [*code_vs_schema.VOCABULARIES[name], "LOST"])
            assert list(code_vs_schema.disagreements(there, code))
