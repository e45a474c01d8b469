"""A saga whose neighbours are away: it is refused at once, and what must happen is called until the deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

import pytest

from services.chassis import neighbours
from services.chassis.db import Database
from services.chassis.errors import Away, NoAnswer, Refused, Unknown, Unreachable
from services.chassis.neighbours import Neighbour
from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Need, Participants
from services.orchestrator.saga import retry, runner
from services.orchestrator.saga.definition import Pivot, Saga, State, Step, StepResult
from services.orchestrator.saga.flows import SAGAS
from services.orchestrator.saga.journal import Journal
from services.orchestrator.saga.retry import retry_until
from services.orchestrator.saga.runner import Runner
from tests.support.leases import beat_as_if_running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.unit

AT_ONCE = 1.0  # seconds of the clock of a test. A saga that retries takes 4 s to give up, and 3 s more to undo


@dataclass
class Clock:
    """The clock of sagas and retries. Only their pauses move it, so a busy machine cannot."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Calls:
    """Participants that fail with scripted errors, and the calls that they got."""

    neighbours: dict[Need, Neighbour] = field(default_factory=dict)
    errors: dict[str, list[Unknown]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    def call(self, name: str) -> None:
        self.made.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    def refuse_if_away(self, needs: tuple[Need, ...]) -> None:
        Participants.refuse_if_away(cast(Participants, self), needs)


def do(name: str) -> Callable[..., StepResult]:
    def step(participants: Any, _state: State, _key: str) -> StepResult:
        participants.call(name)
        return {}

    return step


def settle(participants: Any, _state: State, _key: str) -> bool:
    participants.call("settle")
    return False


def make_saga(*, has_pivot: bool = False) -> Saga:
    """Two steps with undos, and a pivot if wanted."""
    steps = [Step("first", do("first"), undo=do("undo first")), Step("second", do("second"), undo=do("undo second"))]
    if has_pivot:
        steps.append(Pivot("pivot", do("pivot"), settle=settle))
    return Saga(
        "reserve",
        steps=tuple(steps),
        needs=(Need.INVENTORY,),
        result_fields=(),
        undone_code=ErrorCode.SERVICE_UNAVAILABLE,
    )


@pytest.fixture
def journal(db: Database) -> Journal:
    """The journal of a live process."""
    journal = Journal(db, deadline_seconds=60, park_seconds=120)
    beat_as_if_running(db, journal)
    return journal


@pytest.fixture
def run(journal: Journal) -> Callable[[Saga, Calls], str]:
    """A function that runs a saga for a new subject, and returns the code that its caller gets."""

    def run_saga(saga: Saga, calls: Calls) -> str:
        process = Runner(journal, cast(Participants, calls), forward_seconds=4, resolve_seconds=3)
        try:
            process.run(saga, uuid4(), {})
        except Refused as refusal:
            return str(refusal.code)
        except Unknown:
            return "left to recovery"
        return "done"

    return run_saga


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of a test. A neighbour is away after 0.1 s of real time, and then it is not probed again."""
    monkeypatch.setattr(neighbours, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(neighbours, "PROBE_PAUSE", 60)
    clock = Clock()
    for module in (retry, runner):
        monkeypatch.setattr(module, "time", clock)
    return clock


@contextmanager
def at_once(clock: Clock) -> Iterator[None]:
    """Assert that the block ends at once."""
    started = clock.now
    yield
    assert clock.now - started < AT_ONCE


def away(number: int = 1) -> list[Unknown]:
    return [Away("it is away") for _ in range(number)]


@pytest.mark.parametrize("has_pivot", [False, True])
def test_no_step_runs_while_a_needed_neighbour_is_away(run: Callable[..., str], clock: Clock, has_pivot: bool) -> None:
    inventory = Neighbour("Inventory of a test")
    calls = Calls({Need.INVENTORY: inventory})

    def fail() -> bool:
        with pytest.raises(Unknown) as caught, inventory.calling():
            raise Unreachable("refused")
        return caught.value.is_away

    wait_until(fail)
    with at_once(clock):
        assert run(make_saga(has_pivot=has_pivot), calls) == "SERVICE_UNAVAILABLE"
    assert calls.made == []
    inventory.note_answer()
    assert run(make_saga(), calls) == "done"


def test_step_that_was_never_sent_is_not_undone(run: Callable[..., str], clock: Clock) -> None:
    calls = Calls(errors={"second": [Unreachable("refused"), *away()]})
    with at_once(clock):
        assert run(make_saga(), calls) == "SERVICE_UNAVAILABLE"
    assert calls.made == ["first", "second", "second", "undo first"]


def test_step_with_a_lost_answer_is_undone(run: Callable[..., str], clock: Clock) -> None:
    calls = Calls(errors={"second": [NoAnswer("a timeout"), *away()]})
    with at_once(clock):
        assert run(make_saga(), calls) == "SERVICE_UNAVAILABLE"
    assert calls.made == ["first", "second", "second", "undo second", "undo first"]


def test_undo_is_called_until_its_neighbour_is_back(run: Callable[..., str]) -> None:
    calls = Calls(errors={"second": away(), "undo first": away(3)})
    assert run(make_saga(), calls) == "SERVICE_UNAVAILABLE"
    assert calls.made == ["first", "second", *["undo first"] * 4]


def test_undo_at_a_neighbour_that_stays_away_is_left_to_recovery(
    run: Callable[..., str], clock: Clock, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits for the undo. A hung service would cost it the whole time for settling."""
    monkeypatch.setattr(runner, "INSIST_SECONDS", 0.1)
    calls = Calls(errors={"second": [NoAnswer("a timeout"), *away()], "undo second": away(99)})
    with at_once(clock):
        assert run(make_saga(), calls) == "left to recovery"
    assert len(journal.adopt(16)) == 1, "recovery takes it at its next tick"


def test_pivot_is_settled_although_its_neighbour_is_away(run: Callable[..., str]) -> None:
    calls = Calls(errors={"pivot": away(), "settle": away(3)})
    assert run(make_saga(has_pivot=True), calls) == "SERVICE_UNAVAILABLE"
    assert calls.made == ["first", "second", "pivot", *["settle"] * 4, "undo second", "undo first"]


def test_call_to_a_neighbour_that_is_away_is_not_repeated(clock: Clock) -> None:
    tries: list[int] = []

    def call() -> None:
        tries.append(1)
        raise Away("it is away")

    with pytest.raises(Away):
        retry_until(clock.now + 5, call)
    assert len(tries) == 1
    with pytest.raises(Away):
        retry_until(clock.now + 5, call, insist=0.2)
    assert len(tries) > 2


@pytest.mark.parametrize("saga", SAGAS.values(), ids=SAGAS)
def test_every_flow_names_its_needs(saga: Saga) -> None:
    assert saga.needs
