"""The journal: one live saga per subject, one final result, and an end write that only the current holder can make."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import RFC_4122, UUID, uuid4

import pytest

from services.chassis.db import Database, Transaction
from services.chassis.errors import Away, Unknown
from services.chassis.worker import Background, Worker
from services.orchestrator.saga import journal as journal_module
from services.orchestrator.saga.journal import LEASE_SECONDS, Entry, Journal, NoticeDue, Status, make_id
from services.orchestrator.saga.recovery import Heartbeat
from tests.support.concurrency import run_concurrently
from tests.support.leases import beat_as_if_running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit


@pytest.fixture
def journal(db: Database) -> Journal:
    """The journal of a live process."""
    return start_process(db)


def start_process(db: Database, deadline_seconds: float = 60) -> Journal:
    """Return the journal of a new process with a lease."""
    journal = Journal(db, deadline_seconds=deadline_seconds, park_seconds=120)
    beat_as_if_running(db, journal)
    return journal


def begin(
    journal: Journal, subject: UUID, flow: str = "pay", dispute_number: int = 0, one_attempt: bool = False
) -> tuple[Entry, bool]:
    """Begin a saga."""
    return journal.begin(flow, subject, {"a": 1}, caller=None, dispute_number=dispute_number, one_attempt=one_attempt)


def adopt_overdue(db: Database, journal: Journal) -> tuple[Entry, Entry]:
    """Begin an overdue saga and adopt it. Return the entries of its first process and of the adopter."""
    entry, _ = begin(start_process(db, deadline_seconds=-1), uuid4())
    [adopted] = [e for e in journal.adopt(16) if e.saga_id == entry.saga_id]
    return entry, adopted


def test_concurrent_begins_start_one_attempt(journal: Journal) -> None:
    subject = uuid4()
    begun = run_concurrently([lambda: begin(journal, subject)[1]] * 8)
    assert begun.count(True) == 1


def test_retry_gets_the_result_of_a_done_attempt(journal: Journal) -> None:
    subject = uuid4()
    entry, is_own = begin(journal, subject)
    assert is_own
    assert journal.end(entry, Status.DONE, {"answer": 42})
    last, is_own = begin(journal, subject)
    assert (is_own, last.status, last.result) == (False, Status.DONE, {"answer": 42})


@pytest.mark.parametrize("status", [Status.REFUSED, Status.UNDONE])
def test_retry_after_a_failed_attempt_starts_the_next_one(journal: Journal, status: Status) -> None:
    subject = uuid4()
    entry, _ = begin(journal, subject)
    journal.end(entry, status, {"code": "INTERNAL_ERROR"})
    following, is_own = begin(journal, subject)
    assert (is_own, following.attempt) == (True, 2)


@pytest.mark.parametrize("status", [Status.REFUSED, Status.UNDONE, Status.DONE])
def test_flow_that_creates_its_subject_has_one_attempt(journal: Journal, status: Status) -> None:
    subject = uuid4()
    entry, _ = begin(journal, subject, one_attempt=True)
    journal.end(entry, status, {"code": "INTERNAL_ERROR"})
    last, is_own = begin(journal, subject, one_attempt=True)
    assert (is_own, last.status) == (False, status)


@pytest.mark.parametrize("status", [None, Status.PARKED])
def test_live_saga_blocks_every_flow_on_its_subject(journal: Journal, status: Status | None) -> None:
    subject = uuid4()
    entry, _ = begin(journal, subject, "pay")
    if status:
        journal.end(entry, status, {})
    blocking, is_own = begin(journal, subject, "refund")
    assert (is_own, blocking.flow, blocking.is_live) == (False, "pay", True)


def test_second_dispute_has_its_own_attempts(journal: Journal) -> None:
    subject = uuid4()
    first, _ = begin(journal, subject, "dispute", dispute_number=1)
    journal.end(first, Status.DONE, {"n": 1})
    second, is_own = begin(journal, subject, "dispute", dispute_number=2)
    assert (is_own, second.dispute_number, second.attempt) == (True, 2, 1)


def test_end_write_of_an_older_epoch_changes_nothing(db: Database, journal: Journal) -> None:
    entry, adopted = adopt_overdue(db, journal)
    assert adopted.epoch == entry.epoch + 1
    assert not journal.end(entry, Status.DONE, {"by": "the first process"})
    assert journal.end(adopted, Status.UNDONE, {"by": "the adopter"})
    assert journal.read(entry.saga_id).result == {"by": "the adopter"}


def test_only_the_end_that_counts_writes_notices(db: Database, journal: Journal) -> None:
    entry, adopted = adopt_overdue(db, journal)
    due = [NoticeDue(str(uuid4()), "booking_confirmed", {"a": 1})]
    assert not journal.end(entry, Status.DONE, {}, due)
    assert read_notices(db, entry) == []
    assert journal.end(adopted, Status.DONE, {}, due)
    assert read_notices(db, entry) == [(due[0].user_id, "booking_confirmed")]


def read_notices(db: Database, entry: Entry) -> list[tuple[str, str]]:
    """Return user and message of each notice of a saga."""
    with db.transaction() as tx:
        rows = tx.all("SELECT user_id, message FROM outbox WHERE saga_id = %(saga_id)s", saga_id=entry.saga_id)
    return [(str(row["user_id"]), row["message"]) for row in rows]


def test_heartbeat_renews_the_lease_until_it_stops(db: Database, journal: Journal) -> None:
    """A clean stop ends the lease, so the sagas are adopted at once."""
    alive = Journal(db, deadline_seconds=60, park_seconds=120)
    heartbeat = Heartbeat(alive)
    heartbeat.start()
    wait_until(lambda: read_leases(db, alive))
    kept, _ = begin(alive, uuid4())
    first = read_leases(db, alive)
    wait_until(lambda: read_leases(db, alive) != first, what="the lease is renewed")
    heartbeat.stop()
    assert [e.saga_id for e in journal.adopt(16)] == [kept.saga_id]


def read_leases(db: Database, journal: Journal) -> list[datetime]:
    """Return the end of the process's lease, if it has one."""
    sql = "SELECT lease_until FROM heartbeats WHERE instance_id = %(instance_id)s"
    with db.transaction() as tx:
        return [row["lease_until"] for row in tx.all(sql, instance_id=journal.instance_id)]


