"""Compare schema.sql with the tables of a running database.

schema.sql runs in a scratch schema, in a transaction that is rolled back. Then the catalogues of both schemas are
compared, so PostgreSQL itself interprets the SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.databases import scripts

SCRATCH = "scratch"

_COLUMNS = """
SELECT format('column %%s.%%s %%s%%s%%s%%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
    ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), CASE a.attidentity WHEN '' THEN '' ELSE ' IDENTITY' END)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (c.oid, a.attnum)
WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"""
_CONSTRAINTS = """
SELECT format('constraint %%s.%%s %%s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE connamespace = %(schema)s::regnamespace AND conrelid <> 0"""
_INDEXES = """
SELECT format('index %%s', indexdef) FROM pg_indexes WHERE schemaname = %(schema)s"""
_ENUMS = """
SELECT format('enum %%s %%s', t.typname, string_agg(e.enumlabel, ' ' ORDER BY e.enumsortorder))
FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
WHERE t.typnamespace = %(schema)s::regnamespace GROUP BY t.typname"""
_FUNCTIONS = """
SELECT format('function %%s %%s', proname, prosrc) FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace"""
_TABLES = """
SELECT format('table %%s %%s %%s', relname, reloptions, relacl) FROM pg_class
WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'r'"""


def read_catalogue(cursor: Any, schema: str) -> set[str]:
    """Describe the tables of `schema`, one line for each part, without the name of the schema."""
    cursor.execute(f"SET LOCAL search_path = {schema}")
    found: set[str] = set()
    for query in (_COLUMNS, _CONSTRAINTS, _INDEXES, _ENUMS, _FUNCTIONS, _TABLES):
        cursor.execute(query, {"schema": schema})
        found |= {re.sub(rf"\b{schema}\.", "", line) for (line,) in cursor.fetchall()}
    return found


def read_schema(service: str) -> list[str]:
    """Read the SQL that creates the tables of a service, without the seed."""
    return [script.read_text() for script in scripts(service) if script.name == "schema.sql"]


@contextmanager
def open_scratch(connection: Any, role: str) -> Iterator[Any]:
    """Yield a cursor in an empty schema, as `role`. Everything is rolled back at the end."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {SCRATCH} AUTHORIZATION {role}")
            cursor.execute(f"SET LOCAL search_path = {SCRATCH}; SET LOCAL ROLE {role}")
            yield cursor
    finally:
        connection.rollback()


def run(cursor: Any, script: str, *, strictly: bool = False) -> None:
    """Run a script in the scratch schema. `strictly` makes an existing object an error, so no statement is skipped."""
    cursor.execute(f"SET LOCAL search_path = {SCRATCH}")
    cursor.execute(_make_strict(script) if strictly else script)


def _make_strict(script: str) -> str:
    lenient = r"IF NOT EXISTS |(?<=CREATE) OR REPLACE|EXCEPTION WHEN duplicate_object THEN NULL;"
    return re.sub(lenient, "", script)


def compare(specified: set[str], live: set[str]) -> Iterator[str]:
    """Yield each line that only one of two catalogues has."""
    yield from (f"only in schema.sql: {line}" for line in sorted(specified - live))
    yield from (f"only in the live database: {line}" for line in sorted(live - specified))


def read_rows(cursor: Any) -> set[str]:
    """Read every row of the scratch schema."""
    found: set[str] = set()
    cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'", (SCRATCH,))
    for (table,) in cursor.fetchall():
        cursor.execute(f"SELECT it::text FROM {SCRATCH}.{table} it")
        found |= {f"row of {table} {row}" for (row,) in cursor.fetchall()}
    return found
