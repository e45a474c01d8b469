"""`Idempotency-Key`: a retry gets the first response again, for the same body, caller and operation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prometheus_client import REGISTRY

from services.chassis import json_codec
from services.chassis.db import Database, Row
from services.chassis.errors import Away, Refused, Unknown
from services.contracts.errors import ErrorCode
from services.orchestrator.api import idempotency as module
from services.orchestrator.api.idempotency import IdempotencyKeys, KeyedRequest
from services.orchestrator.saga.journal import Journal, Status
from tests.support.leases import beat_as_if_running

pytestmark = pytest.mark.unit


@pytest.fixture
def keys(db: Database) -> IdempotencyKeys:
    """The keys of a live process."""
    return start_process(db)


def start_process(db: Database) -> IdempotencyKeys:
    """Return the keys of a new process with a lease."""
    return start_process_with_journal(db)[0]


def start_process_with_journal(db: Database) -> tuple[IdempotencyKeys, Journal]:
    """Return the keys of a new process, and the journal that has its lease."""
    journal = Journal(db, deadline_seconds=60, park_seconds=120)
    beat_as_if_running(db, journal)
    return IdempotencyKeys(db, journal.instance_id), journal


@pytest.fixture
def request_() -> KeyedRequest:
    """A request under a new key."""
    return KeyedRequest(caller=uuid4(), operation="reserve", key=str(uuid4()), body=b'{"seat": 1}')


class Work:
    """Work that records its subjects, and returns its subject or raises `failure`."""

    def __init__(self, failure: Exception | None = None, name: str = "") -> None:
        self.subjects: list[UUID] = []
        self.failure = failure
        self.name = name

    def __call__(self, subject: UUID) -> Mapping[str, Any]:
        self.subjects.append(subject)
        if self.failure:
            raise self.failure
        return {"order_id": str(subject), "by": self.name}


def test_same_key_and_body_works_once(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    work = Work()
    first = keys.run(request_, work)
    assert keys.run(request_, work) == first
    assert len(work.subjects) == 1


def test_another_body_under_the_key_is_refused(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    keys.run(request_, Work())
    work = Work()
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        keys.run(replace(request_, body=b'{"seat": 2}'), work)
    assert work.subjects == []


def test_another_body_is_refused_after_the_first_request_died(db: Database, request_: KeyedRequest) -> None:
    with pytest.raises(Unknown):
        start_process(db).run(request_, Work(Unknown("the process died")))
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        start_process(db).run(replace(request_, body=b'{"seat": 2}'), Work())


@pytest.mark.parametrize("other", [{"caller": uuid4()}, {"operation": "initiate"}, {"key": "another"}, {"key": None}])
def test_key_belongs_to_one_caller_and_operation(keys: IdempotencyKeys, request_: KeyedRequest, other: Any) -> None:
    assert keys.run(request_, Work()) != keys.run(replace(request_, **other), Work())


def test_retry_during_the_first_request_is_in_progress(db: Database, request_: KeyedRequest) -> None:
    keys, retry = start_process(db), Work()

    def run_while_retried(_subject: UUID) -> Mapping[str, Any]:
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            start_process(db).run(request_, retry)
        return {}

    keys.run(request_, run_while_retried)
    assert retry.subjects == []


UNFINISHED = [Unknown("no answer"), Refused(ErrorCode.REQUEST_IN_PROGRESS)]


@pytest.mark.parametrize("failure", UNFINISHED, ids=["unknown result", "another flow works on the subject"])
def test_retry_of_an_unfinished_request_gets_its_subject(
    keys: IdempotencyKeys, request_: KeyedRequest, failure: Exception
) -> None:
    first, retry = Work(failure), Work()
    with pytest.raises(type(failure)):
        keys.run(request_, first)
    keys.run(request_, retry)
    assert retry.subjects == first.subjects


def test_key_starts_again_after_another_order_was_in_progress(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    """The refusal names the user's previous order of the seat. The request's own order has ended."""
    first, retry = Work(Refused(ErrorCode.REQUEST_IN_PROGRESS, order_id=str(uuid4()))), Work()
    with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
        keys.run(request_, first)
    keys.run(request_, retry)
    assert retry.subjects != first.subjects


def test_retry_of_a_dead_request_resumes(keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    first, resumed = Work(Unknown("the process died")), Work()
    with pytest.raises(Unknown):
        keys.run(request_, first, resumed)
    keys.run(request_, first, resumed)
    assert first.subjects == resumed.subjects
    without_key = replace(request_, key=None)
    with pytest.raises(Unknown):
        keys.run(without_key, first, resumed)


@pytest.mark.parametrize("is_saga", [False, True])
def test_final_refusal_is_stored(keys: IdempotencyKeys, request_: KeyedRequest, is_saga: bool) -> None:
    request_ = replace(request_, is_saga=is_saga)
    work = Work(Refused(ErrorCode.SEAT_UNAVAILABLE, order_id="1"))
    for _ in range(2):
        with pytest.raises(Refused, match="SEAT_UNAVAILABLE") as refused:
            keys.run(request_, work)
        assert refused.value.details == {"order_id": "1"}
    assert len(work.subjects) == 1


@pytest.mark.parametrize("is_saga", [False, True])
def test_failure_that_was_undone_deletes_the_key(keys: IdempotencyKeys, request_: KeyedRequest, is_saga: bool) -> None:
    request_ = replace(request_, is_saga=is_saga)
    with pytest.raises(Refused, match="INTERNAL_ERROR"):
        keys.run(request_, Work(Refused(ErrorCode.INTERNAL_ERROR)))
    work = Work()
    keys.run(request_, work)
    assert len(work.subjects) == 1


# ── a request whose work is a saga


@dataclass
class SagaWork:
    """Work that ends its subject's saga as `status`, and returns the result of the saga."""

    journal: Journal
    result: Mapping[str, Any]
    status: Status = Status.DONE
    flow: str = "reserve"

    def __call__(self, subject: UUID) -> Mapping[str, Any]:
        entry, is_own = self.journal.begin(self.flow, subject, {}, caller=None, dispute_number=0, one_attempt=True)
        assert is_own
        assert self.journal.end(entry, self.status, self.result)
        return self.result


