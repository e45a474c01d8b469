"""Copies of a service with one guard taken out, for the negative controls: the same check has to fail against them.

A copy is a process of its own, on ports of its own; the code on disk and the running stack stay as they are.
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
def weakened(stack: Stack, service: str, patch: str, env: Mapping[str, str] | None = None) -> Iterator[dict[str, int]]:
    """A copy of `service` that runs `patch` before it starts; yields its ports, `PORT` and perhaps `GRPC_PORT`."""
    environment = {**stack.env(service), **(env or {})}
    names: list[str] = [name for name in ("PORT", "GRPC_PORT") if name in environment]
    own = dict(zip(names, ports.claim([int(environment[name]) for name in names]), strict=True))
    environment |= {name: str(port) for name, port in own.items()}
    package = service.removesuffix("-service")
    script = f"{patch}\nfrom services.{package}.main import main\nmain()"
    program = Program(service, (sys.executable, "-c", script), environment, {}, (own["PORT"], "/health"))
    log = stack.run_dir.logs / f"{service}-weakened.log"
    identity = process.spawn(program.argv, environment, log, stack.run_dir.path)
    try:
        assert process.wait_for(program.is_ready, 30), Path(log).read_text()[-2000:]
        yield own
    finally:
        process.terminate(identity, signal.SIGTERM, STOP_SECONDS)
        ports.release(list(own.values()))


@contextmanager
def database_without(stack: Stack, service: str, dropping: str) -> Iterator[tuple[str, str]]:
    """Name and DSN of an empty database of `service`, on its own server; `dropping` is the SQL that weakens it."""
    env = stack.env(service)
    name = f"{env['DB_NAME']}_{uuid4().hex[:8]}"
    with closing(psycopg2.connect(stack.admin_dsn(env["DB_NAME"]))) as admin, admin.cursor() as cursor:
        admin.autocommit = True
        owner = sql.Identifier(env["DB_USER"])
        cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), owner))
        try:
            dsn = stack.dsn(service).replace(f"/{env['DB_NAME']}", f"/{name}")
            _fill(dsn, service, dropping)
            yield name, dsn
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _fill(dsn: str, service: str, dropping: str) -> None:
    package = service.removesuffix("-service")
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        for part in ("chassis", package):
            cursor.execute((ROOT / "services" / part / "schema.sql").read_text())
        if dropping:
            cursor.execute(dropping)
        connection.commit()
