"""Compare the database that the code of a service expects with the live one. Each check yields the differences.

Every statement of the code is prepared against the live tables, so PostgreSQL checks each table, column, type and
function. `live` is the result of `schemas.read_catalogue`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import psycopg2

from services.contracts.enums import OrderStatus, Role, ScanResult, SeatStatus, StaffArea, TransferStatus
from services.orchestrator.saga.journal import Entry, Status
from services.order import order_store, request_models, transfer_store

STATEMENT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s")
TEMPLATE = re.compile(r"\{\w+\}")  # a text with a placeholder is not yet a statement
PARAMETER = re.compile(r"%\((\w+)\)s")
LISTED = re.compile(r"CHECK \(\(+(\w+) = ANY \(ARRAY\[(.*)\]\)\)\)")
QUOTED = re.compile(r"'([^']*)'")
# Allowed values of a column in the code, by the name of the enum type or by the table.column of the CHECK.
VOCABULARIES: dict[str, Iterable[str]] = {
    "seat_status": SeatStatus,
    "scan_result": ScanResult,
    "saga_status": Status,
    "orders.status": OrderStatus,
    "transfers.status": TransferStatus,
    "transfers.initiated_by": get_args(request_models.Party),
    "users.role": Role,
    "users.staff_area": StaffArea,
}
SEEDED = {"OPENING"}  # only seed.sql uses it
UNUSED = {  # columns that no code names, and the reason for each
    "users.two_fa_secret": "in §3 of the reference, but unused",
    "venues.total_halls": "in §3 of the reference, but unused",
    "entry_logs.log_id": "primary key, because a seat has many entries",
    "release_messages.consumed_at": "for operators",
    "clock_offset.only_row": "keeps the table to one row",
    "clock_offset.shift": "read by app_now() alone",
    "event_limits.max_holds_per_user": "read by reached_limit() alone",
    "event_limits.max_tickets_per_user": "read by reached_limit() alone",
}
FOR_OPERATORS = "created_at"  # allowed in every table
VIEWS = {  # table: the columns that callers get, those computed from other columns, and the hidden ones
    "orders": (order_store.FIELDS, {"is_expired"}, {"verification_sid", "otp_failures"}),
    "transfers": (
        transfer_store.FIELDS,
        {"is_expired"},
        {
            "seller_verification_sid",
            "buyer_verification_sid",
            "otp_failures",
            "buyer_otp_attempts",
            "buyer_otp_failures",
        },
    ),
    "sagas": (
        tuple(field.name for field in fields(Entry)),
        {"is_overdue", "reserved"},
        {"owner", "adoptions", "deadline", "park_after", "created_at", "ended_at"},
    ),
}
GUARDS = {  # table: the keys and unique indexes that the code relies on, as regular expressions
    "orders": (r"constraint orders\.orders_pkey PRIMARY KEY \(order_id\)",),
    "transfers": (
        r"constraint transfers\.transfers_pkey PRIMARY KEY \(transfer_id\)",
        rf"index CREATE UNIQUE INDEX {transfer_store.ONE_OPEN} ON transfers .*\(seat_id\) "
        r"WHERE .*INITIATED.*PENDING_OTP.*DISPUTED.*",
    ),
    "entry_logs": (
        r"index CREATE UNIQUE INDEX idx_one_success_per_seat ON entry_logs .*\(seat_id\) WHERE .*'SUCCESS'.*",
    ),
    "sagas": (r"index CREATE UNIQUE INDEX one_live_saga_per_subject ON sagas .*\(subject\) WHERE .*RUNNING.*PARKED.*",),
    "effects": (r"constraint effects\.effects_pkey PRIMARY KEY \(key\)",),
    "credit_entries": (r"constraint credit_entries\.credit_entries_pkey PRIMARY KEY \(key\)",),
    "stripe_events": (r"constraint stripe_events\.\w+ UNIQUE \(payment_intent_id\)",),
}


@dataclass(frozen=True)
class ServiceCode:
    """The SQL statements in the code of a service, and every word in its strings."""

    statements: frozenset[str]
    words: frozenset[str]

    @classmethod
    @cache
    def of(cls, service: str) -> ServiceCode:
        """Read all modules of a service, and the chassis modules that have SQL."""
        found: set[str] = set()
        for module in _import_modules(service):
            found |= {value for value in vars(module).values() if isinstance(value, str)} | set(_find_strings(module))
        statements = {text for text in found if STATEMENT.match(text) and not TEMPLATE.search(text)}
        return cls(frozenset(statements), frozenset(re.findall(r"\w+", " ".join(found))))


def _import_modules(service: str) -> Iterator[ModuleType]:
    for name in ("effects", "limits"):
        yield importlib.import_module(f"services.chassis.{name}")
    package = importlib.import_module(f"services.{service}")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith(".main"):  # starts the service
            yield importlib.import_module(found.name)


def _find_strings(module: ModuleType) -> Iterator[str]:
    """Yield the strings of a module, without docstrings and parts of f-strings, because these are not statements."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if not isinstance(node, ast.Expr | ast.JoinedStr):
            inside = (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.Constant))
            yield from (part.value for part in inside if isinstance(part.value, str))


