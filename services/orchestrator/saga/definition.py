"""The parts of a saga: step, pivot, compensation and notice. `flows.py` composes the sagas from them.

A *step* calls one participant. A *compensation* (undo) reverses a step when a later one fails.
The *pivot* is the step that decides: before it the saga can be undone, after it the saga only goes forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Need, Participants


class State(dict[str, Any]):
    """The data of one attempt: the request's input, the facts that it read, and the results of its steps.

    It is never stored. Another process rebuilds it by reading the facts and repeating the steps under the same keys.
    """

    def __init__(self, flow: str, subject: UUID, dispute_number: int, attempt: int, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        turn = f"{dispute_number}.{attempt}" if dispute_number else str(attempt)
        self._prefix = f"{flow}:{subject}:{turn}"

    def key(self, step: str) -> str:
        """Return the key of a step's effect: `flow:subject:attempt:step`.

        For a flow about a dispute, the attempt is `dispute_number.attempt`.
        """
        return f"{self._prefix}:{step}"


StepResult = Mapping[str, Any]  # the fields that later steps need
LoadFacts = Callable[[Participants, State], StepResult]
Check = Callable[[State], None]
Do = Callable[[Participants, State, str], StepResult | None]
Undo = Callable[[Participants, State, str], object]
Settle = Callable[[Participants, State, str], bool]


@dataclass(frozen=True)
class Step:
    """A call to one participant. `do` runs it, and `undo` reverses it under the key of the same step.

    A step with an undo makes one call. If nothing was sent, the step certainly did not happen and needs no undo.
    A step before the pivot without `undo` states in `no_undo` why a later failure need not reverse it.
    `stored_by` is the service that stores the effect under the key of the step. Other steps only read, or reverse the
    effect of an earlier saga.
    `max_tries` limits the tries of a step whose effect has no key. None: retry until the deadline.
    """

    name: str
    do: Do | None
    undo: Undo | None = None
    max_tries: int | None = None
    no_undo: str = ""
    stored_by: Need | None = None


@dataclass(frozen=True)
class Compensation(Step):
    """An undo without an action. It reverses something that existed before the saga.

    Its place in the list sets when it runs, because undos run last step first.
    """

    do: None = None


@dataclass(frozen=True)
class Pivot(Step):
    """The step that decides. If it happened, the saga completes. If not, every step is undone.

    `settle` returns whether the pivot happened. If it has not, `settle` voids its key, so that it never can.
    A pivot without `settle` is the first step, and its participant checks every precondition of the saga. Such a
    saga runs forward again instead.
    """

    settle: Settle | None = None


@dataclass(frozen=True)
class Notice:
    """A message to a user when the saga is done. `to` names the field of the state that holds the user's id."""

    message: str
    to: str


def load_nothing(_participants: Participants, _state: State) -> StepResult:
    """Return no facts, for a saga that needs none before its first step."""
    return {}


def require_nothing(_state: State) -> None:
    """Accept every state, for a saga without a precondition."""


@dataclass(frozen=True)
class Saga:
    """A flow as a list of steps.

    `needs` names the neighbours without which the flow cannot succeed. While one is away, no attempt takes a step.
    `facts` reads what the steps need, and `check` raises Refused when a precondition does not hold.
    `result_fields` are the fields of the state that the caller gets.
    `undone_code` is the caller's error code when the flow failed and was fully compensated. `undone_message` replaces
    its default message when the same request cannot succeed any more.
    `one_attempt` marks a flow that creates its own subject, so that a retry returns the first attempt's end.
    `subject_name` is the client's name for the subject's id.
    """

    flow: str
    steps: tuple[Step, ...]
    result_fields: tuple[str, ...]
    needs: tuple[Need, ...] = ()
    facts: LoadFacts = load_nothing
    check: Check = require_nothing
    notices: tuple[Notice, ...] = ()
    notice_fields: tuple[str, ...] = ()
    undone_code: ErrorCode = ErrorCode.INTERNAL_ERROR
    undone_message: str = ""
    one_attempt: bool = False
    subject_name: str = "order_id"

    @property
    def by_hand_code(self) -> ErrorCode:
        """Error code for a request whose saga an operator resolved by hand. There is no stored result to replay."""
        is_order = self.subject_name == "order_id"
        return ErrorCode.ORDER_ALREADY_CONFIRMED if is_order else ErrorCode.TRANSFER_INVALID_STATE

    @property
    def pivot(self) -> Pivot | None:
        """The deciding step, or None for a flow that is undone unless it ends."""
        return next((step for step in self.steps if isinstance(step, Pivot)), None)

    @property
    def runs_forward_again(self) -> bool:
        """True when an unfinished attempt runs forward again, because its pivot needs no settling."""
        return self.pivot is not None and self.pivot.settle is None

    def is_past_pivot(self, step: Step) -> bool:
        """Return whether the step comes after the pivot, so that it can only go forward."""
        return self.pivot is not None and self.steps.index(step) > self.steps.index(self.pivot)