def test_only_sagas_of_a_dead_process_are_adopted(db: Database, journal: Journal) -> None:
    alive, dead = start_process(db), start_process(db)
    kept, _ = begin(alive, uuid4())
    orphan, _ = begin(dead, uuid4())
    dead.resign()
    assert [e.saga_id for e in journal.adopt(16)] == [orphan.saga_id]
    assert journal.read(kept.saga_id).epoch == 1


def end_leases_as_in_an_outage(db: Database) -> None:
    """Set every lease as it is after an outage of the database that was longer than a lease."""
    with db.transaction() as tx:
        tx.run("UPDATE heartbeats SET lease_until = clock_timestamp() - interval '0.6 seconds'")


def test_nothing_is_adopted_just_after_an_outage(db: Database, journal: Journal) -> None:
    """No process could renew its lease, so a lease that has ended does not prove that its process is dead."""
    owner = start_process(db)
    kept, _ = begin(owner, uuid4())
    overdue, _ = begin(start_process(db, deadline_seconds=-1), uuid4())
    end_leases_as_in_an_outage(db)
    assert journal.adopt(16) == [], "before this process has renewed its own lease"
    journal.beat()
    assert journal.adopt(16) == [], "before the other one has"
    owner.beat()
    assert journal.adopt(16) == []
    assert {journal.read(entry.saga_id).epoch for entry in (kept, overdue)} == {1}


def test_saga_of_a_dead_process_is_adopted_some_time_after_an_outage(db: Database, journal: Journal) -> None:
    orphan, _ = begin(start_process(db), uuid4())
    alive = start_process(db)
    kept, _ = begin(alive, uuid4())
    end_leases_as_in_an_outage(db)
    began = time.monotonic()
    heartbeats = [Heartbeat(process) for process in (journal, alive)]
    for heartbeat in heartbeats:
        heartbeat.start()
    [adopted] = wait_until(lambda: journal.adopt(16), 3 * LEASE_SECONDS)
    took = time.monotonic() - began
    for heartbeat in heartbeats:
        heartbeat.stop()
    assert adopted.saga_id == orphan.saga_id
    assert journal.read(kept.saga_id).epoch == 1
    assert took >= LEASE_SECONDS


