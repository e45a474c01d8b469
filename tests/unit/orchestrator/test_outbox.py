"""The outbox: a notice is sent only after it is taken, taken again until it is sent, and given up after five tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.chassis.settings import DatabaseSettings
from services.orchestrator.saga import outbox as outbox_module
from services.orchestrator.saga.journal import Journal, NoticeDue, Status
from services.orchestrator.saga.outbox import MAX_TRIES, Outbox

pytestmark = pytest.mark.unit


class Post:
    """User's notifications; fails as often as it is told to, and writes down what it was asked for."""

    def __init__(self, failures: int = 0) -> None:
        self.asked: list[str] = []
        self._failures = failures

    def notify(self, _user_id: str, message: str, _fields: Mapping[str, Any]) -> None:
        self.asked.append(message)
        if len(self.asked) <= self._failures:
            raise Unknown("SMU is down")


@pytest.fixture
def db(database_for: Callable[[str], DatabaseSettings]) -> Iterator[Database]:
    """The orchestrator's database with one notice due, and no other."""
    opened = Database(database_for("orchestrator"))
    _forget(opened)
    journal = Journal(opened, deadline_seconds=60, park_seconds=120)
    entry, _ = journal.begin("pay", uuid4(), {}, caller=None, dispute_number=0, one_attempt=False)
    journal.end(entry, Status.DONE, {}, [NoticeDue(str(uuid4()), "booking_confirmed", {"a": 1})])
    yield opened
    _forget(opened)
    opened.close()


def _more(db: Database, number: int) -> None:
    """So many more notices that are due."""
    with db.transaction() as tx:
        tx.run(
            """INSERT INTO outbox (saga_id, user_id, message, fields)
               SELECT saga_id, gen_random_uuid(), message, fields FROM outbox, generate_series(1, %(number)s)""",
            number=number,
        )


def _unsent(db: Database) -> int:
    with db.transaction() as tx:
        return int(tx.only("SELECT count(*) FROM outbox WHERE sent_at IS NULL")["count"])


def _forget(db: Database) -> None:
    with db.transaction() as tx:
        tx.run("DELETE FROM outbox")
        tx.run("DELETE FROM sagas")


def _tick(db: Database, post: Post) -> dict[str, Any]:
    """One tick when the next try is due; the notice after it."""
    with db.transaction() as tx:
        tx.run("UPDATE outbox SET next_try_at = clock_timestamp()")
    Outbox(db, post).tick()  # type: ignore[arg-type]
    with db.transaction() as tx:
        return dict(tx.only("SELECT tries, sent_at, given_up_at FROM outbox"))


def test_notice_is_sent_once(db: Database) -> None:
    post = Post()
    assert _tick(db, post)["sent_at"]
    _tick(db, post)
    assert post.asked == ["booking_confirmed"]


def test_notice_that_took_long_is_sent_once(db: Database) -> None:
    """Its next try is due by the time it is sent."""

    class Slow(Post):
        def notify(self, user_id: str, message: str, fields: Mapping[str, Any]) -> None:
            super().notify(user_id, message, fields)
            with db.transaction() as tx:
                tx.run("UPDATE outbox SET next_try_at = clock_timestamp()")

    post = Slow()
    assert _tick(db, post)["sent_at"]
    assert post.asked == ["booking_confirmed"]


@pytest.mark.parametrize("longest_tick", [0.0001, 60.0])
def test_many_notices_are_sent_once_each(db: Database, monkeypatch: pytest.MonkeyPatch, longest_tick: float) -> None:
    monkeypatch.setattr(outbox_module, "LONGEST_TICK", longest_tick)
    number = 20
    _more(db, number - 1)
    post = Post()
    outbox = Outbox(db, post)  # type: ignore[arg-type]
    while outbox.tick():
        pass
    assert len(post.asked) == number
    assert _unsent(db) == 0


def test_what_was_sent_is_marked_before_anything_else_is_sent(db: Database) -> None:
    """A process that dies over a notice has sent those before it for good."""

    class Killed(BaseException):
        """The end of the process."""

    class Mortal(Post):
        def notify(self, user_id: str, message: str, fields: Mapping[str, Any]) -> None:
            super().notify(user_id, message, fields)
            if len(self.asked) == 2:
                raise Killed

    _more(db, 1)
    with pytest.raises(Killed):
        Outbox(db, Mortal()).tick()  # type: ignore[arg-type]
    assert _unsent(db) == 1


def test_what_cannot_be_sent_ends_the_tick(db: Database) -> None:
    """Each such call takes its time, and whoever stops the process waits."""
    _more(db, 5)
    post = Post(failures=99)
    assert Outbox(db, post).tick()  # type: ignore[arg-type]
    assert len(post.asked) == 1


def test_notice_that_could_not_be_sent_is_sent_again(db: Database) -> None:
    post = Post(failures=1)
    assert _tick(db, post)["sent_at"] is None
    assert _tick(db, post)["sent_at"]
    assert len(post.asked) == 2


def test_notice_is_given_up_after_five_tries(db: Database) -> None:
    post = Post(failures=99)
    for _ in range(MAX_TRIES + 1):
        notice = _tick(db, post)
    assert (len(post.asked), notice["tries"], notice["sent_at"]) == (MAX_TRIES, MAX_TRIES, None)
    assert notice["given_up_at"]


def test_try_that_nobody_ended_is_not_repeated_at_once(db: Database) -> None:
    """Its sender may have died, or be sending: the next try waits."""
    post = Post(failures=1)
    _tick(db, post)
    assert not Outbox(db, post).tick()  # type: ignore[arg-type]
