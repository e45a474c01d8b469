"""Code, schema.sql and the live database describe the same tables. Negative controls break each of the three."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from harness import Stack
from tests.contract import code_vs_schema, schemas
from tests.contract.code_vs_schema import ServiceCode
from tests.support.databases import ROLES, scripts

pytestmark = pytest.mark.contract
SERVICES = list(ROLES)


class Live:
    """The database of a service in the running stack."""

    def __init__(self, stack: Stack, service: str) -> None:
        database, self.role = ROLES[service]
        self.service = service
        self.connection: Any = psycopg2.connect(stack.admin_dsn(database))

    def read_catalogue(self, *changes: str) -> set[str]:
        """Read the catalogue, after `changes` that are rolled back."""
        with self.connection.cursor() as cursor:
            for change in changes:
                cursor.execute(change)
            found = schemas.read_catalogue(cursor, "public")
        self.connection.rollback()
        return found

    def find_invalid_statements(self, code: ServiceCode, *changes: str) -> list[str]:
        """List the statements that fail, after `changes` that are rolled back."""
        with self.connection.cursor() as cursor:
            for change in changes:
                cursor.execute(change)
            found = list(code_vs_schema.find_invalid_statements(cursor, code.statements))
        self.connection.rollback()
        return found

    def read_schema(self, *texts: str) -> set[str]:
        """Read the catalogue that schema.sql creates, or that `texts` create, in an empty schema."""
        with schemas.open_scratch(self.connection, self.role) as cursor:
            for text in texts or schemas.read_schema(self.service):
                schemas.run(cursor, text, strictly=True)
            return schemas.read_catalogue(cursor, schemas.SCRATCH)

    def rerun(self, *more: str) -> set[str]:
        """Run schema, seed and `more` twice, and return what the second run changed."""
        texts = [*(script.read_text() for script in scripts(self.service)), *more]
        with schemas.open_scratch(self.connection, self.role) as cursor:
            once = self._run(cursor, texts)
            assert len(once) > 20
            return once ^ self._run(cursor, texts)

    def _run(self, cursor: Any, texts: list[str]) -> set[str]:
        for text in texts:
            schemas.run(cursor, text)
        return schemas.read_rows(cursor) | schemas.read_catalogue(cursor, schemas.SCRATCH)


@pytest.fixture(params=SERVICES)
def live(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Live]:
    """Open the database of each service in turn."""
    opened = Live(stack, request.param)
    with closing(opened.connection):
        yield opened


@pytest.fixture
def orders(stack: Stack) -> Iterator[Live]:
    """Open the database of Order, for changes that are rolled back."""
    opened = Live(stack, "order")
    with closing(opened.connection):
        yield opened


def test_live_database_matches_schema_sql(live: Live) -> None:
    assert list(schemas.compare(live.read_schema(), live.read_catalogue())) == []


def test_schema_and_seed_applied_twice_change_nothing(live: Live) -> None:
    assert live.rerun() == set()


def test_code_and_live_database_name_the_same_things(live: Live) -> None:
    code, tables = ServiceCode.of(live.service), live.read_catalogue()
    assert len(code.statements) >= 9
    assert live.find_invalid_statements(code) == []
    assert list(code_vs_schema.compare(tables, code)) == []


def test_every_vocabulary_guard_and_view_has_a_table(stack: Stack) -> None:
    tables: set[str] = set()
    admitted: set[str] = set()
    for service in SERVICES:
        live = Live(stack, service)
        with closing(live.connection):
            catalogue = live.read_catalogue()
        columns = code_vs_schema.parse_columns(catalogue)
        tables |= columns.keys()
        admitted |= code_vs_schema.parse_vocabularies(catalogue).keys()
        admitted |= {
            f"{table}.{column}" for table in columns for column in columns[table]
        } & code_vs_schema.UNUSED.keys()
    assert code_vs_schema.VOCABULARIES.keys() | code_vs_schema.UNUSED.keys() <= admitted
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
def test_changed_live_database_is_found(orders: Live, change: str) -> None:
    assert list(schemas.compare(orders.read_schema(), orders.read_catalogue(change)))


WRITTEN_DRIFT = {
    "a column more": ("charge_key       text,", "charge_key text, colour text,"),
    "a column lost": ("dispute_reason          text,", ""),
    "another predicate": ("'PENDING_OTP', 'DISPUTED');", "'PENDING_OTP');"),
    "an index that is not made": ("CREATE INDEX IF NOT EXISTS orders_newest", "-- "),
}


@pytest.mark.parametrize(("old", "new"), WRITTEN_DRIFT.values(), ids=WRITTEN_DRIFT)
@pytest.mark.negative_control
def test_changed_schema_sql_is_found(orders: Live, old: str, new: str) -> None:
    chassis, own = schemas.read_schema("order")
    assert old in own
    assert list(schemas.compare(orders.read_schema(chassis, own.replace(old, new)), orders.read_catalogue()))


@pytest.mark.negative_control
def test_skipped_statement_of_schema_sql_is_found(orders: Live) -> None:
    twin = "CREATE INDEX IF NOT EXISTS orders_by_user ON orders (event_id);"
    with pytest.raises(psycopg2.errors.DuplicateTable):
        orders.read_schema(*schemas.read_schema("order"), twin)


@pytest.mark.parametrize(
    "script",
    [
        "INSERT INTO effects (key, outcome) VALUES (gen_random_uuid()::text, 'DONE');",
        "ALTER TABLE orders ADD CHECK (true);",
    ],
)
@pytest.mark.negative_control
def test_script_that_is_not_repeatable_is_found(orders: Live, script: str) -> None:
    assert orders.rerun(script)


CODE_DRIFT = {
    "a column that no code names": "ALTER TABLE orders ADD COLUMN colour text",
    "a column that rows do not show": "ALTER TABLE orders ADD COLUMN amount text",
    "a status that no code has": LIVE_DRIFT["a status more"],
    "a word that no code has": "ALTER TABLE effects DROP CONSTRAINT effects_outcome_check, "
    "ADD CONSTRAINT effects_outcome_check CHECK (outcome IN ('DONE', 'REFUSED', 'VOIDED', 'FORGOTTEN'))",
    "the partial unique index lost": LIVE_DRIFT["the partial unique index lost"],
    "the partial unique index without DISPUTED": LIVE_DRIFT["the partial unique index without DISPUTED"],
    "the key of effects lost": "ALTER TABLE effects DROP CONSTRAINT effects_pkey",
}


@pytest.mark.parametrize("change", CODE_DRIFT.values(), ids=CODE_DRIFT)
@pytest.mark.negative_control
def test_database_that_differs_from_the_code_is_found(orders: Live, change: str) -> None:
    assert list(code_vs_schema.compare(orders.read_catalogue(change), ServiceCode.of("order")))


@pytest.mark.parametrize(
    "change",
    [
        LIVE_DRIFT["a column lost"],
        "ALTER TABLE transfers RENAME TO handovers",
        "ALTER FUNCTION app_now() RENAME TO moment",
    ],
)
@pytest.mark.negative_control
def test_statement_that_the_database_rejects_is_found(orders: Live, change: str) -> None:
    assert orders.find_invalid_statements(ServiceCode.of("order"), change)


@pytest.mark.negative_control
def test_changed_enum_of_the_code_is_found(orders: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, code = orders.read_catalogue(), ServiceCode.of("order")
    for name in ("orders.status", "transfers.initiated_by"):
        with monkeypatch.context() as patch:
            patch.setitem(code_vs_schema.VOCABULARIES, name, [*code_vs_schema.VOCABULARIES[name], "LOST"])
            assert list(code_vs_schema.compare(tables, code))
