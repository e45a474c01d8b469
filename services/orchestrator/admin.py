"""Operator commands for sagas: `python -m services.orchestrator.admin list|show|retry|resolve|reconcile`.

- `list` lists the parked sagas, oldest first.
- `show SAGA` shows a saga with its input, its users, its amount and its seat.
- `retry SAGA` lets recovery try again. If it keeps failing, recovery parks the saga again.
- `resolve SAGA --as DONE|UNDONE --note TEXT` ends a saga by hand. Correct money and seat by hand first, because
  afterwards another saga can begin for the same order or transfer.
- `reconcile` compares the journal with the effects in the services, for example after one database was restored to an
  earlier moment than the others. It prints one line for each difference, and `--settle` settles those with a safe rule.

`retry`, `resolve` and `reconcile --settle` are recorded in the audit table with the name of the operator: `--by NAME`,
or the account of the machine.

The command reads the same environment as the service. It exits with status 1 when no such saga is parked, or when a
difference is left. `reconcile` exits with status 2 when a service does not answer.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn
from uuid import UUID

from services.chassis import json_codec
from services.chassis.db import Database, Row
from services.chassis.errors import Unknown
from services.chassis.settings import DatabaseSettings, read_or_exit
from services.orchestrator.app import Orchestrator, compose
from services.orchestrator.saga.journal_history import JournalHistory
from services.orchestrator.saga.reconcile import Reconciliation
from services.orchestrator.settings import Settings

DAY = timedelta(days=1)
MARGIN_SECONDS = 30.0  # a saga of this age has ended, or it has met a fault

_COLUMNS = """saga_id, flow, subject, attempt, status::text AS status, epoch, adoptions, given, result, created_at,
    ended_at AS parked_at, correlation_id"""
_LIST = f"SELECT {_COLUMNS} FROM sagas WHERE status = 'PARKED' ORDER BY created_at"
_SHOW = f"SELECT {_COLUMNS} FROM sagas WHERE saga_id = %(saga_id)s"
_RETRY = """
WITH changed AS (
UPDATE sagas SET status = 'RUNNING', result = NULL, ended_at = NULL, owner = NULL, deadline = clock_timestamp(),
    park_after = clock_timestamp() + interval '2 minutes'
WHERE saga_id = %(saga_id)s AND status = 'PARKED' RETURNING subject, saga_id)
INSERT INTO audit (operator, action, subject, saga_id) SELECT %(operator)s, 'retry', subject, saga_id FROM changed"""
_RESOLVE = """
WITH changed AS (
UPDATE sagas SET status = %(status)s::saga_status, epoch = epoch + 1, ended_at = clock_timestamp(),
    result = coalesce(result, '{}') || jsonb_build_object('resolved_by_hand', %(note)s::text)
WHERE saga_id = %(saga_id)s AND status = 'PARKED' RETURNING subject, saga_id)
INSERT INTO audit (operator, action, subject, saga_id, note)
SELECT %(operator)s, 'resolve', subject, saga_id, %(status)s || ': ' || %(note)s FROM changed"""


class ParkedSagas:
    """Reads and changes parked sagas."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self) -> list[Row]:
        """Return every parked saga, oldest first."""
        return self._db.read(lambda tx: tx.all(_LIST))

    def show(self, saga_id: UUID) -> Row | None:
        """Return one saga, parked or not, or None."""
        return self._db.read(lambda tx: tx.one(_SHOW, saga_id=saga_id))

    def retry(self, saga_id: UUID, operator: str) -> bool:
        """Return a saga to recovery. False when it is not parked."""
        return self._update(_RETRY, saga_id=saga_id, operator=operator)

    def resolve(self, saga_id: UUID, status: str, note: str, operator: str) -> bool:
        """End a saga by hand as DONE or UNDONE. False when it is not parked."""
        return self._update(_RESOLVE, saga_id=saga_id, status=status, note=note, operator=operator)

    def _update(self, sql: str, **params: Any) -> bool:
        with self._db.transaction() as tx:
            return tx.run(sql, **params) == 1