def test_result_of_a_saga_is_replayed_from_the_journal(db: Database, request_: KeyedRequest) -> None:
    keys, journal = start_process_with_journal(db)
    request, retry, result = replace(request_, is_saga=True), Work(), {"order_id": str(uuid4())}
    assert keys.run(request, SagaWork(journal, result)) == result
    assert keys.run(request, retry) == start_process(db).run(request, retry) == result
    assert retry.subjects == []
    with pytest.raises(Refused, match="IDEMPOTENCY_KEY_REUSED"):
        keys.run(replace(request, body=b'{"seat": 2}'), retry)


def test_finished_saga_is_replayed_while_another_one_is_live(db: Database, request_: KeyedRequest) -> None:
    """The first process has ended, and a pay of the order runs or is PARKED."""
    keys, journal = start_process_with_journal(db)
    request, retry, orders = replace(request_, is_saga=True), Work(), []

    def reserve(subject: UUID) -> Mapping[str, Any]:
        orders.append(subject)
        return SagaWork(journal, {"order_id": str(subject), "price": Decimal("80.00")})(subject)

    first = keys.run(request, reserve)
    journal.begin("pay", orders[0], {}, caller=None, dispute_number=0, one_attempt=False)
    journal.resign()
    assert start_process(db).run(request, retry) == json_codec.decode(json_codec.encode(first))
    assert retry.subjects == []


@pytest.mark.parametrize(
    "other",
    [{"status": Status.UNDONE}, {"flow": "pay"}, {"result": {"resolved_by_hand": "ops"}}],
    ids=["undone", "another flow", "resolved by hand"],
)
def test_another_end_in_the_journal_is_no_result(db: Database, request_: KeyedRequest, other: dict[str, Any]) -> None:
    """The retry comes while the first request still works under its key."""
    keys, journal = start_process_with_journal(db)
    saga, retry = replace(SagaWork(journal, {}), **other), Work()

    def run_while_retried(subject: UUID) -> Mapping[str, Any]:
        saga(subject)
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            start_process(db).run(request_, retry)
        return {}

    keys.run(request_, run_while_retried)
    assert retry.subjects == []


# ── a first request that is late and loses its claim


@dataclass
class LateProcess:
    """A process that loses its lease while it works. It continues after `meanwhile` has run."""

    keys: IdempotencyKeys
    journal: Journal

    def run(self, request: KeyedRequest, meanwhile: Callable[[], object], rest: Work) -> Mapping[str, Any]:
        """Return the response of the late request, whose work ends with `rest`."""

        def work(subject: UUID) -> Mapping[str, Any]:
            self.journal.resign()
            meanwhile()
            return rest(subject)

        return self.keys.run(request, work)


@pytest.fixture
def late(db: Database) -> LateProcess:
    """The process that is late."""
    return LateProcess(*start_process_with_journal(db))


