"""The tables of the reference (section 3), column by column, in freshly created databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import Any

import psycopg2
import pytest

from services.chassis.settings import DatabaseSettings

pytestmark = pytest.mark.unit

TIME = "timestamp with time zone"
MONEY = "numeric(10,2)"
SERVICES = {
    "seats": "inventory", "entry_logs": "inventory", "users": "user", "orders": "order", "transfers": "order",
    "venues": "event", "events": "event",
}  # fmt: skip
TABLES = {  # in the order of the reference: column, type, and `?` if it may be null
    "seats": f"""seat_id uuid; event_id uuid; owner_user_id uuid?; status seat_status; held_by_user_id uuid?;
        held_until {TIME}?; qr_code_hash text?; price_paid {MONEY}?; row_number character varying(4);
        seat_number integer; created_at {TIME}; updated_at {TIME}""",
    "entry_logs": f"""log_id uuid; seat_id uuid?; scanned_at {TIME}; scanned_by_staff_id uuid; result scan_result;
        hall_id_presented character varying(20)?; hall_id_expected character varying(20)?""",
    "users": f"""user_id uuid; email character varying(255); phone character varying(20); password_hash text;
        credit_balance {MONEY}; two_fa_secret text?; is_flagged boolean; created_at {TIME}""",
    "orders": f"""order_id uuid; user_id uuid; seat_id uuid; event_id uuid; status text; credits_charged {MONEY};
        verification_sid text?; created_at {TIME}; confirmed_at {TIME}?""",
    "transfers": f"""transfer_id uuid; seat_id uuid; seller_user_id uuid; buyer_user_id uuid; initiated_by text;
        status text; seller_otp_verified boolean; buyer_otp_verified boolean; seller_verification_sid text?;
        buyer_verification_sid text?; credits_amount {MONEY}; dispute_reason text?; created_at {TIME};
        completed_at {TIME}?""",
    "venues": f"""venue_id uuid; name character varying(255); address text; total_halls integer; created_at {TIME}""",
    "events": f"""event_id uuid; name character varying(255); venue_id uuid; hall_id character varying(20);
        event_date {TIME}; total_seats integer; pricing_tiers jsonb""",
}
ADDED = {  # departure D41 and its causes D2, D7, D21, D33, D61, D65, D66, D75, D75
    "seats": "category hold_id order_id lapsed_user_id lapsed_at",
    "entry_logs": "scan_id hall_id_staff event_id_staff",
    "users": "role frozen_credits phone_verified_at locked_at staff_area",
    "orders": "charge_key otp_required otp_verified_at otp_attempts otp_failures expires_at",
    "transfers": "order_id otp_attempts otp_failures buyer_otp_attempts buyer_otp_failures credits_frozen freeze_key "
    "dispute_count expires_at",
    "venues": "",
    "events": "",
}
WORDS = {  # with those of departures D13 and D41
    "orders.status": "PENDING CONFIRMED FAILED REFUNDED",
    "transfers.status": "INITIATED PENDING_OTP COMPLETED DISPUTED REVERSED FAILED",
    "transfers.initiated_by": "SELLER BUYER",
    "seats.status": "AVAILABLE HELD SOLD CHECKED_IN",
    "entry_logs.result": "SUCCESS DUPLICATE WRONG_HALL UNPAID NOT_FOUND EXPIRED NOT_OWNER QR_INVALID"
    " EVENT_OVER TOO_EARLY WRONG_EVENT",
}
IN_THE_CATALOGUE = """SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"""
COLUMNS = [
    pytest.param(table, name, kind, marks=pytest.mark.claim(f"schema/{table}.{name}"), id=f"{table}-{name}")
    for table, columns in TABLES.items()
    for name, kind in (column.strip().split(" ", 1) for column in columns.split(";"))
]

Query = Callable[[str, str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def query(database_for: Callable[[str], DatabaseSettings]) -> Query:
    """`query(table, sql)` returns the rows of a query about a table's catalogue entry, cached."""

    @cache
    def run(table: str, sql: str) -> list[tuple[Any, ...]]:
        where = database_for(SERVICES[table])
        with closing(psycopg2.connect(host=where.addresses[0].host, dbname=where.name, user=where.user)) as connection:
            with connection.cursor() as cursor:
                cursor.execute(sql, (table,))
                return list(cursor.fetchall())

    return run


