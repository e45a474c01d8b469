"""A crowd before one seat: who shares an answer, and who asks for himself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
from services.orchestrator import reserve_coalescing
from services.orchestrator.participants import Inventory
from services.orchestrator.reserve_coalescing import ReserveCoalescer

pytestmark = pytest.mark.unit

SEAT, ANOTHER_SEAT = "seat", "another seat"
ALICE, BOB, CAROL = "alice", "bob", "carol"
HOLD = f"{ALICE}'s hold"


class Leader:
    """Whoever comes first; what becomes of the question is said by the test."""

    def __init__(self, coalescer: ReserveCoalescer, pool: ThreadPoolExecutor, user: str = ALICE) -> None:
        self._begun, self._may_end = threading.Event(), threading.Event()
        self.done = pool.submit(coalescer.join, SEAT, user, f"{user}'s hold", self._work)
        assert self._begun.wait(20)

    def _work(self) -> str:
        self._begun.set()
        assert self._may_end.wait(20)
        return "first"

    def end(self) -> None:
        """The saga is over, however its call was answered."""
        self._may_end.set()
        assert self.done.result(20) == "first"


@pytest.fixture
def coalescer(monkeypatch: pytest.MonkeyPatch) -> ReserveCoalescer:
    """ReserveCoalescer whose patience outlasts every test but the one about it."""
    monkeypatch.setattr(reserve_coalescing, "MAX_WAIT_SECONDS", 60.0)
    return ReserveCoalescer()


@pytest.fixture
def pool() -> Any:
    """Threads for those who wait."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def waits(
    coalescer: ReserveCoalescer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Future[str]]:
    """Somebody who comes now: returns once he waits for the answer of another."""
    waiting = threading.Semaphore(0)
    wait = threading.Event.wait

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.release()
            return wait(self, timeout)

    monkeypatch.setattr(reserve_coalescing, "Event", Watched)

    def come(user: str) -> Future[str]:
        coming = pool.submit(coalescer.join, SEAT, user, f"{user}'s hold", lambda: f"{user} asked")
        assert waiting.acquire(timeout=20)
        return coming

    return come


def refusal(waiting: Future[str]) -> Refused:
    """What somebody was refused with."""
    with pytest.raises(Refused) as refused:
        waiting.result(20)
    return refused.value


def test_nobody_waits_who_is_alone(coalescer: ReserveCoalescer) -> None:
    for _ in range(2):
        assert coalescer.join(SEAT, ALICE, "a hold", lambda: "asked") == "asked"


