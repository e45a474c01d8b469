"""The outbox: a notice is sent only after it is taken, taken again until it is sent, and given up after five tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.db import Database
from services.chassis.errors import Unknown
from services.chassis.settings import DatabaseSettings
from services.orchestrator.journal import Journal, NoticeDue, Status
from services.orchestrator.outbox import MAX_TRIES, Outbox

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
    entry, _ = journal.begin("pay", uuid4(), {}, caller=None, round_=0, one_attempt=False)
    journal.end(entry, Status.DONE, {}, [NoticeDue(str(uuid4()), "booking_confirmed", {"a": 1})])
    yield opened
    _forget(opened)
    opened.close()


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
