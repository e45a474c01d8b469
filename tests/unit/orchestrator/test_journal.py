"""The journal: one live saga a subject, one answer, and an end write that only the holder can make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier
from uuid import UUID, uuid4

import pytest

from services.chassis.db import Database
from services.chassis.settings import DatabaseSettings
from services.orchestrator.saga.journal import LEASE_SECONDS, Entry, Journal, NoticeDue, Status
from services.orchestrator.saga.recovery import Heartbeat
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit


@pytest.fixture
def db(database_for: Callable[[str], DatabaseSettings]) -> Iterator[Database]:
    """The orchestrator's database, with nothing of other tests for an adopter to find."""
    opened = Database(database_for("orchestrator"))
    _forget(opened)
    yield opened
    _forget(opened)
    opened.close()


def _forget(db: Database) -> None:
    with db.transaction() as tx:
        tx.run("DELETE FROM outbox")
        tx.run("DELETE FROM sagas")
        tx.run("DELETE FROM heartbeats")


@pytest.fixture
def journal(db: Database) -> Journal:
    """A process that is alive."""
    return _process(db)


def _process(db: Database, deadline_seconds: float = 60) -> Journal:
    journal = Journal(db, deadline_seconds=deadline_seconds, park_seconds=120)
    journal.beat()
    return journal


def _begin(
    journal: Journal, subject: UUID, flow: str = "pay", dispute_number: int = 0, one_attempt: bool = False
) -> tuple[Entry, bool]:
    return journal.begin(flow, subject, {"a": 1}, caller=None, dispute_number=dispute_number, one_attempt=one_attempt)


def test_twenty_begins_at_once_start_one_attempt(journal: Journal) -> None:
    subject, barrier = uuid4(), Barrier(8)

    def begin(_: int) -> bool:
        barrier.wait()
        return _begin(journal, subject)[1]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == 1


def test_attempt_that_ended_done_is_the_answer(journal: Journal) -> None:
    subject = uuid4()
    entry, mine = _begin(journal, subject)
    assert mine
    assert journal.end(entry, Status.DONE, {"answer": 42})
    again, mine = _begin(journal, subject)
    assert (mine, again.status, again.result) == (False, Status.DONE, {"answer": 42})


@pytest.mark.parametrize("ended", [Status.REFUSED, Status.UNDONE])
def test_attempt_that_ended_otherwise_is_followed_by_the_next(journal: Journal, ended: Status) -> None:
    subject = uuid4()
    entry, _ = _begin(journal, subject)
    journal.end(entry, ended, {"code": "INTERNAL_ERROR"})
    again, mine = _begin(journal, subject)
    assert (mine, again.attempt) == (True, 2)


@pytest.mark.parametrize("ended", [Status.REFUSED, Status.UNDONE, Status.DONE])
def test_flow_that_makes_its_subject_has_one_attempt(journal: Journal, ended: Status) -> None:
    subject = uuid4()
    entry, _ = _begin(journal, subject, one_attempt=True)
    journal.end(entry, ended, {"code": "INTERNAL_ERROR"})
    again, mine = _begin(journal, subject, one_attempt=True)
    assert (mine, again.status) == (False, ended)


@pytest.mark.parametrize("ended", [None, Status.PARKED])
def test_live_saga_keeps_every_flow_off_its_subject(journal: Journal, ended: Status | None) -> None:
    subject = uuid4()
    entry, _ = _begin(journal, subject, "pay")
    if ended:
        journal.end(entry, ended, {})
    other, mine = _begin(journal, subject, "refund")
    assert (mine, other.flow, other.is_live) == (False, "pay", True)


def test_a_second_dispute_is_another_round(journal: Journal) -> None:
    subject = uuid4()
    first, _ = _begin(journal, subject, "dispute", dispute_number=1)
    journal.end(first, Status.DONE, {"n": 1})
    second, mine = _begin(journal, subject, "dispute", dispute_number=2)
    assert (mine, second.dispute_number, second.attempt) == (True, 2, 1)


def test_end_write_of_an_older_epoch_changes_nothing(db: Database, journal: Journal) -> None:
    entry, _ = _begin(_process(db, deadline_seconds=-1), uuid4())
    [adopted] = [e for e in journal.adopt(16) if e.saga_id == entry.saga_id]
    assert adopted.epoch == entry.epoch + 1
    assert not journal.end(entry, Status.DONE, {"who": "the first"})
    assert journal.end(adopted, Status.UNDONE, {"who": "the adopter"})
    assert journal.read(entry.saga_id).result == {"who": "the adopter"}


def test_notices_are_written_with_the_end_that_counts_and_with_no_other(db: Database, journal: Journal) -> None:
    entry, _ = _begin(_process(db, deadline_seconds=-1), uuid4())
    [adopted] = [e for e in journal.adopt(16) if e.saga_id == entry.saga_id]
    due = [NoticeDue(str(uuid4()), "booking_confirmed", {"a": 1})]
    assert not journal.end(entry, Status.DONE, {}, due)
    assert _outbox(db, entry) == []
    assert journal.end(adopted, Status.DONE, {}, due)
    assert _outbox(db, entry) == [(due[0].user_id, "booking_confirmed")]


def _outbox(db: Database, entry: Entry) -> list[tuple[str, str]]:
    with db.transaction() as tx:
        rows = tx.all("SELECT user_id, message FROM outbox WHERE saga_id = %(saga_id)s", saga_id=entry.saga_id)
    return [(str(row["user_id"]), row["message"]) for row in rows]


def test_a_heart_that_beats_keeps_its_sagas(db: Database, journal: Journal) -> None:
    alive = Journal(db, deadline_seconds=60, park_seconds=120)
    heart = Heartbeat(alive)
    heart.start()
    wait_until(lambda: _leases(db, alive))
    kept, _ = _begin(alive, uuid4())
    [first] = _leases(db, alive)
    deadline = time.monotonic() + LEASE_SECONDS
    while _leases(db, alive) == [first]:
        assert time.monotonic() < deadline, "the lease was not renewed before it ran out"
    assert journal.adopt(16) == []
    heart.stop()
    assert [e.saga_id for e in journal.adopt(16)] == [kept.saga_id], "resigned: nobody waits for the lease to run out"


def _leases(db: Database, journal: Journal) -> list[datetime]:
    sql = "SELECT lease_until FROM heartbeats WHERE instance_id = %(instance_id)s"
    with db.transaction() as tx:
        return [row["lease_until"] for row in tx.all(sql, instance_id=journal.instance_id)]


def test_live_owner_in_time_is_left_alone_and_a_dead_one_is_not(db: Database, journal: Journal) -> None:
    alive, dead = _process(db), _process(db)
    kept, _ = _begin(alive, uuid4())
    orphan, _ = _begin(dead, uuid4())
    dead.resign()
    assert [e.saga_id for e in journal.adopt(16)] == [orphan.saga_id]
    assert journal.read(kept.saga_id).epoch == 1


def test_two_adopters_never_get_the_same_saga(db: Database) -> None:
    gone = Journal(db, deadline_seconds=60, park_seconds=120)
    wanted = {_begin(gone, uuid4())[0].saga_id for _ in range(12)}
    with ThreadPoolExecutor(4) as pool:
        adopted = [
            e.saga_id for entries in pool.map(lambda j: j.adopt(4), [_process(db) for _ in range(4)]) for e in entries
        ]
    assert len(adopted) == len(set(adopted))
    assert set(adopted) <= wanted
