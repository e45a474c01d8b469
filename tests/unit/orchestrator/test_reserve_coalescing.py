"""Request coalescing: some concurrent reserves share a refusal, and the others make their own call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
from services.orchestrator import reserve_coalescing
from services.orchestrator.participants import Inventory
from services.orchestrator.reserve_coalescing import ReserveCoalescer

pytestmark = pytest.mark.unit

SEAT, ANOTHER_SEAT = "seat", "another seat"
ALICE, BOB, CAROL = "alice", "bob", "carol"
SECONDS = 20


def hold_of(user: str) -> str:
    """Return the id of a user's hold."""
    return f"{user}'s hold"


def join(coalescer: ReserveCoalescer, user: str, seat: str = SEAT) -> str:
    """Reserve a seat for `user` and return "own call" when the user makes their own call."""
    return coalescer.join(seat, user, hold_of(user), lambda: "own call")


class FirstRequest:
    """The first reserve of a seat. Its saga runs until `end`, and the test decides what its call returns."""

    def __init__(self, coalescer: ReserveCoalescer, pool: ThreadPoolExecutor, user: str = ALICE) -> None:
        self._has_begun, self._may_end = threading.Event(), threading.Event()
        self.done = pool.submit(coalescer.join, SEAT, user, hold_of(user), self._work)
        assert self._has_begun.wait(SECONDS)

    def _work(self) -> str:
        self._has_begun.set()
        assert self._may_end.wait(SECONDS)
        return "first"

    def end(self) -> None:
        """End the saga and wait for its result."""
        self._may_end.set()
        assert self.done.result(SECONDS) == "first"


@pytest.fixture
def coalescer(monkeypatch: pytest.MonkeyPatch) -> ReserveCoalescer:
    """A coalescer whose waiting time is longer than every test, except for the test of that time."""
    monkeypatch.setattr(reserve_coalescing, "MAX_WAIT_SECONDS", 60.0)
    return ReserveCoalescer()


@pytest.fixture
def pool() -> Any:
    """Threads for the concurrent requests."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def wait_as(
    coalescer: ReserveCoalescer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Future[str]]:
    """Start a reserve of a user, and return it once it waits for the call of another request."""
    waiting = threading.Semaphore(0)
    wait = threading.Event.wait

    class WatchedEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.release()
            return wait(self, timeout)

    monkeypatch.setattr(reserve_coalescing, "Event", WatchedEvent)

    def start(user: str) -> Future[str]:
        request = pool.submit(join, coalescer, user)
        assert waiting.acquire(timeout=SECONDS)
        return request

    return start


@pytest.fixture
def first(coalescer: ReserveCoalescer, pool: ThreadPoolExecutor, wait_as: Callable[[str], Future[str]]) -> Any:
    """Alice's request, which is the first for the seat. `wait_as` must observe its event."""
    request = FirstRequest(coalescer, pool)
    yield request
    request.end()


def refusal_of(request: Future[str]) -> Refused:
    """Return the refusal of a request."""
    with pytest.raises(Refused) as refused:
        request.result(SECONDS)
    return refused.value


def test_single_request_does_not_wait(coalescer: ReserveCoalescer) -> None:
    for _ in range(2):
        assert join(coalescer, ALICE) == "own call"


