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
from services.orchestrator import reserve_coalescing as crowds_module
from services.orchestrator.participants import Inventory
from services.orchestrator.reserve_coalescing import Crowds

pytestmark = pytest.mark.unit

SEAT, ANOTHER_SEAT = "seat", "another seat"
ALICE, BOB, CAROL = "alice", "bob", "carol"
HOLD = f"{ALICE}'s hold"


class Leader:
    """Whoever comes first; what becomes of the question is said by the test."""

    def __init__(self, crowds: Crowds, pool: ThreadPoolExecutor, user: str = ALICE) -> None:
        self._begun, self._may_end = threading.Event(), threading.Event()
        self.done = pool.submit(crowds.ask, SEAT, user, f"{user}'s hold", self._work)
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
def crowds(monkeypatch: pytest.MonkeyPatch) -> Crowds:
    """Crowds whose patience outlasts every test but the one about it."""
    monkeypatch.setattr(crowds_module, "PATIENCE_SECONDS", 60.0)
    return Crowds()


@pytest.fixture
def pool() -> Any:
    """Threads for those who wait."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def waits(crowds: Crowds, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Future[str]]:
    """Somebody who comes now: returns once he waits for the answer of another."""
    waiting = threading.Semaphore(0)
    wait = threading.Event.wait

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.release()
            return wait(self, timeout)

    monkeypatch.setattr(crowds_module, "Event", Watched)

    def come(user: str) -> Future[str]:
        coming = pool.submit(crowds.ask, SEAT, user, f"{user}'s hold", lambda: f"{user} asked")
        assert waiting.acquire(timeout=20)
        return coming

    return come


def refusal(waiting: Future[str]) -> Refused:
    """What somebody was refused with."""
    with pytest.raises(Refused) as refused:
        waiting.result(20)
    return refused.value


def test_nobody_waits_who_is_alone(crowds: Crowds) -> None:
    for _ in range(2):
        assert crowds.ask(SEAT, ALICE, "a hold", lambda: "asked") == "asked"


def test_those_who_wait_lose_with_the_answer_that_another_has_the_seat(crowds, pool, waits) -> None:
    leader = Leader(crowds, pool)
    waiting = [waits(BOB), waits(CAROL)]
    crowds.put(SEAT, HOLD).end(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert [refusal(each).code for each in waiting] == [ErrorCode.SEAT_UNAVAILABLE] * 2
    # The winner's saga goes on meanwhile.
    assert crowds.ask(SEAT, BOB, "a hold", lambda: "came after it") == "came after it"
    leader.end()


def test_the_winner_asking_twice_hears_it_from_his_own_question(crowds, pool, waits) -> None:
    leader = Leader(crowds, pool)
    twin = waits(ALICE)
    crowds.put(SEAT, HOLD).end(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert twin.result(20) == "alice asked"
    leader.end()


def test_who_comes_after_the_call_went_out_asks_at_once(crowds, pool, waits) -> None:
    """The row may have been read before he came, and the seat come free in between."""
    leader = Leader(crowds, pool)
    early = waits(BOB)
    question = crowds.put(SEAT, HOLD)
    assert crowds.ask(SEAT, CAROL, "a hold", lambda: "carol asked") == "carol asked"
    question.end(ErrorCode.SEAT_ALREADY_SOLD)
    assert refusal(early).code is ErrorCode.SEAT_ALREADY_SOLD
    leader.end()


def test_who_has_the_seat_hears_it_from_his_own_question(crowds, pool, waits) -> None:
    leader = Leader(crowds, pool)
    holder, other = waits(BOB), waits(CAROL)
    crowds.put(SEAT, HOLD).end(ErrorCode.SEAT_UNAVAILABLE, BOB)
    assert holder.result(20) == "bob asked"
    refused = refusal(other)
    assert (refused.code, refused.details) == (ErrorCode.SEAT_UNAVAILABLE, {})
    leader.end()


def test_without_an_answer_everybody_asks(crowds, pool, waits) -> None:
    leader = Leader(crowds, pool)
    waiting = [waits(BOB), waits(CAROL)]
    leader.end()
    assert {each.result(20) for each in waiting} == {"bob asked", "carol asked"}


def test_a_question_that_fails_is_over(crowds: Crowds) -> None:
    def fail() -> str:
        raise Unknown("the journal is away")

    with pytest.raises(Unknown):
        crowds.ask(SEAT, ALICE, "a hold", fail)
    assert crowds.ask(SEAT, BOB, "a hold", lambda: "asked") == "asked"


def test_patience_ends(crowds, pool, waits, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader(crowds, pool)
    monkeypatch.setattr(crowds_module, "PATIENCE_SECONDS", 0.01)
    assert waits(BOB).result(20) == "bob asked"
    assert not leader.done.done()
    leader.end()


def test_a_call_that_is_made_again_says_nothing_to_a_new_crowd(crowds, pool, waits) -> None:
    """It hears what was written down for it the first time: what it knows of the seat may be older than they are."""
    first = Leader(crowds, pool)
    crowds.put(SEAT, HOLD).end()  # its answer was lost
    second = Leader(crowds, pool, BOB)
    waiting = waits(CAROL)
    crowds.put(SEAT, HOLD).end(ErrorCode.SEAT_ALREADY_SOLD)
    assert not waiting.done()
    crowds.put(SEAT, f"{BOB}'s hold").end(ErrorCode.SEAT_UNAVAILABLE, BOB)
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    first.end()
    second.end()


def test_a_hold_that_is_not_new_says_nothing(crowds, pool, waits) -> None:
    """An order whose first request died, worked on again: its refusal may be one that was written down then."""
    leader = Leader(crowds, pool)
    waiting = waits(BOB)
    crowds.put(SEAT, "an old hold").end(ErrorCode.SEAT_ALREADY_SOLD)
    crowds.put(SEAT, HOLD).end(ErrorCode.SEAT_UNAVAILABLE, ALICE)
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    leader.end()


def test_another_seat_has_another_crowd(crowds, pool) -> None:
    leader = Leader(crowds, pool)
    assert crowds.ask(ANOTHER_SEAT, BOB, "a hold", lambda: "asked") == "asked"
    leader.end()


def test_a_new_hold_of_somebody_without_patience_answers_too(crowds, pool, waits, monkeypatch) -> None:
    """His call went out after they came. The first's own then finds nobody waiting."""
    leader = Leader(crowds, pool)
    waiting = waits(BOB)
    monkeypatch.setattr(crowds_module, "PATIENCE_SECONDS", 0.01)

    def call() -> str:
        crowds.put(SEAT, f"{CAROL}'s hold").end(ErrorCode.SEAT_UNAVAILABLE, CAROL)
        return "carol has it"

    assert crowds.ask(SEAT, CAROL, f"{CAROL}'s hold", call) == "carol has it"
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    crowds.put(SEAT, HOLD).end(ErrorCode.SEAT_UNAVAILABLE, CAROL)
    leader.end()