def constraints(query: Query, table: str) -> str:
    """Return all constraints of a table."""
    return "\n".join(
        row[0]
        for row in query(table, "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass")
    )


@pytest.mark.parametrize(("table", "column", "kind"), COLUMNS)
def test_column_is_as_in_the_reference(table: str, column: str, kind: str, query: Query) -> None:
    columns = {name: (form, required) for name, form, required in query(table, IN_THE_CATALOGUE)}
    assert columns[column] == (kind.rstrip("?"), not kind.endswith("?"))


@pytest.mark.claim("schema/tables-have-columns")
@pytest.mark.parametrize("table", TABLES)
def test_table_has_no_columns_beyond_reference_and_departures(table: str, query: Query) -> None:
    required = [column.split()[0] for column in TABLES[table].split(";")]
    assert {row[0] for row in query(table, IN_THE_CATALOGUE)} == {*required, *ADDED[table].split()}


@pytest.mark.parametrize(
    ("table", "key"),
    [
        pytest.param(table, key, marks=pytest.mark.claim(f"schema/{table}.{key}"), id=table)
        for table, columns in TABLES.items()
        for key in [columns.split()[0]]
    ],
)
def test_first_column_is_the_primary_key(table: str, key: str, query: Query) -> None:
    assert f"PRIMARY KEY ({key})" in constraints(query, table)


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        pytest.param(*name.split("."), values, marks=pytest.mark.claim(f"schema/{name}"), id=name)
        for name, values in WORDS.items()
    ],
)
def test_column_allows_exactly_these_words(table: str, column: str, values: str, query: Query) -> None:
    """A column of text has a CHECK, and the others have an enumeration."""
    kind = next(kind for name, kind, _ in query(table, IN_THE_CATALOGUE) if name == column)
    if kind == "text":
        [check] = [c for c in constraints(query, table).splitlines() if c.startswith(f"CHECK (({column} = ANY")]
        words = re.findall(r"'(\w+)'", check)
    else:
        sql = f"SELECT enumlabel FROM pg_enum WHERE enumtypid = '{kind}'::regtype AND %s <> ''"
        words = [row[0] for row in query(table, sql)]
    assert sorted(words) == sorted(values.split())


@pytest.mark.claim("schema/users.email")
def test_email_is_unique(query: Query) -> None:
    assert "UNIQUE (email)" in constraints(query, "users")


@pytest.mark.claim("schema/events.venue_id")
def test_event_references_an_existing_venue(query: Query) -> None:
    assert "FOREIGN KEY (venue_id) REFERENCES venues(venue_id)" in constraints(query, "events")


@pytest.mark.claim(
    "architecture/database-per-service", "schema/seats.event_id", "schema/orders.user_id", "schema/orders.seat_id"
)
@pytest.mark.parametrize("table", ["seats", "entry_logs", "orders", "transfers"])
def test_ids_of_other_services_have_no_foreign_key(table: str, query: Query) -> None:
    assert "FOREIGN KEY" not in constraints(query, table)


@pytest.mark.claim("schema/one-open-transfer-index", "lock/open-transfer-index")
def test_unique_index_allows_one_open_transfer_per_seat(query: Query) -> None:
    [(definition,)] = [
        row
        for row in query("transfers", "SELECT indexdef FROM pg_indexes WHERE tablename = %s")
        if "one_open_transfer_a_seat" in row[0]
    ]
    assert definition.startswith("CREATE UNIQUE INDEX")
    assert re.findall(r"'(\w+)'", definition) == ["INITIATED", "PENDING_OTP", "DISPUTED"]