def test_late_request_returns_the_outcome_of_its_retry(
    keys: IdempotencyKeys, late: LateProcess, request_: KeyedRequest
) -> None:
    retry, own = Work(name="retry"), Work(name="late")
    responses = [late.run(request_, lambda: keys.run(request_, retry), own), keys.run(request_, Work())]
    assert retry.subjects == own.subjects, "both work on the key's subject"
    assert [response["by"] for response in responses] == ["retry", "retry"]


@pytest.mark.parametrize("failure", [Refused(ErrorCode.INTERNAL_ERROR), Unknown("no answer"), None])
def test_late_request_does_not_free_the_key_of_a_running_retry(
    db: Database, late: LateProcess, request_: KeyedRequest, failure: Exception | None
) -> None:
    another, third, has_begun, may_end = start_process(db), Work(), threading.Event(), threading.Event()

    def work_on_retry(subject: UUID) -> Mapping[str, Any]:
        has_begun.set()
        assert may_end.wait(10)
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            start_process(db).run(request_, third)
        return {"order_id": str(subject)}

    with ThreadPoolExecutor(1) as pool:

        def start_retry() -> None:
            running.append(pool.submit(another.run, request_, work_on_retry))
            assert has_begun.wait(10)

        running: list[Future[Mapping[str, Any]]] = []
        own = Work(failure)
        try:
            with pytest.raises((Refused, Unknown), match=r"no answer|REQUEST_IN_PROGRESS"):
                late.run(request_, start_retry, own)
        finally:
            may_end.set()
        assert running[0].result() == {"order_id": str(own.subjects[0])}
    assert third.subjects == []
    assert start_process(db).run(request_, third) == running[0].result()


def test_late_failure_does_not_free_the_key_of_a_newer_request(
    db: Database, keys: IdempotencyKeys, late: LateProcess, request_: KeyedRequest
) -> None:
    """A first retry deletes the key, and a second one begins again under it. The late failure changes nothing."""
    second, third = Work(), Work()

    def run_two_retries() -> None:
        with pytest.raises(Refused, match="INTERNAL_ERROR"):
            start_process(db).run(request_, Work(Refused(ErrorCode.INTERNAL_ERROR)))
        keys.run(request_, second)

    response = late.run(request_, run_two_retries, Work(Refused(ErrorCode.INTERNAL_ERROR)))
    assert response["order_id"] == str(second.subjects[0])
    assert response == keys.run(request_, third)
    assert third.subjects == [], "no second effect"


def test_key_with_a_locked_row_is_in_progress(db: Database, request_: KeyedRequest) -> None:
    keys = start_process(db)
    with pytest.raises(Unknown):
        keys.run(request_, Work(Unknown("the process died")))
    with db.transaction() as tx:
        assert tx.run("UPDATE idempotency_keys SET owner = owner WHERE key = %(key)s", key=request_.key) == 1
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            keys.run(request_, Work())


def test_replay_does_not_wait_for_a_row_lock(db: Database, keys: IdempotencyKeys, request_: KeyedRequest) -> None:
    first = keys.run(request_, Work())
    with db.transaction() as tx:
        assert tx.run("UPDATE idempotency_keys SET owner = owner WHERE key = %(key)s", key=request_.key) == 1
        assert keys.run(request_, Work()) == first


def test_retry_finds_the_subject_of_a_response_that_was_not_stored(
    db: Database, keys: IdempotencyKeys, request_: KeyedRequest
) -> None:
    first, retry = Work(), Work()
    with pytest.raises(Unknown, match="not stored"):
        start_process(DatabaseThatStoresNoOutcome(db)).run(request_, first)
    keys.run(request_, retry)
    assert retry.subjects == first.subjects


def test_key_whose_release_failed_is_released_later(db: Database, request_: KeyedRequest) -> None:
    broken = BrokenDatabase(db)
    keys, retry = IdempotencyKeys(broken, start_process_with_journal(db)[1].instance_id), Work()

    def work(_subject: UUID) -> Mapping[str, Any]:
        broken.is_away = True
        raise Unknown("the database was lost")

    with pytest.raises(Unknown, match="lost"):
        keys.run(request_, work)
    assert read_abandoned() == 1
    with pytest.raises(Unknown):
        keys.release_abandoned()
    broken.is_away = False
    with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
        start_process(db).run(request_, retry)
    keys.release_abandoned()
    assert read_abandoned() == 0
    start_process(db).run(request_, retry)
    assert len(retry.subjects) == 1


