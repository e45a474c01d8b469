"""The outbox sends each notice at least once: it takes a notice, retries it, and gives it up after five tries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import uuid4

import pytest

from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.orchestrator.participants import Users
from services.orchestrator.saga import outbox as outbox_module
from services.orchestrator.saga.journal import Journal, NoticeDue, Status
from services.orchestrator.saga.outbox import MAX_TRIES, Outbox

pytestmark = pytest.mark.unit


class FakeUsers:
    """The notifications of User. The first `failures` calls fail, and each call is recorded."""

    def __init__(self, failures: int = 0) -> None:
        self.messages: list[str] = []
        self._failures = failures

    def notify(self, _user_id: str, message: str, _fields: Mapping[str, Any]) -> None:
        self.messages.append(message)
        if len(self.messages) <= self._failures:
            raise Unknown("SMU is down")


def make_outbox(db: Database, users: FakeUsers) -> Outbox:
    """Return an outbox that sends to `users`."""
    return Outbox(db, cast(Users, users))


@pytest.fixture
def db(db: Database) -> Database:
    """The orchestrator's database with exactly one notice due."""
    journal = Journal(db, deadline_seconds=60, park_seconds=120)
    entry, _ = journal.begin("pay", uuid4(), {}, caller=None, dispute_number=0, one_attempt=False)
    journal.end(entry, Status.DONE, {}, [NoticeDue(str(uuid4()), "booking_confirmed", {"a": 1})])
    return db


def add_notices(db: Database, number: int) -> None:
    """Add `number` notices that are due."""
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


def test_slow_notice_is_sent_once(db: Database) -> None:
    """The notice is due again before its first send returns."""

    class SlowUsers(FakeUsers):
        def notify(self, user_id: str, message: str, fields: Mapping[str, Any]) -> None:
            super().notify(user_id, message, fields)
            make_due(db)

    users = SlowUsers()
    assert tick_when_due(db, users)["sent_at"]
    assert users.messages == ["booking_confirmed"]


@pytest.mark.parametrize("longest_tick", [0.0001, 60.0])
def test_many_notices_are_sent_once_each(db: Database, monkeypatch: pytest.MonkeyPatch, longest_tick: float) -> None:
    monkeypatch.setattr(outbox_module, "LONGEST_TICK", longest_tick)
    number = 20
    add_notices(db, number - 1)
    users = FakeUsers()
    outbox = make_outbox(db, users)
    while outbox.tick():
        pass
    assert len(users.messages) == number
    assert count_unsent(db) == 0


def test_sent_notice_is_marked_before_the_next_one_is_sent(db: Database) -> None:
    """A process that dies while it sends a notice does not send the earlier ones again."""

    class ProcessDeath(BaseException):
        """The end of the process."""

    class DeadlyUsers(FakeUsers):
        def notify(self, user_id: str, message: str, fields: Mapping[str, Any]) -> None:
            super().notify(user_id, message, fields)
            if len(self.messages) == 2:
                raise ProcessDeath

    add_notices(db, 1)
    with pytest.raises(ProcessDeath):
        make_outbox(db, DeadlyUsers()).tick()
    assert count_unsent(db) == 1


def test_failed_send_ends_the_tick(db: Database) -> None:
    """A failing call can take long, and a stopping process waits for its tick."""
    add_notices(db, 5)
    users = FakeUsers(failures=99)
    assert make_outbox(db, users).tick()
    assert len(users.messages) == 1


def test_failed_notice_is_sent_again(db: Database) -> None:
    users = FakeUsers(failures=1)
    assert tick_when_due(db, users)["sent_at"] is None
    assert tick_when_due(db, users)["sent_at"]
    assert len(users.messages) == 2


def test_notice_is_given_up_after_five_tries(db: Database) -> None:
    users = FakeUsers(failures=99)
    for _ in range(MAX_TRIES + 1):
        notice = tick_when_due(db, users)
    assert (len(users.messages), notice["tries"], notice["sent_at"]) == (MAX_TRIES, MAX_TRIES, None)
    assert notice["given_up_at"]


def test_next_try_of_an_open_notice_is_delayed(db: Database) -> None:
    """Another process may still send the notice, or may have died."""
    users = FakeUsers(failures=1)
    tick_when_due(db, users)
    assert not make_outbox(db, users).tick()
