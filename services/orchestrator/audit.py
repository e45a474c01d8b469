"""The record of the commands of staff and operators: the person, the order or transfer, and the outcome.

A command that begins a saga is recorded by a trigger of schema.sql, in the transaction that writes the saga to the
journal. The commands of `admin.py` record themselves in the statement of their effect. No role can change a record.
"""

from __future__ import annotations

from services.chassis.db import Database, Row

_LIST = """
SELECT audit_id, at, staff_id, operator, action, audit.subject, audit.saga_id, note, sagas.status::text AS outcome,
    audit.correlation_id
FROM audit LEFT JOIN sagas USING (saga_id)
ORDER BY at DESC, audit_id DESC LIMIT %(limit)s OFFSET %(offset)s"""
_COUNT = "SELECT count(*) AS total FROM audit"


def list_records(db: Database, page: int, per_page: int) -> tuple[list[Row], int]:
    """A page of all records, newest first, and their number. `outcome` is the status of the saga now."""
    rows = db.read(lambda tx: tx.all(_LIST, limit=per_page, offset=(page - 1) * per_page))
    return rows, int(db.read(lambda tx: tx.only(_COUNT))["total"])
