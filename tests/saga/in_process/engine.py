"""Runs one cell: prepare, act under faults, recover as another process, deliver what came late, check everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from harness import invariants
from harness.api_client import ApiResponse
from services.chassis.clients import open_channel
from services.chassis.errors import Unknown
from services.orchestrator import participants
from services.orchestrator.app import Orchestrator, Seams
from services.orchestrator.participants import MessagePublisher
from services.orchestrator.saga import retry
from tests.saga.in_process.faults import IMPATIENT, Fault, Kind, ProcessDeath, Script
from tests.saga.in_process.faulty_transports import FaultyChannel, FaultyHttp, FaultyJournal, FaultyPublisher
from tests.saga.in_process.hold_messages import WakeUps
from tests.saga.in_process.in_process_system import Budget, InProcessSystem, NeverRevoked, Published
from tests.saga.in_process.scenarios import FLOWS, Case, Flow, read_state

QUICK_PAUSE = 0.002  # seconds before asking again: cells ask as production does, in quick motion
OWN_TWIN = Fault("journal begin", Kind.TWICE)  # the second finds the first and waits for it, as long as it has time


@dataclass
class Outcome:
    """What one execution came to."""

    answer: ApiResponse | None
    standing: dict[str, Any]
    sagas: tuple[str, ...]
    seen: tuple[str, ...]
    unfired: tuple[Fault, ...]
    violations: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        """What the client was told: a status and code, or nothing since the process died."""
        if self.answer is None:
            return "died"
        return f"{self.answer.status} {self.answer.error_code or ''}".strip()


class Engine:
    """A system with a preparer, a victim and a rescuer, and the script that the victim suffers."""

    def __init__(self, system: InProcessSystem, wakeups: WakeUps | None = None) -> None:
        self.system = system
        self.script = Script()
        self.inbox = system.inbox
        self.wakeups = wakeups
        self.broker: MessagePublisher = wakeups or Published()
        self.preparer = system.orchestrator(Seams(publisher=Published()))
        self.preparer_app = self.preparer.create_app(NeverRevoked())
        self._patient = self._victim(Budget(forward=4.0, resolve=3.0))
        self._impatient = self._victim(Budget(forward=0.0, resolve=0.0))
        self.rescuer, _ = self._victim(Budget())
        self._impatient_rescuer, _ = self._victim(Budget(forward=0.0, resolve=0.0))

    def _victim(self, budget: Budget) -> tuple[Orchestrator, Flask]:
        """One that asks again until it is answered, or one whose time is over at the first answer that stays out."""

        def script_of() -> Script:
            return self.script

        seams = Seams(
            transport=FaultyHttp(script_of, self.system.http),
            channel=lambda address: FaultyChannel(script_of, open_channel(address)),  # type: ignore[arg-type,return-value]
            publisher=FaultyPublisher(script_of, self.broker),
            journal=partial(FaultyJournal, script_of=script_of),
        )
        victim = self.system.orchestrator(seams, budget)
        return victim, victim.create_app(_Logins(script_of))

    def run(self, flow: Flow, *faults: Fault) -> Outcome:
        """One execution, from preparation to invariants."""
        case = self.prepared(flow)
        answer = self.act(flow, case, *faults)
        self.settle()
        return self.outcome(case, answer)

    def prepared(self, flow: Flow) -> Case:
        """A fresh case, ready for the flow's one request."""
        self.system.beat(self.preparer)
        case = Case(self.system, self.preparer_app, self.inbox, self.system.new_seat())
        flow.prepare(case)
        return case

    def act(
        self, flow: Flow, case: Case, *faults: Fault, meanwhile: Mapping[str, Callable[[], object]] | None = None
    ) -> ApiResponse | None:
        """The request, under faults; None when the process died of it. `meanwhile`: what others do before an edge."""
        hurried = any(fault.kind in IMPATIENT or fault == OWN_TWIN for fault in faults)
        victim, app = self._impatient if hurried else self._patient
        self.script = Script(faults, meanwhile=dict(meanwhile or {}))
        with _new_process(victim):
            try:
                return flow.act(case, app)
            except ProcessDeath:
                return None

    def succeed(
        self, flow: Flow, case: Case, *faults: Fault, meanwhile: Mapping[str, Callable[[], object]] | None = None
    ) -> None:
        """Run `act` and fail the test unless the answer is 200."""
        answer = self.act(flow, case, *faults, meanwhile=meanwhile)
        assert answer is not None, "the process died"
        answer.must(200)

    def settle(self) -> None:
        """Another process recovers; then the network delivers what it still carried; then recovery once more.

        Where faults wait for that other process too, a third one, without any, ends what is left.
        """
        troubled = self.script.troubles_recovery
        self.script.recovery()
        if troubled:
            with _new_process(self._impatient_rescuer), suppress(ProcessDeath, Unknown):
                _recover(self._impatient_rescuer)
            self.system.recover()
        else:
            self.system.beat(self.rescuer)
            _recover(self.rescuer)
        if self.script.deliver_late():
            self.system.recover()

    def lose_lease(self, orchestrator: Orchestrator) -> None:
        """As if it had stood still for longer than its lease; another recovers what it has in hand."""
        orchestrator.journal.resign()
        self.system.recover()

    @property
    def victim(self) -> Orchestrator:
        """Who answers a request, unless a fault ends its patience."""
        return self._patient[0]

    @property
    def victim_app(self) -> Flask:
        """The victim's door."""
        return self._patient[1]

    def hold_invariants(self, *cases: Case, parked: int = 0) -> None:
        """Every invariant, for all people and seats of some cases."""
        people = [user for case in cases for user in case.people.values()]
        scope = invariants.Scope(seats=[case.seat for case in cases], users=people)
        found = invariants.find_violations(self.system.connect, scope=scope, parked=parked)
        assert not found, found

    def outcome(self, case: Case, answer: ApiResponse | None) -> Outcome:
        """What it came to, with every invariant looked at for the people and the seat of this case."""
        astray = self.wakeups.violations() if self.wakeups else []
        scope = invariants.Scope(seats=[case.seat], users=list(case.people.values()))
        snapshot = invariants.read(self.system.connect, scope)
        sagas = sorted(snapshot["sagas"], key=lambda saga: saga["created_at"])
        self.system.forget_sagas()
        return Outcome(
            answer=answer,
            standing=read_state(case, snapshot),
            sagas=tuple(f"{saga['flow']} {saga['status']}" for saga in sagas),
            seen=tuple(self.script.seen),
            unfired=tuple(fault for fault in self.script.faults if fault not in self.script.fired),
            violations=[*astray, *invariants.check_snapshot(snapshot)],
        )


