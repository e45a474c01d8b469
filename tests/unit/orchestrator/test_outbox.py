"""The outbox sends each notice at least once: it takes a notice, retries it, and gives it up after five tries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

import pytest

from services.chassis.db import Database
from services.chassis.errors import Away, Unknown
from services.chassis.settings import DatabaseSettings
from services.orchestrator.participants import Users
from services.orchestrator.saga.journal import Journal, NoticeDue, Status
from services.orchestrator.saga.outbox import MAX_TRIES, Outbox
from services.user import smu as smu_module
from tests.support.http_servers import AnsweringServer, Request
from tests.unit.user.user_app import UserApp, user_settings

pytestmark = pytest.mark.unit


class FakeUsers:
    """The notifications of User. Each batch is recorded, and the first `failures` of them fail with `error`."""

    def __init__(self, failures: int = 0, error: type[Unknown] = Unknown) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self._failures = failures
        self._error = error

    def notify(self, notices: list[dict[str, Any]]) -> list[bool]:
        self.batches.append(notices)
        if len(self.batches) <= self._failures:
            raise self._error("SMU is down")
        return [True] * len(notices)


def make_outbox(db: Database, users: FakeUsers, number: int = 8) -> Outbox:
    """Return an outbox that sends to `users`."""
    return Outbox(db, cast(Users, users), number)


@pytest.fixture
def db(db: Database) -> Database:
    """The orchestrator's database with exactly one notice due."""
    journal = Journal(db, deadline_seconds=60, park_seconds=120)
    entry, _ = journal.begin("pay", uuid4(), {}, caller=None, dispute_number=0, one_attempt=False)
    journal.end(entry, Status.DONE, {}, [NoticeDue(str(uuid4()), "booking_confirmed", {"a": 1})])
    return db


def add_notices(db: Database, number: int) -> None:
    """Add `number` notices to other users that are due."""
    with db.transaction() as tx:
        tx.run(
            """INSERT INTO outbox (saga_id, user_id, message, fields)
               SELECT saga_id, gen_random_uuid(), message, fields FROM outbox, generate_series(1, %(number)s)""",
            number=number,
        )


def count_unsent(db: Database) -> int:
    """Return the number of notices that are not marked as sent."""
    with db.transaction() as tx:
        return int(tx.only("SELECT count(*) FROM outbox WHERE sent_at IS NULL")["count"])


def make_due(db: Database) -> None:
    """Make the next try of every notice due now."""
    with db.transaction() as tx:
        tx.run("UPDATE outbox SET next_try_at = clock_timestamp()")


def tick_when_due(db: Database, users: FakeUsers) -> dict[str, Any]:
    """Run one tick when the next try is due, and return the only notice."""
    make_due(db)
    make_outbox(db, users).tick()
    with db.transaction() as tx:
        return dict(tx.only("SELECT tries, sent_at, given_up_at FROM outbox"))


@pytest.mark.parametrize("number", [1, 8])
def test_many_notices_are_sent_once_each(db: Database, number: int) -> None:
    add_notices(db, 19)
    users = FakeUsers()
    outbox = make_outbox(db, users, number)
    while outbox.tick():
        pass
    recipients = [notice["user_id"] for batch in users.batches for notice in batch]
    assert len(recipients) == len(set(recipients)) == 20
    assert max(map(len, users.batches)) == number
    assert count_unsent(db) == 0


def test_notices_of_a_user_are_sent_in_order(db: Database) -> None:
    """A later notice waits, also while the earlier one waits for its next try."""
    with db.transaction() as tx:
        for message in ("order_refunded", "transfer_completed"):
            tx.run(
                """INSERT INTO outbox (saga_id, user_id, message, fields)
                   SELECT saga_id, user_id, %(message)s, fields FROM outbox LIMIT 1""",
                message=message,
            )
    users = FakeUsers(failures=1)
    outbox = make_outbox(db, users)
    for _ in range(2):
        outbox.tick()
    make_due(db)
    for _ in range(3):
        outbox.tick()
    sent = [[notice["message"] for notice in batch] for batch in users.batches]
    assert sent == [["booking_confirmed"], ["booking_confirmed"], ["order_refunded"], ["transfer_completed"]]


