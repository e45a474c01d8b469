"""The journal as `admin reconcile` reads and changes it: ended sagas in order of time, and sagas that it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from services.chassis import json_codec
from services.chassis.db import Database
from services.orchestrator.saga.journal import COLUMNS, Entry, read_entry

PAGE = 25  # a flow has at most two effects in one service, and a query has at most 50 keys

# The ids begin with the time, so the primary key finds the sagas of a time and gives them in its order.
_ENDED = f"""
SELECT {COLUMNS} FROM sagas
WHERE saga_id > %(after)s AND flow = ANY(%(flows)s) AND status IN ('DONE', 'UNDONE', 'REFUSED')
    AND ended_at < clock_timestamp() - make_interval(secs => %(margin)s) AND NOT result ? 'resolved_by_hand'
    AND (%(subject)s::uuid IS NULL OR subject = %(subject)s)
    AND NOT EXISTS (
        SELECT FROM sagas AS live WHERE live.subject = sagas.subject AND live.status IN ('RUNNING', 'PARKED'))
ORDER BY saga_id LIMIT {PAGE}"""
_LACKED = """
SELECT flow, subject, dispute_number, attempt
FROM jsonb_to_recordset(%(names)s::jsonb) AS named (flow text, subject uuid, dispute_number int, attempt int)
WHERE (%(subject)s::uuid IS NULL OR subject = %(subject)s)
    AND NOT EXISTS (
        SELECT FROM sagas WHERE (sagas.flow, sagas.subject, sagas.dispute_number, sagas.attempt)
            = (named.flow, named.subject, named.dispute_number, named.attempt))
    AND NOT EXISTS (
        SELECT FROM sagas AS live WHERE live.subject = named.subject AND live.status IN ('RUNNING', 'PARKED'))"""
_LAST_DONE = f"""
SELECT {COLUMNS} FROM sagas WHERE flow = %(flow)s AND subject = %(subject)s AND status = 'DONE'
ORDER BY attempt DESC LIMIT 1"""
_RECORD = """
INSERT INTO audit (operator, action, subject, saga_id, note)
VALUES (%(operator)s, 'reconcile', %(subject)s, %(saga_id)s, %(note)s)"""
# Recovery adopts a saga without an owner at once.
_WRITE = """
WITH written AS (
INSERT INTO sagas (saga_id, flow, subject, dispute_number, attempt, caller, given, deadline, park_after)
VALUES (%(saga_id)s, %(flow)s, %(subject)s, %(dispute_number)s, %(attempt)s, %(caller)s, %(given)s, clock_timestamp(),
    clock_timestamp() + interval '2 minutes')
ON CONFLICT DO NOTHING RETURNING saga_id)
INSERT INTO audit (operator, action, subject, saga_id, note)
SELECT %(operator)s, 'reconcile', %(subject)s, saga_id, %(note)s FROM written"""


@dataclass(frozen=True)
class SagaName:
    """The parts of an effect's key that name its saga."""

    flow: str
    subject: UUID
    dispute_number: int
    attempt: int


class JournalHistory:
    """The sagas of all processes. `subject` limits it to one order or transfer."""

    def __init__(self, db: Database, subject: UUID | None = None) -> None:
        self._db = db
        self._subject = subject

    def list_ended(self, flows: Iterable[str], after: UUID, margin_seconds: float) -> list[Entry]:
        """Return the next sagas that ended at least `margin_seconds` ago, in the order of their begin.

        It leaves out sagas that an operator resolved by hand, and subjects with a live saga.
        """
        which = {"flows": list(flows), "after": after, "margin": margin_seconds, "subject": self._subject}
        return [read_entry(row) for row in self._db.read(lambda tx: tx.all(_ENDED, **which))]

    def find_lacked(self, names: Iterable[SagaName]) -> set[SagaName]:
        """Return those of `names` that are not in the journal. A subject with a live saga lacks none."""
        given = json_codec.encode([vars(name) for name in names]).decode()
        rows = self._db.read(lambda tx: tx.all(_LACKED, names=given, subject=self._subject))
        return {SagaName(**row) for row in rows}

    def find_done(self, flow: str, subject: UUID) -> Entry | None:
        """Return the saga of `flow` that is DONE for `subject`."""
        row = self._db.read(lambda tx: tx.one(_LAST_DONE, flow=flow, subject=subject))
        return read_entry(row) if row else None

    def record(self, entry: Entry, operator: str, note: str) -> None:
        """Record in the audit that an operator settles a difference of this saga."""
        with self._db.transaction() as tx:
            tx.run(_RECORD, operator=operator, subject=entry.subject, saga_id=entry.saga_id, note=note)

    def write(self, entry: Entry, operator: str, note: str) -> bool:
        """Write a saga as RUNNING for recovery, with its record. False while another saga of the subject is live."""
        names = ("saga_id", "flow", "subject", "dispute_number", "attempt", "caller")
        fields = {name: getattr(entry, name) for name in names}
        given = json_codec.encode(entry.given).decode()
        with self._db.transaction() as tx:
            return tx.run(_WRITE, **fields, given=given, operator=operator, note=note) == 1


def first_id(moment: datetime) -> UUID:
    """Return an id before those of all sagas that began after `moment`."""
    return UUID(int=int(moment.astimezone(UTC).timestamp() * 1000) << 80)