def find_invalid_statements(cursor: Any, statements: Iterable[str]) -> Iterator[str]:
    """Yield the statements that PostgreSQL cannot prepare, because a table, column, type or function is missing."""
    for sql in statements:
        names = list(dict.fromkeys(PARAMETER.findall(sql)))
        numbered = PARAMETER.sub(lambda name, names=names: f"${names.index(name[1]) + 1}", sql)  # type: ignore[misc]
        cursor.execute("SAVEPOINT here")
        try:
            cursor.execute(f"PREPARE it AS {numbered}")
            cursor.execute("DEALLOCATE it")
        except psycopg2.Error as error:
            yield f"{error.diag.message_primary}: {' '.join(sql.split())[:120]}"
        cursor.execute("ROLLBACK TO here")


def parse_columns(live: Iterable[str]) -> dict[str, set[str]]:
    """Return the columns of each table."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in live:
        if line.startswith("column "):
            table, _, column = line.split()[1].partition(".")
            found[table].add(column)
    return found


def find_unused_columns(live: Iterable[str], code: ServiceCode) -> Iterator[str]:
    """Yield the live columns that no code names."""
    for table, names in parse_columns(live).items():
        for column in names - code.words - {FOR_OPERATORS}:
            if f"{table}.{column}" not in UNUSED:
                yield f"{table}.{column} is in the database, but no code names it"


def compare_views(live: Iterable[str]) -> Iterator[str]:
    """Yield each table whose columns differ from those that the code returns, computes or hides."""
    tables = parse_columns(live)
    for table, (shown, computed, hidden) in VIEWS.items():
        expected = set(shown) ^ computed ^ hidden
        if table in tables and expected != tables[table]:
            yield f"{table}: the code has {sorted(expected)}, the database {sorted(tables[table])}"


def find_missing_guards(live: Iterable[str]) -> Iterator[str]:
    """Yield the keys and unique indexes that decide races, but are missing or different."""
    lines = list(live)
    for table, guards in GUARDS.items():
        if table in parse_columns(lines):
            yield from (f"no {guard}" for guard in guards if not any(re.fullmatch(guard, line) for line in lines))


def parse_vocabularies(live: Iterable[str]) -> dict[str, set[str]]:
    """Return the allowed words of each enum type, and of each CHECK that lists words."""
    found: dict[str, set[str]] = {}
    for line in live:
        kind, name, rest = line.split(" ", 2)
        if kind == "enum":
            found[name] = set(rest.split())
        elif kind == "constraint" and (listed := LISTED.fullmatch(rest)):
            found[f"{name.partition('.')[0]}.{listed[1]}"] = set(QUOTED.findall(listed[2]))
    return found


def compare_vocabularies(live: Iterable[str], code: ServiceCode) -> Iterator[str]:
    """Yield each enum or list of words in which the code and the database differ."""
    for name, admitted in parse_vocabularies(live).items():
        known = VOCABULARIES.get(name)
        if known is not None and set(known) != admitted:
            yield f"{name}: the code has {sorted(known)}, the database {sorted(admitted)}"
        elif known is None and not admitted <= code.words | SEEDED:
            yield f"{name}: no code has {sorted(admitted - code.words)}"


def compare(live: set[str], code: ServiceCode) -> Iterator[str]:
    """Yield every difference between the code and the live database."""
    yield from find_unused_columns(live, code)
    yield from compare_views(live)
    yield from find_missing_guards(live)
    yield from compare_vocabularies(live, code)