def main(
    arguments: Sequence[str] | None = None,
    parked: ParkedSagas | None = None,
    orchestrator: Orchestrator | None = None,
) -> int:
    """Run one command and return the exit status."""
    options = _make_parser().parse_args(arguments)
    if options.command == "reconcile":
        return _reconcile(options, orchestrator or compose(read_or_exit(Settings.read)))
    sagas = parked or ParkedSagas(Database(read_or_exit(DatabaseSettings.read)))
    if options.command == "list":
        return _print_all(sagas.list())
    if options.command == "show":
        found = sagas.show(options.saga_id)
        return _print_all([found]) if found else _print_not_parked(options.saga_id)
    if options.command == "retry":
        return _print_change(sagas.retry(options.saga_id, options.by), options, "returned to recovery")
    changed = sagas.resolve(options.saga_id, options.status, options.note, options.by)
    return _print_change(changed, options, options.status)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.orchestrator.admin", description="Operator commands for sagas."
    )
    account = os.environ.get("USER") or f"uid {os.getuid()}"  # a container has no name for its user
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the parked sagas")
    for name, text in (("show", "show a saga"), ("retry", "let recovery try again"), ("resolve", "end a saga by hand")):
        command = commands.add_parser(name, help=text)
        command.add_argument("saga_id", type=UUID)
        if name != "show":
            command.add_argument("--by", default=account, help="your name, for the record (default: %(default)s)")
    command.add_argument("--as", dest="status", choices=("DONE", "UNDONE"), required=True)
    command.add_argument(
        "--note", required=True, help="the correction that you made by hand, for later readers of the journal"
    )
    command = commands.add_parser("reconcile", help="compare the journal with the effects in the services")
    command.add_argument("--settle", action="store_true", help="settle the differences that have a safe rule")
    command.add_argument(
        "--since",
        type=_read_time,
        default=datetime.now(UTC) - DAY,
        metavar="TIME",
        help="compare the sagas that began after this time (or up to 5 minutes before it), such as 2026-11-29T10:00Z "
        "(default: a day ago)",
    )
    command.add_argument("--only", type=UUID, metavar="ID", help="compare only this order or transfer")
    command.add_argument(
        "--margin",
        type=float,
        default=MARGIN_SECONDS,
        metavar="SECONDS",
        help="leave out sagas that ended later than this ago (default: %(default)s)",
    )
    command.add_argument("--by", default=account, help="your name, for the record (default: %(default)s)")
    return parser


def _read_time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, for example 2026-11-29T10:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _reconcile(options: argparse.Namespace, orchestrator: Orchestrator) -> int:
    reconciliation = Reconciliation(
        JournalHistory(orchestrator.db, options.only),
        orchestrator.participants,
        orchestrator.runner,
        since=options.since,
        margin_seconds=options.margin,
    )
    left = 0
    try:
        for difference in reconciliation.list_differences():
            failure = reconciliation.settle(difference, options.by) if options.settle else "dry run"
            left += bool(failure)
            result = f" Not settled: {failure}" if failure else " Settled."
            print(f"{difference}{result if options.settle else ''}", flush=True)
    except Unknown as unknown:
        print(f"stopped: {unknown.message}", file=sys.stderr)
        return 2
    return 1 if left else 0


def _print_all(rows: list[Row]) -> int:
    for row in rows:
        print(json_codec.encode(dict(row)).decode())
    if not rows:
        print("no saga is parked", file=sys.stderr)
    return 0


def _print_change(changed: bool, options: argparse.Namespace, what: str) -> int:
    if not changed:
        return _print_not_parked(options.saga_id)
    print(f"{options.saga_id}: {what} by {options.by}")
    return 0


def _print_not_parked(saga_id: UUID) -> int:
    print(f"saga {saga_id} is not parked, `list` shows the parked sagas", file=sys.stderr)
    return 1


def run_main() -> NoReturn:
    """Run the command and exit with its status. If the reader of its output has gone, as in `| head`, exit silently."""
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at its end
        status = 128 + signal.SIGPIPE
    sys.exit(status)


if __name__ == "__main__":
    run_main()
