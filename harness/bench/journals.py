"""The journal of the sagas: its cost per step, compared with DBOS, and the rate at which `sagas_db` saturates."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.util import find_spec
from statistics import median

import psycopg2

from harness.bench.measure import Bench
from harness.bench.sql_baseline import run_pgbench
from harness.bench.system import System
from harness.bench.verdict import RATE, Row, at_least
from harness.errors import StackError
from harness.runtime.compose import ROOT

STEPS = 3  # of pay
SECONDS, JOURNAL_ROUNDS, CLIENTS = 1.5, 3, 16
DBOS_DATABASE = "bench_dbos"

_COPY = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.sagas (LIKE sagas INCLUDING ALL);
CREATE TABLE bench.outbox (LIKE outbox INCLUDING ALL)"""
_BEGIN = """
INSERT INTO bench.sagas (flow, subject, attempt, given, owner, deadline, park_after)
VALUES ('{flow}', gen_random_uuid(), 1, '{{}}', gen_random_uuid(), now(), now()) RETURNING saga_id
\\gset
"""
_END = """
UPDATE bench.sagas SET status = 'DONE', result = '{}', ended_at = clock_timestamp() WHERE saga_id = :saga_id;
"""
_END_WITH_NOTICE = """
WITH ended AS (
    UPDATE bench.sagas SET status = 'DONE', result = '{}', ended_at = clock_timestamp() WHERE saga_id = :saga_id
    RETURNING saga_id)
INSERT INTO bench.outbox (saga_id, user_id, message, fields) SELECT saga_id, gen_random_uuid(), 'bench', '{}'
FROM ended RETURNING notice_id
\\gset
UPDATE bench.outbox SET tries = 1 WHERE notice_id = :notice_id;
UPDATE bench.outbox SET sent_at = clock_timestamp() WHERE notice_id = :notice_id;
"""
PURCHASE = _BEGIN.format(flow="reserve") + _END + _BEGIN.format(flow="pay") + _END_WITH_NOTICE
"""The writes of one purchase to `sagas_db`: two sagas, and a notice that is taken and sent."""


def measure_dbos(bench: Bench) -> Row | None:
    """Compare the journal with DBOS on the same server. None without the package `dbos`."""
    if find_spec("dbos") is None:
        return None
    system = bench.runs.system
    with closing(psycopg2.connect(system.admin_dsn("postgres"))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"DROP DATABASE IF EXISTS {DBOS_DATABASE}")
        cursor.execute(f"CREATE DATABASE {DBOS_DATABASE}")
    ours = _run_workflows("saga", system.admin_dsn("sagas_db"))
    others = _run_workflows("dbos", system.admin_dsn(DBOS_DATABASE))
    per_step = [1000 / STEPS / median(rates) for rates in (ours, others)]
    raw = f"one step in {per_step[0]:.2f} and in {per_step[1]:.2f} ms"
    ratios = [saga / workflow for saga, workflow in zip(ours, others, strict=True)]
    return Row(f"sagas/s ÷ workflows/s of DBOS, {STEPS} steps each", ratios, RATE, 1, at_least(1.5, 3), raw)


def measure_saturation(system: System) -> list[float]:
    """Return the purchases per second whose journal writes `sagas_db` can do, of each round."""
    dsn = system.admin_dsn("sagas_db")
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(_COPY)
        try:
            return [run_pgbench(dsn, PURCHASE, CLIENTS) for _ in range(JOURNAL_ROUNDS)]
        finally:
            cursor.execute("DROP SCHEMA bench CASCADE")


def _run_workflows(engine: str, dsn: str) -> list[float]:
    """Return the workflows per second of one process with eight threads, of each round. Raises StackError."""
    numbers = map(str, (STEPS, SECONDS, JOURNAL_ROUNDS))
    command: Sequence[str] = [sys.executable, "-m", "harness.bench.workflows", engine, dsn, *numbers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{engine}: {done.stderr.strip()[-2000:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))
