"""The record of the commands of staff and operators: the person, the order or transfer, and the outcome.

A trigger of schema.sql records a command that begins a saga, in the transaction that writes the saga to the journal.
The commands of `admin.py` record themselves in the statement of their effect. User records its commands itself, and
each list copies the new ones from there. No role can change a record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.chassis import json_codec
from services.chassis.db import Database, Row

Data = dict[str, Any]

_LIST = """
SELECT audit_id, at, staff_id, operator, action, audit.subject, audit.saga_id, note, sagas.status::text AS outcome,
    audit.correlation_id
FROM audit LEFT JOIN sagas USING (saga_id)
ORDER BY at DESC, audit_id DESC LIMIT %(limit)s OFFSET %(offset)s"""
_CURSOR = "SELECT coalesce(max(user_seq), 0) AS seq FROM audit"
_COPY = """
INSERT INTO audit (user_seq, at, staff_id, action, subject, correlation_id)
SELECT seq, at, staff_id, action, subject, correlation_id FROM jsonb_to_recordset(%(commands)s::jsonb)
    AS command (seq bigint, at timestamptz, staff_id uuid, action text, subject uuid, correlation_id uuid)
ON CONFLICT (user_seq) DO NOTHING"""
_COUNT = "SELECT count(*) AS total FROM audit"


def list_records(db: Database, page: int, per_page: int) -> tuple[list[Row], int]:
    """A page of all records, newest first, and their number. `outcome` is the status of the saga now."""
    rows = db.read(lambda tx: tx.all(_LIST, limit=per_page, offset=(page - 1) * per_page))
    return rows, int(db.read(lambda tx: tx.only(_COUNT))["total"])


def copy_commands(db: Database, read: Callable[[int], list[Data]]) -> None:
    """Copy the commands that User has recorded since the last copy. `read(after)` returns the next ones."""
    after = int(db.read(lambda tx: tx.only(_CURSOR))["seq"])
    while commands := read(after):
        with db.transaction() as tx:
            tx.run(_COPY, commands=json_codec.encode(commands).decode())
        after = int(commands[-1]["seq"])
