"""Every crash point of every saga, discovered from the sagas, and the end that recovery must reach.

A forward crash point lies between the begin and the end of a saga. At a compensating crash point a participant has
refused, and the process dies while it undoes a step. The pivot decides whether recovery ends the saga done or undone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.orchestrator.saga.definition import Saga, Step
from services.orchestrator.saga.flows import SAGAS
from services.orchestrator.saga.journal import Status
from tests.saga.crash.actors import SystemState
from tests.saga.crash.crash_scenarios import CRASH_SCENARIOS, CrashScenario, Response


@dataclass(frozen=True)
class CrashPoint:
    """The process dies at this turn of a flow, as the observer of the runner names it."""

    flow: str
    turn: str
    step: str = ""
    is_compensating: bool = False

    def __str__(self) -> str:
        direction = "compensating" if self.is_compensating else "forward"
        return "-".join(filter(None, (self.flow, direction, self.turn, self.step)))

    @property
    def kill_at(self) -> str:
        """The value of KILL_AT for the orchestrator process."""
        return f"{self.flow}:{self.turn}:{self.step}"

    @property
    def saga(self) -> Saga:
        """The definition of the saga."""
        return SAGAS[self.flow]

    @property
    def scenario(self) -> CrashScenario:
        """The scenario of the flow."""
        return CRASH_SCENARIOS[self.flow]

    @property
    def is_adopted(self) -> bool:
        """Whether another process must end the saga. After the end write nothing is left to do."""
        return self.turn != "ended"

    @property
    def expected_status(self) -> Status:
        """The status that the saga must reach: DONE after the pivot, UNDONE before it."""
        is_decided = not self.is_adopted or self.saga.runs_forward_again or self._is_at("answered", self.saga.pivot)
        return Status.DONE if is_decided and not self.is_compensating else Status.UNDONE

    @property
    def allowed_states(self) -> list[SystemState]:
        """The states that the databases may have after recovery."""
        scenario = self.scenario
        if self.expected_status is Status.DONE:
            return [scenario.done]
        assert scenario.undone, f"{self.flow} cannot be undone"
        undone = scenario.undone
        is_created = self.is_compensating or self._is_at("answered", self._step(scenario.created_by))
        if scenario.created_by and not is_created:
            undone = replace(undone, order=None) if undone.order == "FAILED" else replace(undone, transfer=None)
        if self.is_compensating and scenario.seat_after_refusal:
            return [replace(undone, seat=status) for status in scenario.seat_after_refusal]
        return [undone]

    @property
    def retry_response(self) -> Response:
        """The response to a retry by the client after recovery."""
        if self.expected_status is Status.DONE:
            return self.scenario.retry_done, None
        return (self.scenario.retry_refused if self.is_compensating else None) or self.scenario.retry_undone

    def _step(self, name: str | None) -> Step | None:
        return next((step for step in self.saga.steps if step.name == name), None)

    def _is_at(self, turn: str, step: Step | None) -> bool:
        """Whether this forward crash point is at `turn` of `step`, or after it."""
        if step is None or self.turn == "begun":
            return False
        if self.turn in ("ending", "ended"):
            return True
        names = [known.name for known in self.saga.steps]
        return (names.index(self.step), self.turn == "answered") >= (names.index(step.name), turn == "answered")


def list_crash_points(saga: Saga) -> Iterator[CrashPoint]:
    """Every crash point of a saga: before and after each write, each action and each undo."""
    yield CrashPoint(saga.flow, "begun")
    for step in saga.steps:
        if step.do is not None:
            yield CrashPoint(saga.flow, "asking", step.name)
            yield CrashPoint(saga.flow, "answered", step.name)
    yield CrashPoint(saga.flow, "ending")
    yield CrashPoint(saga.flow, "ended")
    for step in reversed(saga.steps):
        if step.undo is not None:
            yield CrashPoint(saga.flow, "undoing", step.name, is_compensating=True)
            yield CrashPoint(saga.flow, "undone", step.name, is_compensating=True)


CRASH_POINTS = [crash_point for saga in SAGAS.values() for crash_point in list_crash_points(saga)]
