"""The journal: a saga is written at its *begin* and at its *end* (rules R2, R3, R6 of docs/sagas.md).

The process that runs a saga has its epoch. An adopter takes a higher epoch, and then the end write of the lower one
changes nothing. Leases use the real clock, because they are about processes and not about holds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from services.chassis import correlation, json_codec
from services.chassis.db import Database, Row
from services.chassis.errors import NotSent, Unknown

LEASE_SECONDS = 2.0
LONGEST_GAP_SECONDS = LEASE_SECONDS / 2  # between two renewals. A longer one means that the database was not available.


class Status(StrEnum):
    """The status of a saga. PARKED waits for an operator and still counts as live."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    REFUSED = "REFUSED"
    UNDONE = "UNDONE"
    PARKED = "PARKED"


@dataclass(frozen=True)
class Entry:
    """A row of the journal."""

    saga_id: UUID
    flow: str
    subject: UUID
    dispute_number: int
    attempt: int
    caller: UUID | None
    given: Mapping[str, Any]
    status: Status
    result: Mapping[str, Any] | None
    epoch: int
    correlation_id: UUID | None
    is_overdue: bool
    reserved: Mapping[str, Any] | None = None

    @property
    def is_live(self) -> bool:
        """True while no other saga can begin for the same subject."""
        return self.status in (Status.RUNNING, Status.PARKED)


@dataclass(frozen=True)
class NoticeDue:
    """A notice for the outbox."""

    user_id: str
    message: str
    fields: Mapping[str, Any]


# `reserved` is what the reserve of the order stored. Before the hold ends, only a code or a pay changes the order. The
# first pay of an order without a code therefore need not read it. Rows of older versions have no event_id.
COLUMNS = """saga_id, flow, subject, dispute_number, attempt, caller, given, status::text AS status, result, epoch,
    correlation_id, park_after < clock_timestamp() AS is_overdue, (
        SELECT own.given || own.result FROM sagas AS own
        WHERE sagas.flow = 'pay' AND sagas.attempt = 1
            AND own.flow = 'reserve' AND own.subject = sagas.subject AND own.status = 'DONE'
            AND own.result ? 'event_id' AND NOT (own.result ->> 'otp_required')::boolean
            AND (own.result ->> 'held_until')::timestamptz > app_now()) AS reserved"""

# One statement reads the last attempt and writes the next one. If another process began or ended an attempt in
# between, one of the two unique indexes refuses the write.
_BEGIN = f"""
WITH last AS (
    SELECT attempt, status FROM sagas
    WHERE flow = %(flow)s AND subject = %(subject)s AND dispute_number = %(dispute_number)s
    ORDER BY attempt DESC LIMIT 1)
INSERT INTO sagas (saga_id, flow, subject, dispute_number, attempt, caller, given, owner, deadline, park_after,
    correlation_id)
SELECT %(saga_id)s, %(flow)s, %(subject)s, %(dispute_number)s, coalesce((SELECT attempt FROM last), 0) + 1,
    %(caller)s, %(given)s, %(owner)s,
    clock_timestamp() + make_interval(secs => %(seconds)s),
    clock_timestamp() + make_interval(secs => %(park_seconds)s), %(correlation_id)s
WHERE NOT EXISTS (SELECT FROM last WHERE status IN ('DONE', 'RUNNING', 'PARKED') OR %(one_attempt)s)
ON CONFLICT DO NOTHING
RETURNING {COLUMNS}"""

_LAST = f"""SELECT {COLUMNS} FROM sagas
WHERE flow = %(flow)s AND subject = %(subject)s AND dispute_number = %(dispute_number)s ORDER BY attempt DESC LIMIT 1"""
_LIVE = f"SELECT {COLUMNS} FROM sagas WHERE subject = %(subject)s AND status IN ('RUNNING', 'PARKED')"
_GET = f"SELECT {COLUMNS} FROM sagas WHERE saga_id = %(saga_id)s"