def test_only_the_failed_notices_of_a_batch_are_sent_again(db: Database) -> None:
    class HalfUsers(FakeUsers):
        def notify(self, notices: list[dict[str, Any]]) -> list[bool]:
            super().notify(notices)
            return [True, False][: len(notices)]

    add_notices(db, 1)
    users = HalfUsers()
    for _ in range(2):
        make_due(db)
        make_outbox(db, users).tick()
    assert users.batches[1] == users.batches[0][1:]


def test_failed_notice_is_sent_again(db: Database) -> None:
    users = FakeUsers(failures=1)
    assert tick_when_due(db, users)["sent_at"] is None
    assert tick_when_due(db, users)["sent_at"]
    assert len(users.batches) == 2


def test_notice_is_given_up_after_five_tries(db: Database) -> None:
    users = FakeUsers(failures=99)
    for _ in range(MAX_TRIES + 1):
        notice = tick_when_due(db, users)
    assert (len(users.batches), notice["tries"], notice["sent_at"]) == (MAX_TRIES, MAX_TRIES, None)
    assert notice["given_up_at"]


def test_notice_that_was_not_sent_costs_no_try(db: Database) -> None:
    users = FakeUsers(2 * MAX_TRIES, Away)
    for _ in range(2 * MAX_TRIES):
        with pytest.raises(Away):
            tick_when_due(db, users)
    assert not make_outbox(db, users).tick(), "the next try is a second later"
    notice = tick_when_due(db, users)
    assert (len(users.batches), notice["tries"], notice["given_up_at"]) == (2 * MAX_TRIES + 1, 1, None)
    assert notice["sent_at"]


def test_late_process_gives_back_no_try_of_another_one(db: Database) -> None:
    """It was frozen before its call, and another process takes the notice meanwhile."""

    class LateUsers(FakeUsers):
        def notify(self, notices: list[dict[str, Any]]) -> list[bool]:
            assert tick_when_due(db, FakeUsers(failures=1))["tries"] == 2
            return super().notify(notices)

    with pytest.raises(Away):
        make_outbox(db, LateUsers(1, Away)).tick()
    with db.transaction() as tx:
        assert tx.only("SELECT tries FROM outbox") == {"tries": 2}


def test_next_try_of_an_open_notice_is_delayed(db: Database) -> None:
    """Another process may still send the notice, or may have died."""
    users = FakeUsers(failures=1)
    tick_when_due(db, users)
    assert not make_outbox(db, users).tick()


def test_slow_smu_does_not_hold_up_the_outbox(
    db: Database, database_for: Callable[[str], DatabaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMU gets twelve notices at a time. If each takes 200 ms, an orchestrator can send 60 a second."""
    monkeypatch.setattr(smu_module, "TIMEOUT", (30, 30))
    number, at_once = 120, 24  # the default of NOTICES_AT_ONCE
    twelve = threading.Barrier(12)

    def answer_twelve_together(_request: Request) -> tuple[int, bytes]:
        twelve.wait(15)
        return 200, b'{"status": "sent"}'

    with AnsweringServer(answer_twelve_together) as smu:
        user = UserApp(user_settings(database_for("user"), smu_url=smu.origin))
        with db.transaction() as tx:
            tx.run("DELETE FROM outbox")
            for _ in range(number):
                tx.run(
                    """INSERT INTO outbox (saga_id, user_id, message, fields)
                       SELECT saga_id, %(user_id)s, 'booking_confirmed', '{}' FROM sagas""",
                    user_id=user.new_user(),
                )
        outbox = Outbox(db, cast(Users, UserOverFlask(user)), at_once)
        while outbox.tick():
            pass
        user.db.close()
    assert count_unsent(db) == 0
    assert len(smu.requests) == number


class UserOverFlask:
    """User's route for notices, called without HTTP."""

    def __init__(self, user: UserApp) -> None:
        self._user = user

    def notify(self, notices: list[dict[str, Any]]) -> list[bool]:
        return list(self._user.post("/notifications", notices=notices)["sent"])
