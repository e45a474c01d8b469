"""The restore of a database from a backup while the other services run on, as docs/operations.md describes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest

from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

OWNER = "SELECT rolname FROM pg_roles JOIN pg_database ON datdba = pg_roles.oid WHERE datname = 'users_db'"
END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'users_db'"


@contextmanager
def closed_users_db(system: TestSystem) -> Iterator[Any]:
    """A superuser's cursor while users_db accepts no connections. The services get 503 from User until the end."""
    server = psycopg2.connect(system.stack.admin_dsn("users_db"), dbname="postgres")
    server.autocommit = True
    with closing(server), server.cursor() as cursor:
        cursor.execute("ALTER DATABASE users_db ALLOW_CONNECTIONS false")
        try:
            cursor.execute(END_CONNECTIONS)
            yield cursor
        finally:
            cursor.execute("ALTER DATABASE users_db ALLOW_CONNECTIONS true")


def back_up(system: TestSystem) -> None:
    with closed_users_db(system) as cursor:
        cursor.execute("DROP DATABASE IF EXISTS users_db_backup")
        cursor.execute("CREATE DATABASE users_db_backup TEMPLATE users_db")


def restore(system: TestSystem) -> None:
    with closed_users_db(system) as cursor:
        cursor.execute(OWNER)
        (owner,) = cursor.fetchone()
        cursor.execute("DROP DATABASE users_db")
        cursor.execute(f"CREATE DATABASE users_db TEMPLATE users_db_backup OWNER {owner}")
        cursor.execute("DROP DATABASE users_db_backup")


def log_out(people: list[Person]) -> None:
    for person in people:
        person.post("/api/auth/logout", {}).must(200)


def are_refused(people: list[Person]) -> bool:
    """Whether the services behind the gateway refuse all tokens."""
    return all(person.get(path).status == 401 for person in people for path in ("/api/orders", "/api/events"))


def test_a_logout_after_a_restore_of_users_db_is_seen(system: TestSystem) -> None:
    """The list of revoked sessions becomes as long as before the restore, so its length does not show the restore."""
    before, lost, after = (system.people(3) for _ in range(3))
    log_out(before)
    system.wait_until("the first logouts are seen", lambda: are_refused(before))
    back_up(system)
    system.wait_until("every service is healthy", system.is_healthy)
    log_out(lost)
    system.wait_until("the logouts are seen", lambda: are_refused(lost))
    restore(system)
    system.wait_until("every service is healthy", system.is_healthy)
    log_out(after)
    system.wait_until("the logouts after the restore are seen", lambda: are_refused(after), 5)
