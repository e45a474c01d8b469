"""`Idempotency-Key`: the first answer again, for the same body, caller and verb; a failure frees the key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.chassis.db import Database, Row
from services.chassis.errors import Refused, Unknown
from services.chassis.settings import DatabaseSettings
from services.contracts.errors import ErrorCode
from services.orchestrator.api.idempotency import IdempotencyKeys, KeyedRequest
from services.orchestrator.saga.journal import Journal

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
    return _process_and_lease(db)[0]


def _process_and_lease(db: Database) -> tuple[IdempotencyKeys, Journal]:
    journal = Journal(db, deadline_seconds=60, park_seconds=120)
    journal.beat()
    return IdempotencyKeys(db, journal.instance_id), journal


@pytest.fixture
def request_() -> KeyedRequest:
    """A request under a key that nobody has used."""
    return KeyedRequest(caller=uuid4(), operation="reserve", key=str(uuid4()), body=b'{"seat": 1}')


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


def test_same_key_and_body_gets_the_first_answer_and_works_once(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    work = Work()
    first = keys.run(request_, work)
    assert keys.run(request_, work) == first
    assert len(work.subjects) == 1


def test_another_body_under_the_key_is_refused_and_does_nothing(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    keys.run(request_, Work())
    work = Work()
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        keys.run(replace(request_, body=b'{"seat": 2}'), work)
    assert work.subjects == []


def test_another_body_is_refused_also_when_the_first_has_died(db: Database, request_: KeyedRequest) -> None:
    with pytest.raises(Unknown):
        _process(db).run(request_, Work(Unknown("the process died")))
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        _process(db).run(replace(request_, body=b'{"seat": 2}'), Work())


@pytest.mark.parametrize("other", [{"caller": uuid4()}, {"operation": "initiate"}, {"key": "another"}, {"key": None}])
def test_a_key_is_its_callers_and_its_verbs_own(keys: IdempotencyKeys, request_: KeyedRequest, other: Any) -> None:
    assert keys.run(request_, Work()) != keys.run(replace(request_, **other), Work())


def test_while_the_first_runs_others_are_told_so(db: Database, request_: KeyedRequest) -> None:
    keys, others = _process(db), Work()

    def meanwhile(_subject: UUID) -> Mapping[str, Any]:
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            _process(db).run(request_, others)
        return {}

    keys.run(request_, meanwhile)
    assert others.subjects == []


def test_unknown_result_keeps_its_subject_for_the_next_request(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    died, again = Work(Unknown("no answer")), Work()
    with pytest.raises(Unknown):
        keys.run(request_, died)
    keys.run(request_, again)
    assert again.subjects == died.subjects


def test_what_is_worked_on_again_is_told_apart(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    first, again = Work(Unknown("died over it")), Work()
    with pytest.raises(Unknown):
        keys.run(request_, first, again)
    keys.run(request_, first, again)
    assert first.subjects == again.subjects
    without_key = replace(request_, key=None)
    with pytest.raises(Unknown):
        keys.run(without_key, first, again)


def test_subject_that_another_flow_has_in_hand_is_kept_for_the_next_request(
    keys: IdempotencyKeys, request_: KeyedRequest
) -> None:
    busy, again = Work(Refused(ErrorCode.REQUEST_IN_PROGRESS)), Work()
    with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
        keys.run(request_, busy)
    keys.run(request_, again)
    assert again.subjects == busy.subjects


def test_final_refusal_is_kept(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    work = Work(Refused(ErrorCode.SEAT_UNAVAILABLE, order_id="1"))
    for _ in range(2):
        with pytest.raises(Refused, match="SEAT_UNAVAILABLE") as refused:
            keys.run(request_, work)
        assert refused.value.details == {"order_id": "1"}
    assert len(work.subjects) == 1


def test_failure_that_was_undone_frees_the_key(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    with pytest.raises(Refused, match="INTERNAL_ERROR"):
        keys.run(request_, Work(Refused(ErrorCode.INTERNAL_ERROR)))
    work = Work()
    keys.run(request_, work)
    assert len(work.subjects) == 1


# ── a first request that is late, and taken for dead


@dataclass
class Late:
    """A process that is taken for dead while it works: then the others have their turn, and then it wakes."""

    keys: IdempotencyKeys
    lease: Journal

    def answer(self, request: KeyedRequest, meanwhile: Callable[[], object], wakes: Work) -> Mapping[str, Any]:
        """What it answers at last, with what `wakes` comes to."""

        def work(subject: UUID) -> Mapping[str, Any]:
            self.lease.resign()
            meanwhile()
            return wakes(subject)

        return self.keys.run(request, work)


@pytest.fixture
def late(db: Database) -> Late:
    """The process that comes late."""
    return Late(*_process_and_lease(db))


class Says(Work):
    """Work that answers in one process's own words."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def __call__(self, subject: UUID) -> Mapping[str, Any]:
        return {**super().__call__(subject), "words": self.words}