def test_short_gap_that_ended_only_one_lease_is_an_outage(db: Database, journal: Journal) -> None:
    """The outage began just after this process had renewed, and the other one was about to."""
    begin(start_process(db), uuid4())
    with db.transaction() as tx:
        this = journal.instance_id
        sql = "UPDATE heartbeats SET lease_until = clock_timestamp() {} WHERE instance_id {} %(this)s"
        tx.run(sql.format("+ interval '0.3 s'", "="), this=this)
        tx.run(sql.format("", "<>"), this=this)
    assert journal.adopt(16) == [], "its own renewal is late, so the database was not available"
    journal.beat()
    assert journal.adopt(16) == []


def test_no_saga_of_a_living_process_is_adopted_in_a_stall(db: Database) -> None:
    """Two processes run as in production while the database does not answer for longer than a lease."""
    processes = [Journal(db, deadline_seconds=60, park_seconds=120) for _ in range(2)]
    adopted: list[Entry] = []

    def adopt(journal: Journal) -> None:
        adopted.extend(journal.adopt(16))

    workers: list[Background] = [Heartbeat(journal) for journal in processes]
    workers += [Worker("recovery", partial(adopt, journal), 0.1) for journal in processes]
    for worker in workers:
        worker.start()
    wait_until(lambda: all(read_leases(db, journal) for journal in processes))
    begun = [begin(processes[0], uuid4())[0] for _ in range(10)]
    with db.transaction() as tx:
        [before] = read_leases(db, processes[0])
        tx.run("LOCK TABLE heartbeats IN ACCESS EXCLUSIVE MODE")
        tx.only("SELECT pg_sleep(%(seconds)s)", seconds=LEASE_SECONDS + 0.6)
    wait_until(lambda: read_leases(db, processes[0])[0] - before > timedelta(seconds=1.5 * LEASE_SECONDS), 10)
    for worker in workers:
        worker.stop()
    assert adopted == []
    assert {processes[0].read(entry.saga_id).epoch for entry in begun} == {1}


def test_new_process_waits_before_it_judges_leases(db: Database) -> None:
    orphan, _ = begin(Journal(db, deadline_seconds=60, park_seconds=120), uuid4())
    new = Journal(db, deadline_seconds=60, park_seconds=120)
    new.beat()
    assert new.adopt(16) == []
    beat_as_if_running(db, new)
    assert [entry.saga_id for entry in new.adopt(16)] == [orphan.saga_id]


def test_saga_that_its_process_has_left_is_adopted_at_once(db: Database, journal: Journal) -> None:
    """Its lease and its deadline have not ended, and this process may not yet judge the leases of others."""
    left, _ = begin(journal, uuid4())
    kept, _ = begin(journal, uuid4())
    end_leases_as_in_an_outage(db)
    assert journal.adopt(16) == []
    journal.leave(left.saga_id)
    assert [(entry.saga_id, entry.epoch) for entry in journal.adopt(16)] == [(left.saga_id, 2)]
    assert journal.adopt(16) == [], "it is left only once"
    assert journal.read(kept.saga_id).epoch == 1
    assert not journal.end(left, Status.DONE, {}), "the adopter has the latest epoch"


def test_saga_is_left_until_its_pause_is_over(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = begin(journal, uuid4())
    journal.leave(entry.saga_id, pause_seconds=60)
    assert journal.adopt(16) == []
    monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 60))
    assert [adopted.saga_id for adopted in journal.adopt(16)] == [entry.saga_id]


def test_saga_that_its_process_cannot_end_is_taken_over(db: Database, journal: Journal) -> None:
    """Only the owner cannot reach a participant. It tries again and again, and renews its lease."""
    owner = start_process(db)
    entry, _ = begin(owner, uuid4())
    owner.leave(entry.saga_id)
    with db.transaction() as tx:
        sql = "UPDATE sagas SET deadline = clock_timestamp() - interval '1 second' WHERE saga_id = %(saga_id)s"
        tx.run(sql, saga_id=entry.saga_id)
    for process in (owner, journal):
        assert [adopted.saga_id for adopted in process.adopt(16)] == [entry.saga_id]
    owner.leave(entry.saga_id)
    assert owner.adopt(16) == []


def test_overdue_saga_is_tried_again_after_its_pause(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = start_process(db, deadline_seconds=-1)
    entry, _ = begin(owner, uuid4())
    owner.leave(entry.saga_id, pause_seconds=60)
    assert owner.adopt(16) == []
    monkeypatch.setattr(journal_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 60))
    assert [adopted.saga_id for adopted in owner.adopt(16)] == [entry.saga_id]


