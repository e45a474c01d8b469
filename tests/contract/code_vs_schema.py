"""What a service's code believes its database to be ⇔ what it is. Each function returns what does not agree.

Every statement in the code is prepared against the live tables: PostgreSQL knows each table, column, type and
function in it. `live` is what `schemas.catalogue` says of them.
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

from services.contracts.enums import OrderStatus, Role, ScanResult, SeatStatus, TransferStatus
from services.orchestrator.saga.journal import Entry, Status
from services.order import order_store, request_models, transfer_store

STATEMENT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s")
TEMPLATE = re.compile(r"\{\w+\}")  # what is still to be put together is no statement yet
PARAMETER = re.compile(r"%\((\w+)\)s")
LISTED = re.compile(r"CHECK \(\(+(\w+) = ANY \(ARRAY\[(.*)\]\)\)\)")
QUOTED = re.compile(r"'([^']*)'")
# What a column may hold, and what the code calls that: an enum type's name, or table.column of a CHECK.
VOCABULARIES: dict[str, Iterable[str]] = {
    "seat_status": SeatStatus,
    "scan_result": ScanResult,
    "saga_status": Status,
    "orders.status": OrderStatus,
    "transfers.status": TransferStatus,
    "transfers.initiated_by": get_args(request_models.Party),
    "users.role": Role,
}
SEEDED = {"OPENING"}  # said by seed.sql alone
UNNAMED = {  # columns that no code names, and why they are there
    "users.two_fa_secret": "of the reference's §3, kept and unused",
    "venues.total_halls": "of the reference's §3, kept and unused",
    "entry_logs.log_id": "a key of its own: one seat has many entries",
    "release_messages.consumed_at": "for people",
    "clock_offset.only_row": "keeps the table to one row",
    "clock_offset.shift": "read by app_now() alone",
}
FOR_PEOPLE = "created_at"  # every table may have one
VIEWS = {  # table: the columns as callers see them, what is computed beside, what they do not see
    "orders": (order_store.FIELDS, {"is_expired"}, {"verification_sid", "otp_failures"}),
    "transfers": (
        transfer_store.FIELDS,
        {"is_expired"},
        {"seller_verification_sid", "buyer_verification_sid", "otp_failures"},
    ),
    "sagas": (
        tuple(field.name for field in fields(Entry)),
        {"is_overdue"},
        {"owner", "adoptions", "deadline", "park_after", "created_at", "ended_at"},
    ),
}
GUARDS = {  # what the code and the docs rely on: where it stands, and what it looks like
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
class Code:
    """What a service's code says: the statements that it runs, and every word in its texts."""

    statements: frozenset[str]
    words: frozenset[str]

    @classmethod
    @cache
    def of(cls, service: str) -> Code:
        """All modules of a service, and the chassis's that has SQL of its own."""
        found: set[str] = set()
        for module in _modules(service):
            found |= {value for value in vars(module).values() if isinstance(value, str)} | set(_texts(module))
        statements = {text for text in found if STATEMENT.match(text) and not TEMPLATE.search(text)}
        return cls(frozenset(statements), frozenset(re.findall(r"\w+", " ".join(found))))


def _modules(service: str) -> Iterator[ModuleType]:
    yield importlib.import_module("services.chassis.effects")
    package = importlib.import_module(f"services.{service}")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith(".main"):  # starts the service
            yield importlib.import_module(found.name)


def _texts(module: ModuleType) -> Iterator[str]:
    """The texts within a module's code; not its docstrings, and no parts of an f-string, which are no statement."""
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
        if not isinstance(node, ast.Expr | ast.JoinedStr):
            inside = (part for part in ast.iter_child_nodes(node) if isinstance(part, ast.Constant))
            yield from (part.value for part in inside if isinstance(part.value, str))


def unprepared(cursor: Any, statements: Iterable[str]) -> Iterator[str]:
    """The statements that PostgreSQL refuses to prepare: a table, column, type or function of theirs is not there."""
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


def columns(live: Iterable[str]) -> dict[str, set[str]]:
    """The columns of each table."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in live:
        if line.startswith("column "):
            table, _, column = line.split()[1].partition(".")
            found[table].add(column)
    return found


def unnamed(live: Iterable[str], code: Code) -> Iterator[str]:
    """The live columns that no code names."""
    for table, there in columns(live).items():
        for column in there - code.words - {FOR_PEOPLE}:
            if f"{table}.{column}" not in UNNAMED:
                yield f"{table}.{column} is in the database, and no code names it"


def unseen(live: Iterable[str]) -> Iterator[str]:
    """Rows as the code gives them out ⇔ their tables."""
    there = columns(live)
    for table, (shown, computed, hidden) in VIEWS.items():
        if table in there and set(shown) ^ computed ^ hidden != there[table]:
            yield f"{table}: the code has {sorted(set(shown) ^ computed ^ hidden)}, the database {sorted(there[table])}"


def unguarded(live: Iterable[str]) -> Iterator[str]:
    """The keys and partial unique indexes that decide races, where they are missing or look otherwise."""
    lines = list(live)
    for table, guards in GUARDS.items():
        if table in columns(lines):
            yield from (f"no {guard}" for guard in guards if not any(re.fullmatch(guard, line) for line in lines))


def vocabularies(live: Iterable[str]) -> dict[str, set[str]]:
    """What each enum type, and each CHECK that lists words, admits."""
    found: dict[str, set[str]] = {}
    for line in live:
        kind, name, rest = line.split(" ", 2)
        if kind == "enum":
            found[name] = set(rest.split())
        elif kind == "constraint" and (listed := LISTED.fullmatch(rest)):
            found[f"{name.partition('.')[0]}.{listed[1]}"] = set(QUOTED.findall(listed[2]))
    return found


def misspelt(live: Iterable[str], code: Code) -> Iterator[str]:
    """Enums and lists of words that the code and the database do not share."""
    for name, admitted in vocabularies(live).items():
        known = VOCABULARIES.get(name)
        if known is not None and set(known) != admitted:
            yield f"{name}: the code has {sorted(known)}, the database {sorted(admitted)}"
        elif known is None and not admitted <= code.words | SEEDED:
            yield f"{name}: no code says {sorted(admitted - code.words)}"


def disagreements(live: set[str], code: Code) -> Iterator[str]:
    """All of them."""
    yield from unnamed(live, code)
    yield from unseen(live)
    yield from unguarded(live)
    yield from misspelt(live, code)
