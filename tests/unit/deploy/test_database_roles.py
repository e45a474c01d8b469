"""The init scripts of a database container create an ordinary role that owns the service's database."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT

from harness.runtime import compose, variables
from harness.runtime.compose import ROOT
from harness.runtime.postgres import SUPERUSER
from tests.support.databases import BIN, Databases

pytestmark = pytest.mark.unit

FILE = ROOT / "compose.yaml"
SERVICES = compose.load(FILE, variables.resolve({}, {}, compose.variables_of(FILE)))
RIGHTS = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
OWNERS = """
SELECT DISTINCT pg_get_userbyid(owner) FROM (
    SELECT relowner AS owner FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT proowner FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT nspowner FROM pg_namespace WHERE nspname = 'init_complete'
    UNION ALL SELECT datdba FROM pg_database WHERE datname = current_database()) AS owners"""


def connect(databases: Databases, database: str, user: str) -> Any:
    connection = psycopg2.connect(host=str(databases.home), dbname=database, user=user)
    connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
    return closing(connection)


@pytest.fixture
def name(databases: Databases) -> Iterator[str]:
    """The name of a new database and of its future role, in a server whose superuser has a password."""
    unique = f"roles_{uuid4().hex[:8]}"
    with connect(databases, "postgres", SUPERUSER) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {unique}")
        cursor.execute(f"ALTER ROLE {SUPERUSER} PASSWORD 'of the image'")
        yield unique
        cursor.execute(f"DROP DATABASE {unique} WITH (FORCE)")
        cursor.execute(f"DROP ROLE IF EXISTS {unique}")


@pytest.mark.claim("compose/users-db")
@pytest.mark.parametrize("container", [name for name, found in SERVICES.items() if found.kind == "postgres"])
def test_role_only_owns_its_database(databases: Databases, name: str, container: str) -> None:
    """The scripts run as the image runs them: one session for each, as superuser."""
    psql = [str(BIN / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(databases.home), "-U", SUPERUSER]
    env = {
        **os.environ,
        "DB_USER": name,
        "POSTGRES_PASSWORD": "it's a secret",
        "PGOPTIONS": "-c client_min_messages=warning",
    }
    for script in SERVICES[container].initdb:
        subprocess.run([*psql, "-d", name, "-f", str(script)], env=env, check=True)
    with connect(databases, name, name) as own, own.cursor() as cursor:
        cursor.execute(f"SELECT {RIGHTS} FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False,)
        cursor.execute(OWNERS)
        assert cursor.fetchall() == [(name,)]
        cursor.execute("CREATE TABLE of_a_later_version ()")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("UPDATE clock_offset SET shift = '1 day'")
    with connect(databases, "postgres", SUPERUSER) as admin, admin.cursor() as cursor:
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = current_user")
        assert cursor.fetchone() == (None,)