def test_those_who_wait_lose_with_the_answer_that_another_has_the_seat(coalescer, pool, waits) -> None:
    leader = Leader(coalescer, pool)
    waiting = [waits(BOB), waits(CAROL)]
    coalescer.close(SEAT, HOLD).publish(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert [refusal(each).code for each in waiting] == [ErrorCode.SEAT_UNAVAILABLE] * 2
    # The winner's saga goes on meanwhile.
    assert coalescer.join(SEAT, BOB, "a hold", lambda: "came after it") == "came after it"
    leader.end()


def test_the_winner_asking_twice_hears_it_from_his_own_question(coalescer, pool, waits) -> None:
    leader = Leader(coalescer, pool)
    twin = waits(ALICE)
    coalescer.close(SEAT, HOLD).publish(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert twin.result(20) == "alice asked"
    leader.end()


def test_who_comes_after_the_call_went_out_asks_at_once(coalescer, pool, waits) -> None:
    """The row may have been read before he came, and the seat come free in between."""
    leader = Leader(coalescer, pool)
    early = waits(BOB)
    pending = coalescer.close(SEAT, HOLD)
    assert coalescer.join(SEAT, CAROL, "a hold", lambda: "carol asked") == "carol asked"
    pending.publish(ErrorCode.SEAT_ALREADY_SOLD)
    assert refusal(early).code is ErrorCode.SEAT_ALREADY_SOLD
    leader.end()


def test_who_has_the_seat_hears_it_from_his_own_question(coalescer, pool, waits) -> None:
    leader = Leader(coalescer, pool)
    holder, other = waits(BOB), waits(CAROL)
    coalescer.close(SEAT, HOLD).publish(ErrorCode.SEAT_UNAVAILABLE, BOB)
    assert holder.result(20) == "bob asked"
    refused = refusal(other)
    assert (refused.code, refused.details) == (ErrorCode.SEAT_UNAVAILABLE, {})
    leader.end()


def test_without_an_answer_everybody_asks(coalescer, pool, waits) -> None:
    leader = Leader(coalescer, pool)
    waiting = [waits(BOB), waits(CAROL)]
    leader.end()
    assert {each.result(20) for each in waiting} == {"bob asked", "carol asked"}


def test_a_question_that_fails_is_over(coalescer: ReserveCoalescer) -> None:
    def fail() -> str:
        raise Unknown("the journal is away")

    with pytest.raises(Unknown):
        coalescer.join(SEAT, ALICE, "a hold", fail)
    assert coalescer.join(SEAT, BOB, "a hold", lambda: "asked") == "asked"


def test_patience_ends(coalescer, pool, waits, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader(coalescer, pool)
    monkeypatch.setattr(reserve_coalescing, "MAX_WAIT_SECONDS", 0.01)
    assert waits(BOB).result(20) == "bob asked"
    assert not leader.done.done()
    leader.end()


def test_a_call_that_is_made_again_says_nothing_to_a_new_crowd(coalescer, pool, waits) -> None:
    """It hears what was written down for it the first time: what it knows of the seat may be older than they are."""
    first = Leader(coalescer, pool)
    coalescer.close(SEAT, HOLD).publish()  # its answer was lost
    second = Leader(coalescer, pool, BOB)
    waiting = waits(CAROL)
    coalescer.close(SEAT, HOLD).publish(ErrorCode.SEAT_ALREADY_SOLD)
    assert not waiting.done()
    coalescer.close(SEAT, f"{BOB}'s hold").publish(ErrorCode.SEAT_UNAVAILABLE, BOB)
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    first.end()
    second.end()


def test_a_hold_that_is_not_new_says_nothing(coalescer, pool, waits) -> None:
    """An order whose first request died, worked on again: its refusal may be one that was written down then."""
    leader = Leader(coalescer, pool)
    waiting = waits(BOB)
    coalescer.close(SEAT, "an old hold").publish(ErrorCode.SEAT_ALREADY_SOLD)
    coalescer.close(SEAT, HOLD).publish(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    leader.end()


def test_another_seat_has_another_crowd(coalescer, pool) -> None:
    leader = Leader(coalescer, pool)
    assert coalescer.join(ANOTHER_SEAT, BOB, "a hold", lambda: "asked") == "asked"
    leader.end()


def test_a_new_hold_of_somebody_without_patience_answers_too(coalescer, pool, waits, monkeypatch) -> None:
    """His call went out after they came. The first's own then finds nobody waiting."""
    leader = Leader(coalescer, pool)
    waiting = waits(BOB)
    monkeypatch.setattr(reserve_coalescing, "MAX_WAIT_SECONDS", 0.01)

    def call() -> str:
        coalescer.close(SEAT, f"{CAROL}'s hold").publish(ErrorCode.SEAT_UNAVAILABLE, CAROL)
        return "carol has it"

    assert coalescer.join(SEAT, CAROL, f"{CAROL}'s hold", call) == "carol has it"
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    coalescer.close(SEAT, HOLD).publish(ErrorCode.SEAT_UNAVAILABLE, CAROL)
    leader.end()


class Peer:
    """Inventory, as it answers a ReserveSeat."""

    def __init__(self, refusal: Refused | None) -> None:
        self._refusal = refusal

    def call(self, _method: object, _request: object) -> str:
        if self._refusal:
            raise self._refusal
        return "a hold"


def reserve(coalescer: ReserveCoalescer, refusal: Refused | None) -> str:
    """A ReserveSeat of Alice's, so answered."""
    inventory = Inventory(Peer(refusal), SimpleNamespace(ReserveSeat=None), coalescer)  # type: ignore[arg-type]
    return str(inventory.reserve(SEAT, ALICE, HOLD, 300))


def held_by(holder: str) -> Refused:
    """How Inventory refuses a held seat."""
    return Refused(ErrorCode.SEAT_UNAVAILABLE, held_by=holder, order_id="order")


def test_the_crowd_hears_that_the_seat_was_got(coalescer, pool, waits) -> None:
    leader = Leader(coalescer, pool)
    waiting = waits(BOB)
    assert reserve(coalescer, None) == "a hold"
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    leader.end()


def test_the_crowd_hears_who_has_the_seat_and_nobody_else_does(coalescer, pool, waits) -> None:
    leader = Leader(coalescer, pool)
    holder, other = waits(BOB), waits(CAROL)
    with pytest.raises(Refused) as refused:
        reserve(coalescer, held_by(BOB))
    assert refused.value.details == {"order_id": "order"}
    assert refusal(other).details == {}
    assert holder.result(20) == "bob asked"
    leader.end()


# The last: the row is in somebody's hands this instant, which says nothing of who will have the seat, or has it.
UNLIKE = [Refused(ErrorCode.SEAT_NOT_FOUND), Unknown("Inventory is away"), Refused(ErrorCode.SEAT_UNAVAILABLE)]


@pytest.mark.parametrize("unlike", UNLIKE)
def test_the_crowd_hears_of_nothing_but_a_seat_that_is_taken(coalescer, pool, waits, unlike: Exception) -> None:
    leader = Leader(coalescer, pool)
    waiting = waits(BOB)
    with pytest.raises(type(unlike)):
        reserve(coalescer, unlike)  # type: ignore[arg-type]
    assert waiting.result(20) == "bob asked"
    leader.end()
