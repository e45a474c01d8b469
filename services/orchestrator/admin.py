"""Parked sagas, for the person who looks after them: `python -m services.orchestrator.admin list|show|retry|resolve`.

    list             what is parked, oldest first
    show SAGA        one saga with what it was given, and where the money stands
    retry SAGA       let recovery try again; it parks it again if it keeps failing
    resolve SAGA --as DONE|UNDONE --note TEXT
                     end it by hand, after putting things right by hand: it no longer keeps others off its subject

Reads the same environment as the service. Exit status 1: no such parked saga.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.chassis import json_codec
from services.chassis.db import Database, Row
from services.chassis.settings import DatabaseSettings, read_or_exit

_COLUMNS = """saga_id, flow, subject, attempt, status::text AS status, epoch, adoptions, given, result, created_at,
    ended_at AS parked_at, correlation_id"""
_LIST = f"SELECT {_COLUMNS} FROM sagas WHERE status = 'PARKED' ORDER BY created_at"
_SHOW = f"SELECT {_COLUMNS} FROM sagas WHERE saga_id = %(saga_id)s"
_RETRY = """
UPDATE sagas SET status = 'RUNNING', result = NULL, ended_at = NULL, owner = NULL, deadline = clock_timestamp(),
    park_after = clock_timestamp() + interval '2 minutes'
WHERE saga_id = %(saga_id)s AND status = 'PARKED'"""
_RESOLVE = """
UPDATE sagas SET status = %(status)s::saga_status, epoch = epoch + 1, ended_at = clock_timestamp(),
    result = coalesce(result, '{}') || jsonb_build_object('resolved_by_hand', %(note)s::text)
WHERE saga_id = %(saga_id)s AND status = 'PARKED'"""


class ParkedSagas:
    """What the command does, without the command line."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self) -> list[Row]:
        """Every parked saga, oldest first."""
        with self._db.transaction() as tx:
            return tx.all(_LIST)

    def show(self, saga_id: UUID) -> Row | None:
        """One saga, parked or not."""
        with self._db.transaction() as tx:
            return tx.one(_SHOW, saga_id=saga_id)

    def retry(self, saga_id: UUID) -> bool:
        """Hand it back to recovery. False when it is not parked."""
        return self._changed(_RETRY, saga_id=saga_id)

    def resolve(self, saga_id: UUID, status: str, note: str) -> bool:
        """End it by hand as DONE or UNDONE. False when it is not parked."""
        return self._changed(_RESOLVE, saga_id=saga_id, status=status, note=note)

    def _changed(self, sql: str, **params: Any) -> bool:
        with self._db.transaction() as tx:
            return tx.run(sql, **params) == 1


def main(arguments: Sequence[str] | None = None, parked: ParkedSagas | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    sagas = parked or ParkedSagas(Database(read_or_exit(DatabaseSettings.read)))
    if options.command == "list":
        return _print_all(sagas.list())
    if options.command == "show":
        found = sagas.show(options.saga_id)
        return _print_all([found]) if found else _none(options.saga_id)
    if options.command == "retry":
        return _said(sagas.retry(options.saga_id), options.saga_id, "handed back to recovery")
    return _said(sagas.resolve(options.saga_id, options.status, options.note), options.saga_id, options.status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.orchestrator.admin", description="Parked sagas.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is parked")
    for name, text in (("show", "one saga"), ("retry", "let recovery try again"), ("resolve", "end it by hand")):
        command = commands.add_parser(name, help=text)
        command.add_argument("saga_id", type=UUID)
    command.add_argument("--as", dest="status", choices=("DONE", "UNDONE"), required=True)
    command.add_argument("--note", required=True, help="what was done by hand, for whoever reads the journal later")
    return parser


def _print_all(rows: list[Row]) -> int:
    for row in rows:
        print(json_codec.encode(dict(row)).decode())
    if not rows:
        print("nothing is parked", file=sys.stderr)
    return 0


def _said(changed: bool, saga_id: UUID, what: str) -> int:
    if not changed:
        return _none(saga_id)
    print(f"{saga_id}: {what}")
    return 0


def _none(saga_id: UUID) -> int:
    print(f"{saga_id} is not parked; `list` shows what is", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