def test_claim_whose_answer_was_lost_is_released_later(db: Database, request_: KeyedRequest) -> None:
    broken, work = BrokenDatabase(db), Work()
    keys = IdempotencyKeys(broken, start_process_with_journal(db)[1].instance_id)
    broken.loses_answers = True
    with pytest.raises(Unknown):
        keys.run(request_, work)
    broken.loses_answers = False
    with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
        keys.run(request_, work)
    keys.release_abandoned()
    keys.run(request_, work)
    assert len(work.subjects) == 1


def test_late_release_does_not_free_the_key_of_its_retry(db: Database, request_: KeyedRequest) -> None:
    """The retry already works under the key when the first request's release arrives."""
    broken, (journal_keys, journal) = BrokenDatabase(db), start_process_with_journal(db)
    keys = IdempotencyKeys(broken, journal.instance_id)

    def lose_database(_subject: UUID) -> Mapping[str, Any]:
        broken.is_away = True
        raise Unknown("the database was lost")

    with pytest.raises(Unknown):
        keys.run(request_, lose_database)
    broken.is_away = False
    journal.resign()

    def work_on_retry(_subject: UUID) -> Mapping[str, Any]:
        keys.release_abandoned()
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            journal_keys.run(request_, Work())
        return {}

    start_process(db).run(request_, work_on_retry)


def test_claim_that_was_never_sent_is_not_kept(db: Database, request_: KeyedRequest) -> None:
    """Otherwise each request during an outage would cost memory until the database is back."""
    broken = BrokenDatabase(db)
    keys = start_process(broken)
    broken.is_away, broken.failure = True, Away
    with pytest.raises(Away):
        keys.run(request_, Work())
    assert keys._abandoned == {}


def test_claim_is_forgotten_although_the_database_does_not_answer(
    db: Database, request_: KeyedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BrokenDatabase(db)
    keys = start_process(broken)
    broken.is_away = True
    with pytest.raises(Unknown):
        keys.run(request_, Work())
    assert read_abandoned() == 1
    with pytest.raises(Unknown):
        keys.release_abandoned()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + module.CLAIM_SECONDS + 1))
    keys.release_abandoned()
    assert read_abandoned() == 0


def test_old_keys_are_deleted_in_batches(db: Database, keys: IdempotencyKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    for number in range(6):
        keys.run(KeyedRequest(uuid4(), "reserve", f"batch {number}", b"{}"), Work())
    with db.transaction() as tx:
        tx.run("""UPDATE idempotency_keys SET created_at = app_now() - interval '25 hours'
            WHERE key LIKE 'batch %%' AND key <> 'batch 5'""")
    keys.delete_expired()
    with db.transaction() as tx:
        left = tx.all("SELECT key FROM idempotency_keys WHERE key LIKE 'batch %%'")
    assert [row["key"] for row in left] == ["batch 5"]


def test_living_owner_keeps_its_key_after_an_outage(db: Database, request_: KeyedRequest) -> None:
    """No process could renew its lease, so the owner of the key is not dead."""
    other, other_journal = start_process_with_journal(db)
    retry = Work()

    def work_through_outage(_subject: UUID) -> Mapping[str, Any]:
        with db.transaction() as tx:
            tx.run("UPDATE heartbeats SET lease_until = clock_timestamp() - interval '0.6 seconds'")
        other_journal.beat()
        with pytest.raises(Refused, match="REQUEST_IN_PROGRESS"):
            other.run(request_, retry)
        return {}

    start_process(db).run(request_, work_through_outage)
    assert retry.subjects == []


def read_abandoned() -> float:
    """Read the metric of the keys that no request works on."""
    return REGISTRY.get_sample_value("idempotency_keys_abandoned") or 0.0


class BrokenDatabase(Database):
    """A database that does not answer, or whose answers are lost after the commit."""

    def __init__(self, db: Database) -> None:
        vars(self).update(vars(db))
        self.is_away = False
        self.failure: type[Unknown] = Unknown
        self.loses_answers = False

    def statement(self, sql: str, **params: Any) -> Row | None:
        if self.is_away:
            raise self.failure("the database did not answer")
        row = super().statement(sql, **params)
        if self.loses_answers:
            raise Unknown("the answer was lost")
        return row


class DatabaseThatStoresNoOutcome(Database):
    """A database that fails when an outcome is stored."""

    def __init__(self, db: Database) -> None:
        vars(self).update(vars(db))

    def statement(self, sql: str, **params: Any) -> Row | None:
        if "outcome" in params:
            raise Unknown("the outcome was not stored")
        return super().statement(sql, **params)
