"""Query plans during a sale, when the statistics of PostgreSQL date from a quiet hour before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.support.databases import Databases

Explain = Callable[..., str]
"""Returns the plan of a statement with these parameters as text."""


@contextmanager
def explain_during_sale(databases: Databases, service: str, table: str, quiet: str, busy: str) -> Iterator[Explain]:
    """Yield an `Explain`, after `quiet` has filled `table`, ANALYZE has run, and `busy` has added rows.

    The transaction is never committed, so the rows vanish with the connection.
    """
    with closing(databases.superuser(service)) as connection, connection.cursor() as cursor:
        connection.autocommit = False
        for sql in (f"TRUNCATE {table}", quiet, f"ANALYZE {table}", busy):
            cursor.execute(sql)

        def explain(sql: str, **params: Any) -> str:
            cursor.execute(f"EXPLAIN {sql}", params)
            return "\n".join(line for (line,) in cursor.fetchall())

        yield explain
