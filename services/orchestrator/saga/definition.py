"""The vocabulary of a saga: what a step is, what a pivot is, what a saga carries. `sagas.py` is written in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Participants


class State(dict[str, Any]):
    """What a saga knows: what it was given, the facts it read, and what its steps answered.

    It can be rebuilt at any time by reading and asking again under the same keys, so it is never stored.
    """

    def __init__(self, flow: str, subject: UUID, dispute_number: int, attempt: int, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        turn = f"{dispute_number}.{attempt}" if dispute_number else str(attempt)
        self._prefix = f"{flow}:{subject}:{turn}"

    def key(self, step: str) -> str:
        """The key of a step's effect: `flow:subject:attempt:step`; a dispute's number goes before the attempt."""
        return f"{self._prefix}:{step}"


Facts = Callable[[Participants, State], Mapping[str, Any]]
Check = Callable[[State], None]
Do = Callable[[Participants, State, str], Mapping[str, Any] | None]
Undo = Callable[[Participants, State, str], object]
Settle = Callable[[Participants, State, str], bool]


@dataclass(frozen=True)
class Step:
    """One call to one participant. `do` answers what later steps need; `undo` gets the key of this same step.

    A step before the pivot without `undo` states in `no_undo` why a later failure need not reverse it. `asks` is how
    often a step without a key is tried at most; 0, for all others: until the time is up.
    """

    name: str
    do: Do | None
    undo: Undo | None = None
    asks: int = 0
    no_undo: str = ""


@dataclass(frozen=True)
class Compensation(Step):
    """An undo without an action: it reverses something that existed before the saga. Its place sets when it runs."""

    do: None = None


@dataclass(frozen=True)
class Pivot(Step):
    """The step that decides. Before it everything can be undone; after it the saga only goes forward.

    `settle` asks the participant whether it happened, and if it has not, makes sure that it never will. A first
    step whose participant checks all that the saga requires needs none: the saga is simply run forward again.
    """

    settle: Settle | None = None


@dataclass(frozen=True)
class Notice:
    """A message that somebody is due when the saga is done. `to` names the state's field with the user's id."""

    message: str
    to: str


def nothing(_participants: Participants, _state: State) -> Mapping[str, Any]:
    """The facts of a saga that has to read nothing first."""
    return {}


def always(_state: State) -> None:
    """The check of a saga that has no precondition."""


@dataclass(frozen=True)
class Saga:
    """A flow as a list of steps, with what it reads first, what it requires, and what it answers.

    `undone_code` is what the caller is told when the flow failed and was fully compensated. `one_attempt` marks
    flows whose subject they create themselves: how such a subject ended is its answer for ever. `subject_name` is
    what a client knows the subject by.
    """

    flow: str
    steps: tuple[Step, ...]
    answer: tuple[str, ...]
    facts: Facts = nothing
    check: Check = always
    notices: tuple[Notice, ...] = ()
    notice_fields: tuple[str, ...] = ()
    undone_code: ErrorCode = ErrorCode.INTERNAL_ERROR
    one_attempt: bool = False
    subject_name: str = "order_id"

    @property
    def by_hand_code(self) -> ErrorCode:
        """What a request is told whose saga a person has ended: there is no answer of ours to give again."""
        is_order = self.subject_name == "order_id"
        return ErrorCode.ORDER_ALREADY_CONFIRMED if is_order else ErrorCode.TRANSFER_INVALID_STATE

    @property
    def pivot(self) -> Pivot | None:
        """The deciding step, if there is one."""
        return next((step for step in self.steps if isinstance(step, Pivot)), None)

    @property
    def runs_forward_again(self) -> bool:
        """True when an unfinished attempt is simply run again: its pivot needs no settling."""
        return self.pivot is not None and self.pivot.settle is None

    def is_past_pivot(self, step: Step) -> bool:
        """True for the steps that can only go forward."""
        return self.pivot is not None and self.steps.index(step) > self.steps.index(self.pivot)
