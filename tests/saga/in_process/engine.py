"""Runs one execution: prepare, act with faults, recover in another process, deliver delayed calls, check invariants."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from harness import invariants
from harness.api_client import ApiResponse
from services.chassis.clients import open_channel
from services.chassis.errors import Refused, Unknown
from services.orchestrator import participants
from services.orchestrator.app import Orchestrator, Seams
from services.orchestrator.participants import MessagePublisher
from services.orchestrator.saga import retry
from services.orchestrator.saga.definition import Saga
from tests.saga.in_process.faults import NO_RETRIES, Fault, FaultPlan, Kind, ProcessDeath
from tests.saga.in_process.faulty_transports import FaultyChannel, FaultyHttp, FaultyJournal, FaultyPublisher
from tests.saga.in_process.hold_messages import HoldMessageBroker
from tests.saga.in_process.in_process_system import (
    NO_RETRY_BUDGET,
    InProcessSystem,
    NoRevocations,
    RecordedMessages,
    RetryBudget,
)
from tests.saga.in_process.scenarios import Case, Flow, read_state
from tests.support.leases import beat_as_if_running

RETRY_PAUSE = 0.002  # seconds, shorter than in production
TWO_BEGINS = Fault("journal begin", Kind.TWICE)  # the second begin waits for the saga of the first until its deadline


@dataclass
class Outcome:
    """The result of one execution."""

    answer: ApiResponse | None
    end_state: dict[str, Any]
    sagas: tuple[str, ...]
    seen: tuple[str, ...]
    unfired: tuple[Fault, ...]
    violations: list[str] = field(default_factory=list)

    @property
    def response(self) -> str:
        """The client's response as status and error code, or `died` if the process died."""
        if self.answer is None:
            return "died"
        return f"{self.answer.status} {self.answer.error_code or ''}".strip()


class Engine:
    """A system with orchestrators of three kinds: healthy, faulty (with a fault plan), and a rescuer for recovery."""

    def __init__(self, system: InProcessSystem, real_broker: HoldMessageBroker | None = None) -> None:
        self.system = system
        self.plan = FaultPlan()
        self.inbox = system.inbox
        self.real_broker = real_broker
        self.broker: MessagePublisher = real_broker or RecordedMessages()
        self.healthy = system.orchestrator(Seams(publisher=RecordedMessages()))
        self.healthy_app = self.healthy.create_app(NoRevocations())
        self.faulty, self.faulty_app = self._build_faulty(RetryBudget())
        self._faulty_without_retries = self._build_faulty(NO_RETRY_BUDGET)
        self.rescuer, _ = self._build_faulty(RetryBudget())
        self._faulty_rescuer, _ = self._build_faulty(NO_RETRY_BUDGET)

    def _build_faulty(self, budget: RetryBudget) -> tuple[Orchestrator, Flask]:
        """Build an orchestrator with faults at its seams, and its app."""

        def get_plan() -> FaultPlan:
            return self.plan

        seams = Seams(
            transport=FaultyHttp(get_plan, self.system.http),
            channel=lambda address: FaultyChannel(get_plan, open_channel(address)),  # type: ignore[arg-type,return-value]
            publisher=FaultyPublisher(get_plan, self.broker),
            journal=partial(FaultyJournal, get_plan=get_plan),
        )
        faulty = self.system.orchestrator(seams, budget)
        return faulty, faulty.create_app(_PlannedRevocations(get_plan))

    def run(self, flow: Flow, *faults: Fault) -> Outcome:
        """Run one execution, from the preparation to the invariants."""
        case = self.prepare(flow)
        answer = self.act(flow, case, *faults)
        self.recover()
        return self.read_outcome(case, answer)

    def prepare(self, flow: Flow) -> Case:
        """Create users, seat and state for the request of a flow."""
        self.system.beat(self.healthy)
        case = Case(self.system, self.healthy_app, self.inbox, self.system.new_seat())
        flow.prepare(case)
        return case

    def act(
        self, flow: Flow, case: Case, *faults: Fault, meanwhile: Mapping[str, Callable[[], object]] | None = None
    ) -> ApiResponse | None:
        """Send the request of a flow, with faults. Returns None if the process died.

        `meanwhile` maps an edge to an action that another process does just before that call.
        """
        faulty, app = self._plan_faults(faults, meanwhile)
        with _new_process(faulty):
            try:
                return flow.act(case, app)
            except ProcessDeath:
                return None

    def run_saga(self, saga: Saga, given: Mapping[str, Any], *faults: Fault) -> str:
        """Run a saga that has no route, under faults, then recover. Return its status in the journal."""
        faulty, _ = self._plan_faults(faults)
        subject = uuid4()
        with _new_process(faulty), suppress(ProcessDeath, Refused, Unknown):
            faulty.runner.run(saga, subject, given)
        self.recover()
        return str(self.system.sagas()[-1]["status"])

    def _plan_faults(
        self, faults: Sequence[Fault], meanwhile: Mapping[str, Callable[[], object]] | None = None
    ) -> tuple[Orchestrator, Flask]:
        """Plan the faults of the next execution. Return the orchestrator that meets them, and its app."""
        has_no_time = any(fault.kind in NO_RETRIES or fault == TWO_BEGINS for fault in faults)
        self.plan = FaultPlan(tuple(faults), meanwhile=dict(meanwhile or {}))
        return self._faulty_without_retries if has_no_time else (self.faulty, self.faulty_app)

    def request(
        self, flow: Flow, case: Case, *faults: Fault, meanwhile: Mapping[str, Callable[[], object]] | None = None
    ) -> ApiResponse:
        """Like `act`, for a process that survives. Raises AssertionError if it dies."""
        answer = self.act(flow, case, *faults, meanwhile=meanwhile)
        assert answer is not None, "the process died"
        return answer

    def recover(self) -> None:
        """Recover all sagas in another process, deliver the delayed calls, and recover once more.

        If a fault is planned for that process, a healthy process recovers the rest.
        """
        has_fault = self.plan.has_recovery_fault
        self.plan.start_recovery()
        if has_fault:
            with _new_process(self._faulty_rescuer), suppress(ProcessDeath, Unknown):
                _recover(self._faulty_rescuer)
            self.system.recover()
        else:
            self.system.beat(self.rescuer)
            _recover(self.rescuer)
        if self.plan.deliver_delayed():
            self.system.recover()

    def lose_lease(self, orchestrator: Orchestrator) -> None:
        """End the lease of an orchestrator, as after a long pause, and recover its sagas in another process."""
        self.system.end_lease(orchestrator)
        self.system.recover()

    def assert_invariants(self, *cases: Case, parked: int = 0) -> None:
        """Check every invariant for the users and seats of some cases."""
        people = [user for case in cases for user in case.people.values()]
        scope = invariants.Scope(seats=[case.seat for case in cases], users=people)
        found = invariants.find_violations(self.system.connect, scope=scope, parked=parked)
        assert not found, found

    def read_outcome(self, case: Case, answer: ApiResponse | None) -> Outcome:
        """Read the result of an execution, check the invariants for its users and seat, and empty the journal."""
        lost_messages = self.real_broker.find_violations() if self.real_broker else []
        scope = invariants.Scope(seats=[case.seat], users=list(case.people.values()))
        snapshot = invariants.read(self.system.connect, scope)
        sagas = sorted(snapshot["sagas"], key=lambda saga: saga["created_at"])
        self.system.delete_sagas()
        return Outcome(
            answer=answer,
            end_state=read_state(case, snapshot),
            sagas=tuple(f"{saga['flow']} {saga['status']}" for saga in sagas),
            seen=tuple(self.plan.seen),
            unfired=tuple(fault for fault in self.plan.faults if fault not in self.plan.fired),
            violations=[*lost_messages, *invariants.check_snapshot(snapshot)],
        )