# The statement that ends the saga also writes its notices, so a crash cannot separate them.
_END = """
WITH ended AS (
    UPDATE sagas SET status = %(status)s::text::saga_status, result = %(result)s, ended_at = clock_timestamp()
    WHERE saga_id = %(saga_id)s AND epoch = %(epoch)s AND status = 'RUNNING'
    RETURNING saga_id, correlation_id),
noticed AS (
    INSERT INTO outbox (saga_id, user_id, message, fields, correlation_id)
    SELECT saga_id, due.user_id, due.message, due.fields, correlation_id
    FROM ended, jsonb_to_recordset(%(notices)s::jsonb) AS due (user_id uuid, message text, fields jsonb))
SELECT saga_id FROM ended"""

# An outage of this database ends every lease, also those of live processes. A process therefore judges the leases of
# others only after it has renewed its own without a gap for a whole lease. By then each live process has renewed too.
# A saga that this process owns and has left needs no judgement.
# All comparisons use one reading of the clock, so an outage during the statement cannot end a lease that it has read.
CLOCK = "clock AS MATERIALIZED (SELECT clock_timestamp() AS now)"
MAY_JUDGE_LEASES = f"""EXISTS (SELECT FROM heartbeats me WHERE me.instance_id = %(owner)s
            AND me.unbroken_since <= clock.now - interval '{LEASE_SECONDS} seconds'
            AND me.lease_until > clock.now + interval '{LEASE_SECONDS - LONGEST_GAP_SECONDS} seconds')"""

_ADOPT = f"""
WITH {CLOCK}
UPDATE sagas SET owner = %(owner)s, epoch = epoch + 1, adoptions = adoptions + 1,
    deadline = CASE WHEN owner = %(owner)s THEN deadline
        ELSE clock_timestamp() + make_interval(secs => %(seconds)s) END
WHERE saga_id IN (
    SELECT s.saga_id FROM sagas s, clock
    WHERE s.status = 'RUNNING' AND (s.owner = %(owner)s AND s.saga_id = ANY (%(left)s::uuid[])
        OR {MAY_JUDGE_LEASES} AND (s.deadline < clock.now AND s.saga_id <> ALL (%(paused)s::uuid[])
        OR s.owner IS DISTINCT FROM %(owner)s AND NOT EXISTS (
        SELECT FROM heartbeats h WHERE h.instance_id = s.owner AND h.lease_until > clock.now)))
    ORDER BY s.adoptions, s.deadline LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED)
RETURNING {COLUMNS}"""

_BEAT = f"""
INSERT INTO heartbeats AS h (instance_id, lease_until)
VALUES (%(instance_id)s, clock_timestamp() + interval '{LEASE_SECONDS} seconds')
ON CONFLICT (instance_id) DO UPDATE SET lease_until = clock_timestamp() + interval '{LEASE_SECONDS} seconds',
    unbroken_since = CASE
        WHEN h.lease_until > clock_timestamp() + interval '{LEASE_SECONDS - LONGEST_GAP_SECONDS} seconds'
        THEN h.unbroken_since ELSE clock_timestamp() END
RETURNING instance_id"""


