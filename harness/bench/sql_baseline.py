"""The SQL baseline: how many holds per second PostgreSQL alone can do, measured by pgbench.

Each client locks and updates seats in its own range of rows. A row and its baseline have the same number of clients.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2

from harness.bench.system import System
from harness.errors import StackError
from harness.runtime.postgres import find_binaries

MAX_CLIENTS, ROWS_PER_CLIENT = 16, 500
_TABLE = """
DROP TABLE IF EXISTS baseline_{rows};
CREATE TABLE baseline_{rows} (seat_id int PRIMARY KEY, status text NOT NULL, held_until timestamptz)
WITH (fillfactor = 70);
INSERT INTO baseline_{rows} SELECT generate_series(0, {last}), 'AVAILABLE'"""
_HOLD = """
\\set seat {span} * :client_id + random(0, {span} - 1)
BEGIN;
SELECT status FROM baseline_{rows} WHERE seat_id = :seat FOR UPDATE NOWAIT;
UPDATE baseline_{rows} SET status = 'HELD', held_until = now() WHERE seat_id = :seat;
COMMIT;
"""
_RATE = re.compile(r"tps = ([\d.]+)")


def create_table(system: System, rows: int) -> None:
    """Create the table of `rows` rows, but at least as many as the clients use."""
    last = max(rows, MAX_CLIENTS * ROWS_PER_CLIENT) - 1
    with closing(psycopg2.connect(system.admin_dsn("postgres"))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(_TABLE.format(rows=rows, last=last))
        cursor.execute(f"VACUUM ANALYZE baseline_{rows}")


def measure_rate(system: System, rows: int, clients: int) -> float:
    """Return the holds per second of `clients`. Raises StackError when pgbench fails."""
    return run_pgbench(system.admin_dsn("postgres"), _HOLD.format(rows=rows, span=ROWS_PER_CLIENT), clients)


def run_pgbench(dsn: str, transaction: str, clients: int) -> float:
    """Run a script for one second and return its transactions per second. Raises StackError when pgbench fails."""
    with TemporaryDirectory() as directory:
        script = Path(directory) / "transaction.sql"
        script.write_text(transaction)
        pgbench = [str(find_binaries("postgres:16") / "pgbench"), "--no-vacuum", "--protocol=prepared"]
        pgbench += [f"--client={clients}", "--jobs=2", "--time=1", f"--file={script}"]
        done = subprocess.run([*pgbench, dsn], capture_output=True, text=True, env=dict(os.environ), check=False)
    found = _RATE.search(done.stdout)
    if done.returncode or not found:
        raise StackError(f"pgbench failed: {done.stderr.strip()} {done.stdout.strip()}")
    return float(found[1])