def test_late_request_gives_the_answer_of_those_who_took_it_for_dead(
    keys: IdempotencyKeys, late: Late, request_: KeyedRequest
) -> None:
    theirs, own = Says("theirs"), Says("own")
    answers = [late.answer(request_, lambda: keys.run(request_, theirs), own), keys.run(request_, Work())]
    assert theirs.subjects == own.subjects, "the key's subject, whoever works on it"
    assert [answer["words"] for answer in answers] == ["theirs", "theirs"]


@pytest.mark.parametrize("failure", [Refused(ErrorCode.INTERNAL_ERROR), Unknown("no answer"), None])
def test_late_request_frees_nothing_while_those_who_took_it_for_dead_are_at_it(
    db: Database, late: Late, request_: KeyedRequest, failure: Exception | None
) -> None:
    another, third, begun, awake = _process(db), Work(), threading.Event(), threading.Event()

    def theirs(subject: UUID) -> Mapping[str, Any]:
        begun.set()
        assert awake.wait(10)
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            _process(db).run(request_, third)
        return {"order_id": str(subject)}

    with ThreadPoolExecutor(1) as pool:

        def taken_over() -> None:
            running.append(pool.submit(another.run, request_, theirs))
            assert begun.wait(10)

        running: list[Future[Mapping[str, Any]]] = []
        own = Work(failure)
        try:
            with pytest.raises((Refused, Unknown), match=r"no answer|REQUEST_IN_PROGRESS"):
                late.answer(request_, taken_over, own)
        finally:
            awake.set()
        assert running[0].result() == {"order_id": str(own.subjects[0])}
    assert third.subjects == []
    assert _process(db).run(request_, third) == running[0].result()


def test_late_failure_does_not_free_the_key_under_which_another_has_begun_anew(
    db: Database, keys: IdempotencyKeys, late: Late, request_: KeyedRequest
) -> None:
    anew, again = Work(), Work()

    def failed_then_done() -> None:
        with pytest.raises(Refused, match="INTERNAL_ERROR"):
            _process(db).run(request_, Work(Refused(ErrorCode.INTERNAL_ERROR)))
        keys.run(request_, anew)

    done = late.answer(request_, failed_then_done, Work(Refused(ErrorCode.INTERNAL_ERROR)))
    assert done == {"order_id": str(anew.subjects[0])} == keys.run(request_, again)
    assert again.subjects == [], "no second effect"


def test_key_that_somebody_claims_at_this_moment_is_in_progress(db: Database, request_: KeyedRequest) -> None:
    keys = _process(db)
    with pytest.raises(Unknown):
        keys.run(request_, Work(Unknown("the process died")))
    with db.transaction() as tx:
        assert tx.run("UPDATE idempotency_keys SET owner = owner WHERE key = %(key)s", key=request_.key) == 1
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            keys.run(request_, Work())


def test_who_asks_again_waits_for_nobody(db: Database, keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    first = keys.run(request_, Work())
    with db.transaction() as tx:
        assert tx.run("UPDATE idempotency_keys SET owner = owner WHERE key = %(key)s", key=request_.key) == 1
        assert keys.run(request_, Work()) == first


def test_answer_that_could_not_be_kept_is_found_by_the_next_request(
    db: Database, keys: IdempotencyKeys, request_: KeyedRequest
) -> None:
    forgetful, done, again = _process(_Forgetful(db)), Work(), Work()
    with pytest.raises(Unknown, match="did not keep it"):
        forgetful.run(request_, done)
    keys.run(request_, again)
    assert again.subjects == done.subjects


class _Forgetful(Database):
    """A database that keeps no answer."""

    def __init__(self, db: Database) -> None:
        vars(self).update(vars(db))

    def statement(self, sql: str, **params: Any) -> Row | None:
        if "outcome" in params:
            raise Unknown("did not keep it")
        return super().statement(sql, **params)