@dataclass(frozen=True)
class _Logins:
    """All stand, unless the script has the caller logged out."""

    script_of: Callable[[], Script]

    def is_revoked(self, _sid: str) -> bool:
        return self.script_of().logged_out

    def age(self) -> float:
        return 0.0


@contextmanager
def _new_process(orchestrator: Orchestrator) -> Iterator[None]:
    """As if it had just started, so that nobody takes it for the one before; gone at the end, however it went."""
    orchestrator.journal.instance_id = uuid4()
    orchestrator.journal.beat()
    try:
        yield
    finally:
        orchestrator.journal.resign()


def _recover(rescuer: Orchestrator) -> None:
    while rescuer.recovery.tick():
        pass
    rescuer.completion.tick()


class _QuickTime:
    """The clock of `retry_until` in tests: it does not wait before a retry that cannot succeed."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def sleep(self, seconds: float) -> None:
        """Raises Unknown, as if the deadline had passed, once a fault has struck that stays."""
        if self._engine.script.is_hopeless:
            raise Unknown("its time is over")
        time.sleep(seconds)


@contextmanager
def quick_motion(engine: Engine) -> Iterator[Engine]:
    """Ask again after milliseconds instead of tens of them; ask Event each time, so that its edge is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FIRST_PAUSE", QUICK_PAUSE)
        patch.setattr(retry, "LONGEST_PAUSE", QUICK_PAUSE * 4)
        patch.setattr(retry, "time", _QuickTime(engine))
        patch.setattr(participants, "EVENT_FACTS_SECONDS", 0.0)
        yield engine


__all__ = ["FLOWS", "Engine", "Outcome", "quick_motion"]