def test_waiting_requests_get_the_refusal_of_the_first_call(coalescer, first, wait_as) -> None:
    waiting = [wait_as(BOB), wait_as(CAROL)]
    coalescer.close(SEAT, hold_of(ALICE)).publish(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert [refusal_of(request).code for request in waiting] == [ErrorCode.SEAT_UNAVAILABLE] * 2
    # The first saga still runs, but its call is over.
    assert join(coalescer, BOB) == "own call"


def test_request_after_the_call_was_sent_makes_its_own(coalescer, first, wait_as) -> None:
    """The row may have been read before the request arrived, and the seat may be free since then."""
    early = wait_as(BOB)
    pending = coalescer.close(SEAT, hold_of(ALICE))
    assert join(coalescer, CAROL) == "own call"
    pending.publish(ErrorCode.SEAT_ALREADY_SOLD)
    assert refusal_of(early).code is ErrorCode.SEAT_ALREADY_SOLD


def test_holder_of_the_seat_makes_their_own_call(coalescer, first, wait_as) -> None:
    holder, other = wait_as(BOB), wait_as(CAROL)
    coalescer.close(SEAT, hold_of(ALICE)).publish(ErrorCode.SEAT_UNAVAILABLE, BOB)
    assert holder.result(SECONDS) == "own call"
    refused = refusal_of(other)
    assert (refused.code, refused.details) == (ErrorCode.SEAT_UNAVAILABLE, {})


def test_without_an_outcome_each_request_makes_its_own_call(coalescer, first, wait_as) -> None:
    waiting = [wait_as(BOB), wait_as(CAROL)]
    first.end()
    assert [request.result(SECONDS) for request in waiting] == ["own call"] * 2


def test_failed_first_request_does_not_block_the_seat(coalescer: ReserveCoalescer) -> None:
    def fail() -> str:
        raise Unknown("the journal does not answer")

    with pytest.raises(Unknown):
        coalescer.join(SEAT, ALICE, hold_of(ALICE), fail)
    assert join(coalescer, BOB) == "own call"


def test_waiting_time_is_limited(coalescer, first, wait_as, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve_coalescing, "MAX_WAIT_SECONDS", 0.01)
    assert wait_as(BOB).result(SECONDS) == "own call"
    assert not first.done.done()


def test_repeated_call_publishes_nothing(coalescer, pool, first, wait_as) -> None:
    """A repeated call returns its stored answer, which may be older than the waiting requests."""
    coalescer.close(SEAT, hold_of(ALICE)).publish()  # its reply was lost
    second = FirstRequest(coalescer, pool, BOB)
    waiting = wait_as(CAROL)
    coalescer.close(SEAT, hold_of(ALICE)).publish(ErrorCode.SEAT_ALREADY_SOLD)
    assert not waiting.done()
    coalescer.close(SEAT, hold_of(BOB)).publish(ErrorCode.SEAT_UNAVAILABLE, BOB)
    assert refusal_of(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    second.end()


def test_call_of_an_old_hold_publishes_nothing(coalescer, first, wait_as) -> None:
    """A retry of a dead request may get the refusal that was stored for its order."""
    waiting = wait_as(BOB)
    coalescer.close(SEAT, "an old hold").publish(ErrorCode.SEAT_ALREADY_SOLD)
    coalescer.close(SEAT, hold_of(ALICE)).publish(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert refusal_of(waiting).code is ErrorCode.SEAT_UNAVAILABLE


def test_requests_for_another_seat_do_not_wait(coalescer, first) -> None:
    assert join(coalescer, BOB, ANOTHER_SEAT) == "own call"


def test_request_that_stopped_waiting_publishes_too(coalescer, first, wait_as, monkeypatch) -> None:
    """Carol's call is sent after the waiting request arrived. Alice's later call then has no waiting requests."""
    waiting = wait_as(BOB)
    monkeypatch.setattr(reserve_coalescing, "MAX_WAIT_SECONDS", 0.01)

    def reserve_for_carol() -> str:
        coalescer.close(SEAT, hold_of(CAROL)).publish(ErrorCode.SEAT_UNAVAILABLE, CAROL)
        return "reserved"

    assert coalescer.join(SEAT, CAROL, hold_of(CAROL), reserve_for_carol) == "reserved"
    assert refusal_of(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    coalescer.close(SEAT, hold_of(ALICE)).publish(ErrorCode.SEAT_UNAVAILABLE, CAROL)


class FakePeer:
    """Inventory with a fixed answer to ReserveSeat."""

    def __init__(self, refusal: Exception | None) -> None:
        self._refusal = refusal

    def call(self, _method: object, _request: object) -> str:
        if self._refusal:
            raise self._refusal
        return "a hold"


def reserve(coalescer: ReserveCoalescer, refusal: Exception | None) -> str:
    """Send Alice's ReserveSeat, which returns a hold or raises `refusal`."""
    peer, stub = FakePeer(refusal), SimpleNamespace(ReserveSeat=None)
    inventory = Inventory(cast(Any, peer), cast(Any, stub), coalescer)
    return str(inventory.reserve(SEAT, ALICE, hold_of(ALICE), 300))


def test_successful_hold_refuses_the_waiting_requests(coalescer, first, wait_as) -> None:
    waiting = wait_as(BOB)
    assert reserve(coalescer, None) == "a hold"
    assert refusal_of(waiting).code is ErrorCode.SEAT_UNAVAILABLE


def test_refusal_never_names_the_holder_to_clients(coalescer, first, wait_as) -> None:
    """Inventory returns `held_by`, so that the holder is not refused with the others."""
    holder, other = wait_as(BOB), wait_as(CAROL)
    with pytest.raises(Refused) as refused:
        reserve(coalescer, Refused(ErrorCode.SEAT_UNAVAILABLE, held_by=BOB, order_id="order"))
    assert refused.value.details == {"order_id": "order"}
    assert refusal_of(other).details == {}
    assert holder.result(SECONDS) == "own call"


# The last one comes from a locked row, so it is still open who gets the seat.
NOT_SHARED = [Refused(ErrorCode.SEAT_NOT_FOUND), Unknown("Inventory is down"), Refused(ErrorCode.SEAT_UNAVAILABLE)]


@pytest.mark.parametrize("failure", NOT_SHARED)
def test_only_a_taken_seat_is_shared(coalescer, first, wait_as, failure: Exception) -> None:
    waiting = wait_as(BOB)
    with pytest.raises(type(failure)):
        reserve(coalescer, failure)
    assert waiting.result(SECONDS) == "own call"