@dataclass(frozen=True)
class _PlannedRevocations:
    """No session is revoked, unless the plan revokes the session of the caller."""

    get_plan: Callable[[], FaultPlan]

    def is_revoked(self, _sid: str) -> bool:
        return self.get_plan().is_logged_out

    def age(self) -> float:
        return 0.0

    def find_role(self, _user_id: UUID, _sid: str) -> str | None:
        return "staff"  # only the role of staff is read


@contextmanager
def _new_process(orchestrator: Orchestrator) -> Iterator[None]:
    """Give an orchestrator the state of a new process, and end its lease after the block."""
    orchestrator.journal.instance_id = uuid4()
    for neighbour in orchestrator.participants.neighbours.values():
        neighbour.note_answer()  # a new process starts without neighbours that are away
    beat_as_if_running(orchestrator.db, orchestrator.journal)
    try:
        yield
    finally:
        orchestrator.journal.resign()


def _recover(rescuer: Orchestrator) -> None:
    while rescuer.recovery.tick():
        pass
    rescuer.completion.tick()


class _RetryClock:
    """The clock of `retry_until` in tests: it does not wait before a retry that cannot succeed."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises Unknown, as after the deadline, if a fault affects every retry."""
        if self._engine.plan.has_lasting_fault:
            raise Unknown("injected: the deadline has passed")
        time.sleep(seconds)


@contextmanager
def fast_retries(engine: Engine) -> Iterator[Engine]:
    """Retry after milliseconds, and do not cache the facts of Event, so that its edge appears in each execution."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "FIRST_PAUSE", RETRY_PAUSE)
        patch.setattr(retry, "LONGEST_PAUSE", RETRY_PAUSE * 4)
        patch.setattr(retry, "time", _RetryClock(engine))
        patch.setattr(participants, "EVENT_FACTS_SECONDS", 0.0)
        yield engine
