"""Runs a copy of a service without one of its guards, for negative controls.

A copy is a separate process with its own ports, so the code on disk and the running stack do not change.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg2
from psycopg2 import sql

from harness import Stack
from harness.runtime import ports, process
from harness.runtime.compose import ROOT
from harness.runtime.program import Program

STOP_SECONDS = 10.0


@contextmanager
def run_patched(
    stack: Stack, service: str, patch: str, env: Mapping[str, str] | None = None
) -> Iterator[dict[str, int]]:
    """Run a copy of `service` that executes `patch` before it starts. Yields its ports by variable name."""
    environment = {**stack.env(service), **(env or {})}
    names: list[str] = [name for name in ("PORT", "GRPC_PORT") if name in environment]
    ports_of_copy = dict(zip(names, ports.claim([int(environment[name]) for name in names]), strict=True))
    environment |= {name: str(port) for name, port in ports_of_copy.items()}
    package = service.removesuffix("-service")
    script = f"{patch}\nfrom services.{package}.main import main\nmain()"
    program = Program(service, (sys.executable, "-c", script), environment, {}, (ports_of_copy["PORT"], "/health"))
    log = stack.run_dir.logs / f"{service}-patched.log"
    identity = process.spawn(program.argv, environment, log, stack.run_dir.path)
    try:
        is_up = process.wait_for(lambda: process.listens(identity, ports_of_copy.values()) and program.is_ready(), 30)
        assert is_up, Path(log).read_text()[-2000:]
        yield ports_of_copy
    finally:
        process.terminate(identity, signal.SIGTERM, STOP_SECONDS)
        ports.release(list(ports_of_copy.values()))


@contextmanager
def create_patched_database(stack: Stack, service: str, patch: str) -> Iterator[tuple[str, str]]:
    """Create an empty database of `service` and run the SQL of `patch` in it. Yields its name and DSN."""
    env = stack.env(service)
    name = f"{env['DB_NAME']}_{uuid4().hex[:8]}"
    with closing(psycopg2.connect(stack.admin_dsn(env["DB_NAME"]))) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        owner = sql.Identifier(env["DB_USER"])
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))
        try:
            dsn = stack.dsn(service).replace(f"/{env['DB_NAME']}", f"/{name}")
            _create_tables(dsn, service, patch)
            yield name, dsn
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create_tables(dsn: str, service: str, patch: str) -> None:
    package = service.removesuffix("-service")
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        for script in ("chassis/schema.sql", f"{package}/schema.sql", "chassis/init_complete.sql"):
            cursor.execute((ROOT / "services" / script).read_text())
        if patch:
            cursor.execute(patch)
        connection.commit()