def test_failing_sagas_do_not_block_others(db: Database) -> None:
    owner, limit = start_process(db, deadline_seconds=-1), 2
    overdue = {begin(owner, uuid4())[0].saga_id for _ in range(3 * limit)}
    tried = set[UUID]()
    for _ in range(3):
        for entry in owner.adopt(limit):
            owner.leave(entry.saga_id)
            tried.add(entry.saga_id)
    assert tried == overdue


def test_adoption_whose_answer_is_lost_is_repeated(
    db: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, _ = begin(start_process(db, deadline_seconds=-1), uuid4())
    commit = Transaction.commit

    def lose_answer(transaction: Transaction) -> None:
        commit(transaction)
        raise Unknown("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "commit", lose_answer)
        with pytest.raises(Unknown):
            journal.adopt(16)
    assert [(adopted.saga_id, adopted.epoch) for adopted in journal.adopt(16)] == [(entry.saga_id, 3)]


def test_process_cannot_adopt_what_another_one_has_taken(db: Database, journal: Journal) -> None:
    """The process was frozen for longer than its lease, and then leaves the saga that it no longer owns."""
    owner = start_process(db)
    entry, _ = begin(owner, uuid4())
    owner.resign()
    [adopted] = journal.adopt(16)
    owner.leave(entry.saga_id)
    assert owner.adopt(16) == []
    assert journal.end(adopted, Status.UNDONE, {})


def test_begin_whose_answer_is_lost_is_adopted_at_once(
    db: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = db.statement

    def lose_answer(sql: str, **parameters: Any) -> Any:
        write(sql, **parameters)
        raise Unknown("the answer is lost")

    subject = uuid4()
    with monkeypatch.context() as patch:
        patch.setattr(db, "statement", lose_answer)
        with pytest.raises(Unknown):
            begin(journal, subject)
    assert [entry.subject for entry in journal.adopt(16)] == [subject]


def test_begin_that_was_never_sent_leaves_nothing(
    db: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each request during an outage would cost memory until the database is back."""

    def send_nothing(_sql: str, **_parameters: Any) -> Any:
        raise Away("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(db, "statement", send_nothing)
        with pytest.raises(Away):
            begin(journal, uuid4())
    assert journal._left == {}


def test_two_adopters_never_get_the_same_saga(db: Database) -> None:
    dead = Journal(db, deadline_seconds=60, park_seconds=120)
    orphans = {begin(dead, uuid4())[0].saga_id for _ in range(12)}
    adopters = [start_process(db) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        adopted = [e.saga_id for entries in pool.map(lambda adopter: adopter.adopt(4), adopters) for e in entries]
    assert len(adopted) == len(set(adopted))
    assert set(adopted) <= orphans


def test_ids_are_ordered_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random ids would each change another page of every index."""
    made = []
    for milliseconds in (1, 2, 2**48 - 1):
        monkeypatch.setattr(time, "time_ns", lambda: milliseconds * 1_000_000)  # noqa: B023 - called in this turn
        made.append(make_id())
    assert made == sorted(made)
    assert [id_.int >> 80 for id_ in made] == [1, 2, 2**48 - 1]
    assert {(id_.version, id_.variant) for id_ in made} == {(7, RFC_4122)}
    assert make_id() != make_id()


RESERVED = {"event_id": "e", "price": 10, "otp_required": False, "held_until": "2100-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("changed", "status", "is_known"),
    [
        ({}, Status.DONE, True),
        ({}, Status.UNDONE, False),
        ({"otp_required": True}, Status.DONE, False),  # a code may have been verified
        ({"held_until": "2020-01-01T00:00:00Z"}, Status.DONE, False),  # the order may have failed
    ],
)
def test_first_pay_gets_what_the_reserve_stored(
    journal: Journal, changed: dict[str, object], status: Status, is_known: bool
) -> None:
    order_id = uuid4()
    reserve, _ = begin(journal, order_id, flow="reserve")
    journal.end(reserve, status, RESERVED | changed)
    pay, _ = begin(journal, order_id)
    assert (pay.reserved is not None) == (journal.read(pay.saga_id).reserved is not None) == is_known
    journal.end(pay, Status.UNDONE, {})
    assert begin(journal, order_id)[0].reserved is None, "the first pay may have changed the order"