class Peer:
    """Inventory, as it answers a ReserveSeat."""

    def __init__(self, refusal: Refused | None) -> None:
        self._refusal = refusal

    def call(self, _method: object, _request: object) -> str:
        if self._refusal:
            raise self._refusal
        return "a hold"


def reserve(crowds: Crowds, refusal: Refused | None) -> str:
    """A ReserveSeat of Alice's, so answered."""
    inventory = Inventory(Peer(refusal), SimpleNamespace(ReserveSeat=None), crowds)  # type: ignore[arg-type]
    return str(inventory.reserve(SEAT, ALICE, HOLD, 300))


def held_by(holder: str) -> Refused:
    """How Inventory refuses a held seat."""
    return Refused(ErrorCode.SEAT_UNAVAILABLE, held_by=holder, order_id="order")


def test_the_crowd_hears_that_the_seat_was_got(crowds, pool, waits) -> None:
    leader = Leader(crowds, pool)
    waiting = waits(BOB)
    assert reserve(crowds, None) == "a hold"
    assert refusal(waiting).code is ErrorCode.SEAT_UNAVAILABLE
    leader.end()


def test_the_crowd_hears_who_has_the_seat_and_nobody_else_does(crowds, pool, waits) -> None:
    leader = Leader(crowds, pool)
    holder, other = waits(BOB), waits(CAROL)
    with pytest.raises(Refused) as refused:
        reserve(crowds, held_by(BOB))
    assert refused.value.details == {"order_id": "order"}
    assert refusal(other).details == {}
    assert holder.result(20) == "bob asked"
    leader.end()


# The last: the row is in somebody's hands this instant, which says nothing of who will have the seat, or has it.
UNLIKE = [Refused(ErrorCode.SEAT_NOT_FOUND), Unknown("Inventory is away"), Refused(ErrorCode.SEAT_UNAVAILABLE)]


@pytest.mark.parametrize("unlike", UNLIKE)
def test_the_crowd_hears_of_nothing_but_a_seat_that_is_taken(crowds, pool, waits, unlike: Exception) -> None:
    leader = Leader(crowds, pool)
    waiting = waits(BOB)
    with pytest.raises(type(unlike)):
        reserve(crowds, unlike)  # type: ignore[arg-type]
    assert waiting.result(20) == "bob asked"
    leader.end()