class Journal:
    """The journal of one orchestrator process. `instance_id` is new at each start of the process."""

    def __init__(self, db: Database, *, deadline_seconds: float, park_seconds: float) -> None:
        self._db = db
        self._seconds = deadline_seconds
        self._park_seconds = park_seconds
        self.instance_id = uuid4()
        self._left: dict[UUID, float] = {}  # sagas, and the reading of `time.monotonic()` from which they are adopted

    def begin(
        self,
        flow: str,
        subject: UUID,
        given: Mapping[str, Any],
        *,
        caller: UUID | None,
        dispute_number: int,
        one_attempt: bool,
    ) -> tuple[Entry, bool]:
        """Start an attempt and return (its entry, True), or return (the entry that blocks it, False).

        The blocking entry is the live saga of the subject, of any flow, or the last attempt of this flow, whose
        result is final. Raises Unknown. If the attempt has begun nevertheless, the next `adopt` takes it.
        """
        which = {"flow": flow, "subject": subject, "dispute_number": dispute_number}
        what = {"given": _encode(given), "caller": caller, "one_attempt": one_attempt, "owner": self.instance_id}
        when = {"seconds": self._seconds, "park_seconds": self._park_seconds, "correlation_id": correlation.current()}
        while True:
            saga_id = make_id()
            try:
                row = self._db.statement(_BEGIN, saga_id=saga_id, **which, **what, **when)
            except NotSent:
                raise
            except Unknown:
                self.leave(saga_id)
                raise
            found = row or self._db.statement(_LIVE, subject=subject) or self._db.statement(_LAST, **which)
            if found and (row or _blocks_next_attempt(found, one_attempt)):
                return read_entry(found), row is not None

    def end(self, entry: Entry, status: Status, result: Mapping[str, Any], notices: Sequence[NoticeDue] = ()) -> bool:
        """Write the end with its notices. False when another process adopted or ended the saga before."""
        due = [{"user_id": n.user_id, "message": n.message, "fields": n.fields} for n in notices]
        what = {"status": status, "result": _encode(result), "notices": json_codec.encode(due).decode()}
        return self._db.statement(_END, saga_id=entry.saga_id, epoch=entry.epoch, **what) is not None

    def leave(self, saga_id: UUID, pause_seconds: float = 0.0) -> None:
        """Let `adopt` take a saga that this process has stopped to work on, after a pause.

        Nothing is written, so this also works while the database cannot be reached.
        """
        self._left[saga_id] = time.monotonic() + pause_seconds

    def read(self, saga_id: UUID) -> Entry:
        """Return the current entry of a saga."""
        return read_entry(self._db.read(lambda tx: tx.only(_GET, saga_id=saga_id)))

    def find_live_flow(self, subject: UUID) -> str | None:
        """Return the flow of the saga that is live for `subject`, or None."""
        live = self._db.statement(_LIVE, subject=subject)
        return None if live is None else live["flow"]

    def beat(self) -> None:
        """Renew this process's lease for `LEASE_SECONDS`."""
        self._db.statement(_BEAT, instance_id=self.instance_id)

    def adopt(self, limit: int) -> list[Entry]:
        """Adopt sagas that this process has left, that are past their deadline, or that have no live owner.

        Each gets a new epoch, and a new deadline if its owner changes. So another process takes a saga over that this
        one cannot end by its deadline. Within `LEASE_SECONDS` of the first lease of this process or of an outage of the
        database, only sagas that this process has left are adopted.
        """
        now = time.monotonic()
        known = list(self._left.items())
        left = [saga_id for saga_id, since in known if since <= now]
        paused = [saga_id for saga_id, since in known if since > now]
        which = {"owner": self.instance_id, "left": left, "paused": paused, "limit": limit}
        adopted: list[Entry] = []
        try:
            with self._db.transaction() as tx:
                adopted += [read_entry(row) for row in tx.all(_ADOPT, seconds=self._seconds, **which)]
        except Unknown:  # they may be adopted, and nothing works on them
            for entry in adopted:
                self.leave(entry.saga_id)
            raise
        taken = {entry.saga_id for entry in adopted}
        for saga_id, since in list(self._left.items()):
            if saga_id in taken or since + self._seconds < now:  # its deadline has passed too, unless it has ended
                self._left.pop(saga_id, None)
        return adopted

    def resign(self) -> None:
        """End this process's lease now, so that other processes adopt its sagas at once."""
        with self._db.transaction() as tx:
            tx.run("DELETE FROM heartbeats WHERE instance_id = %(instance_id)s", instance_id=self.instance_id)

    def delete_stale_heartbeats(self) -> None:
        """Delete the rows of processes whose lease ended an hour ago."""
        with self._db.transaction() as tx:
            tx.run("DELETE FROM heartbeats WHERE lease_until < clock_timestamp() - interval '1 hour'")


def make_id() -> UUID:
    """Return a new UUIDv7. It begins with the time, so new rows are neighbours in every index, which saves WAL."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    return UUID(int=number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def _blocks_next_attempt(found: Row, one_attempt: bool) -> bool:
    """Return False when the attempt was undone or refused between the two statements, so that `begin` repeats."""
    return one_attempt or found["status"] in (Status.RUNNING, Status.PARKED, Status.DONE)


def read_entry(row: Row) -> Entry:
    """Return the entry of a row with COLUMNS."""
    return Entry(**{**row, "status": Status(row["status"])})


def _encode(value: Mapping[str, Any]) -> str:
    return json_codec.encode(value).decode()
