"""Every turn at which an orchestrator can die, discovered from the sagas themselves, and how the saga must end then.

Forward: the saga would have been done. Back: a participant refuses, and the process dies while it undoes. Two ends are
honest, done and undone; which of them it is, the pivot decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.orchestrator.saga.definition import Saga, Step
from services.orchestrator.saga.flows import SAGAS
from services.orchestrator.saga.journal import Status
from tests.saga.crash.actors import SystemState
from tests.saga.crash.crash_scenarios import CRASH_SCENARIOS, CrashScenario


@dataclass(frozen=True)
class CrashPoint:
    """The process dies at this turn of this flow."""

    flow: str
    turn: str
    step: str = ""
    back: bool = False

    def __str__(self) -> str:
        way = "back" if self.back else "forward"
        return "-".join(filter(None, (self.flow, way, self.turn, self.step)))

    @property
    def kill_at(self) -> str:
        """As the orchestrator's environment has it."""
        return f"{self.flow}:{self.turn}:{self.step}"

    @property
    def saga(self) -> Saga:
        """The saga that dies."""
        return SAGAS[self.flow]

    @property
    def plot(self) -> CrashScenario:
        """How the flow is played."""
        return CRASH_SCENARIOS[self.flow]

    @property
    def is_adopted(self) -> bool:
        """False when the process died after the end write: then nothing is left to be done."""
        return self.turn != "ended"

    @property
    def outcome(self) -> Status:
        """How the saga must end: a pivot that has been passed is never taken back, one that has not never comes."""
        decided = not self.is_adopted or self.saga.runs_forward_again or self._has("answered", self.saga.pivot)
        return Status.DONE if decided and not self.back else Status.UNDONE

    @property
    def standings(self) -> list[SystemState]:
        """How things may stand afterwards."""
        if self.outcome is Status.DONE:
            return [self.plot.done]
        assert self.plot.undone, f"{self.flow} cannot be undone"
        undone = self.plot.undone
        if self.plot.made_by and not self.back and not self._has("answered", self._step(self.plot.made_by)):
            undone = replace(undone, order=None) if undone.order == "FAILED" else replace(undone, transfer=None)
        if self.back and self.plot.troubled_seat:
            return [replace(undone, seat=status) for status in self.plot.troubled_seat]
        return [undone]

    @property
    def again(self) -> tuple[int, str | None]:
        """What the client is told that asks again."""
        if self.outcome is Status.DONE:
            return self.plot.again_done, None
        return (self.plot.again_troubled if self.back else None) or self.plot.again_undone

    def _step(self, name: str) -> Step:
        return next(step for step in self.saga.steps if step.name == name)

    def _has(self, turn: str, step: Step | None) -> bool:
        """Whether this crash_point, forward, comes at or after `turn` of `step`."""
        if step is None or self.turn == "begun":
            return False
        if self.turn in ("ending", "ended"):
            return True
        here, there = self.saga.steps.index(self._step(self.step)), self.saga.steps.index(step)
        return (here, self.turn == "answered") >= (there, turn == "answered")


def of(saga: Saga) -> Iterator[CrashPoint]:
    """Each turn of a saga: around every write, every step and every undo."""
    yield CrashPoint(saga.flow, "begun")
    for step in saga.steps:
        if step.do is not None:
            yield CrashPoint(saga.flow, "asking", step.name)
            yield CrashPoint(saga.flow, "answered", step.name)
    yield CrashPoint(saga.flow, "ending")
    yield CrashPoint(saga.flow, "ended")
    for step in reversed(saga.steps):
        if step.undo is not None:
            yield CrashPoint(saga.flow, "undoing", step.name, back=True)
            yield CrashPoint(saga.flow, "undone", step.name, back=True)


CRASH_POINTS = [crash_point for saga in SAGAS.values() for crash_point in of(saga)]
