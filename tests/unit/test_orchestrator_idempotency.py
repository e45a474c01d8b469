"""`Idempotency-Key`: the first answer again, for the same body, caller and verb; a failure frees the key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis.db import Database
from services.chassis.errors import Refused, Unknown
from services.chassis.settings import DatabaseSettings
from services.contracts.errors import ErrorCode
from services.orchestrator.idempotency import IdempotencyKeys, Request
from services.orchestrator.journal import Journal

pytestmark = pytest.mark.unit


@pytest.fixture
def db(database_for: Callable[[str], DatabaseSettings]) -> Iterator[Database]:
    """The orchestrator's database."""
    opened = Database(database_for("orchestrator"))
    yield opened
    opened.close()


@pytest.fixture
def keys(db: Database) -> IdempotencyKeys:
    """The keys of a process that is alive."""
    return _process(db)


def _process(db: Database) -> IdempotencyKeys:
    journal = Journal(db, deadline_seconds=60, park_seconds=120)
    journal.beat()
    return IdempotencyKeys(db, journal.incarnation)


@pytest.fixture
def request_() -> Request:
    """A request under a key that nobody has used."""
    return Request(caller=uuid4(), operation="reserve", key=str(uuid4()), body=b'{"seat": 1}')


class Work:
    """Answers with its subject; remembers the subjects that it worked on."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.subjects: list[UUID] = []
        self.failure = failure

    def __call__(self, subject: UUID) -> Mapping[str, Any]:
        self.subjects.append(subject)
        if self.failure:
            raise self.failure
        return {"order_id": str(subject)}


def test_same_key_and_body_gets_the_first_answer_and_works_once(keys: IdempotencyKeys, request_: Request) -> None:
    work = Work()
    first = keys.answer(request_, work)
    assert keys.answer(request_, work) == first
    assert len(work.subjects) == 1


def test_another_body_under_the_key_is_refused_and_does_nothing(keys: IdempotencyKeys, request_: Request) -> None:
    keys.answer(request_, Work())
    work = Work()
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        keys.answer(replace(request_, body=b'{"seat": 2}'), work)
    assert work.subjects == []


def test_another_body_is_refused_also_when_the_first_has_died(db: Database, request_: Request) -> None:
    with pytest.raises(Unknown):
        _process(db).answer(request_, Work(Unknown("the process died")))
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        _process(db).answer(replace(request_, body=b'{"seat": 2}'), Work())


@pytest.mark.parametrize("other", [{"caller": uuid4()}, {"operation": "initiate"}, {"key": "another"}, {"key": None}])
def test_a_key_is_its_callers_and_its_verbs_own(keys: IdempotencyKeys, request_: Request, other: Any) -> None:
    assert keys.answer(request_, Work()) != keys.answer(replace(request_, **other), Work())


def test_while_the_first_runs_others_are_told_so(db: Database, request_: Request) -> None:
    keys, others = _process(db), Work()

    def meanwhile(_subject: UUID) -> Mapping[str, Any]:
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            _process(db).answer(request_, others)
        return {}

    keys.answer(request_, meanwhile)
    assert others.subjects == []


def test_unknown_result_keeps_its_subject_for_the_next_request(keys: IdempotencyKeys, request_: Request) -> None:
    died, again = Work(Unknown("no answer")), Work()
    with pytest.raises(Unknown):
        keys.answer(request_, died)
    keys.answer(request_, again)
    assert again.subjects == died.subjects


def test_final_refusal_is_kept(keys: IdempotencyKeys, request_: Request) -> None:
    work = Work(Refused(ErrorCode.SEAT_UNAVAILABLE, order_id="1"))
    for _ in range(2):
        with pytest.raises(Refused, match="SEAT_UNAVAILABLE") as refused:
            keys.answer(request_, work)
        assert refused.value.details == {"order_id": "1"}
    assert len(work.subjects) == 1


def test_failure_that_was_undone_frees_the_key(keys: IdempotencyKeys, request_: Request) -> None:
    with pytest.raises(Refused, match="INTERNAL_ERROR"):
        keys.answer(request_, Work(Refused(ErrorCode.INTERNAL_ERROR)))
    work = Work()
    keys.answer(request_, work)
    assert len(work.subjects) == 1
