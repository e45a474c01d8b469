"""Runs a saga: forward until it is done or refused. If a call gets no answer, settles or undoes it.

A step's outcome is *done*, *refused* or *unknown* (rule R1). The runner never guesses an unknown outcome. It retries
under the same key until the deadline, and then the participant of the pivot decides (R5):

    pivot happened   run every step forward again, under the same keys
    pivot voided     undo every step, last step first
    no pivot         undo every step
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

from prometheus_client import Counter

from services.chassis.errors import NotSent, Refused, Unknown
from services.chassis.neighbours import Slots
from services.contracts.errors import ERRORS, ErrorCode
from services.orchestrator.participants import Participants
from services.orchestrator.saga.definition import Saga, State, Step, Undo
from services.orchestrator.saga.journal import Entry, Journal, NoticeDue, Status
from services.orchestrator.saga.retry import retry_until

logger = logging.getLogger(__name__)
T = TypeVar("T")
Result = Mapping[str, Any]  # the journal's `result`: the fields of a saga that is done, or {code, message, details}
Outcome = tuple[Status, Result]

INSIST_SECONDS = 0.5  # in which an undo or settle is called although its neighbour is away, as it may be back soon
JOINS = 8  # requests that wait for the end of another one's attempt as long as that may take
SHORT_JOIN = 2.0  # seconds for the others, so that they do not take every thread
JOIN_PAUSE = 0.02  # seconds between two reads of an attempt that another request or process runs
# If the facts of an adopted saga are refused with one of these codes, no step ever ran. The subject does not exist, or
# it belongs to another user.
NO_STEP_RAN = (
    ErrorCode.ORDER_NOT_FOUND,
    ErrorCode.TRANSFER_NOT_FOUND,
    ErrorCode.SEAT_NOT_FOUND,
    ErrorCode.USER_NOT_FOUND,
    ErrorCode.EVENT_NOT_FOUND,
    ErrorCode.FORBIDDEN,
)
OPERATOR_FIELDS = (
    "price",
    "amount",
    "credits_amount",
    "buyer_id",
    "seller_user_id",
    "buyer_user_id",
    "seat_id",
    "order_id",
)
SAGAS = Counter("sagas_total", "Sagas ended", ["flow", "status"])
COMPENSATIONS = Counter("saga_compensations_total", "Undo steps that ran", ["flow", "step"])

Observer = Callable[[str, Saga, str], None]
"""Called with (turn, saga, step).

The turns are `begun`, `asking`, `answered`, `undoing`, `undone`, `settled`, `ending` and `ended`.
"""


def ignore_turn(_turn: str, _saga: Saga, _step: str) -> None:
    """Do nothing. This is the observer in production."""


class Runner:
    """Runs sagas for requests, and resolves sagas that recovery has adopted."""

    def __init__(
        self,
        journal: Journal,
        participants: Participants,
        *,
        forward_seconds: float,
        resolve_seconds: float,
        observer: Observer = ignore_turn,
    ) -> None:
        self._journal = journal
        self._participants = participants
        self._forward_seconds = forward_seconds
        self._resolve_seconds = resolve_seconds
        self._observer = observer
        self._joining = Slots(JOINS)

    def run(
        self,
        saga: Saga,
        subject: UUID,
        given: Mapping[str, Any],
        *,
        caller: UUID | None = None,
        dispute_number: int = 0,
    ) -> State | Result:
        """Run a saga for `subject` and return its result.

        A retry joins the attempt in progress, or returns the result of an attempt that is done.

        Raises Refused with the code of the step that was refused, or with the saga's `undone_code` when it failed and
        was compensated. Raises Refused REQUEST_IN_PROGRESS when another flow works on the subject. Raises Unknown,
        with the subject in its details, when the result is not known yet.
        """
        entry, is_own = self._journal.begin(
            saga.flow, subject, given, caller=caller, dispute_number=dispute_number, one_attempt=saga.one_attempt
        )
        if not is_own:
            return self._join_or_refuse(saga, entry, caller)
        self._observer("begun", saga, "")
        attempt = self._start_attempt(saga, entry)
        try:
            return self._finish(saga, entry, attempt, attempt.run())
        except Unknown as unknown:
            logger.warning("%s %s is left to recovery: %s", saga.flow, subject, unknown.message)
            self._journal.leave(entry.saga_id)
            raise _make_unknown(saga, entry) from unknown

    def resolve(self, saga: Saga, entry: Entry) -> bool:
        """End an adopted saga: settle or undo it first, and never resume in the middle (R6).

        Returns True when the saga has ended, and False when a participant did not answer. Then call it again later.
        """
        attempt = self._start_attempt(saga, entry)
        try:
            outcome = attempt.resolve_adopted()
        except Unknown as unknown:
            logger.warning("%s %s cannot be settled yet: %s", saga.flow, entry.subject, unknown.message)
            return False
        self._end(saga, entry, attempt, outcome)
        return True

    def repeat(self, saga: Saga, entry: Entry, steps: Sequence[Step], prepared: Mapping[str, Any]) -> None:
        """Run some steps of a saga that is DONE again, because their effects were lost. Raises Refused or Unknown.

        `prepared` replaces fields of the state.
        """
        self._start_attempt(saga, entry).repeat(steps, prepared)

    def undo(self, saga: Saga, entry: Entry, steps: Sequence[Step]) -> None:
        """Undo some steps of a saga that is UNDONE or REFUSED, because their effects are back. Raises Unknown."""
        self._start_attempt(saga, entry).undo(steps)

    def describe_for_operator(self, saga: Saga, entry: Entry) -> Mapping[str, Any]:
        """Return the users, the amount and the seat of a saga that cannot end, as far as they can be read (R7)."""
        state = make_state(entry)
        with suppress(Refused, Unknown):
            state.update(saga.facts(self._participants, state))
        return {name: str(state[name]) for name in OPERATOR_FIELDS if name in state}

    def _start_attempt(self, saga: Saga, entry: Entry) -> _Attempt:
        return _Attempt(saga, entry, self._participants, self._observer, self._forward_seconds, self._resolve_seconds)

    def _finish(self, saga: Saga, entry: Entry, attempt: _Attempt, outcome: Outcome) -> State | Result:
        status, result = outcome
        if not self._end(saga, entry, attempt, outcome):
            return self._join(saga, entry)  # another process adopted the saga meanwhile, so its end counts
        if status is not Status.DONE:
            raise _make_refusal(result)
        return attempt.state

    def _end(self, saga: Saga, entry: Entry, attempt: _Attempt, outcome: Outcome) -> bool:
        status, result = outcome
        notices = attempt.list_notices() if status is Status.DONE else []
        self._observer("ending", saga, "")
        has_ended = self._journal.end(entry, status, result, notices)
        if has_ended:
            SAGAS.labels(saga.flow, status).inc()
            logger.info("%s %s: %s", saga.flow, entry.subject, status)
            self._observer("ended", saga, "")
        return has_ended

    def _join_or_refuse(self, saga: Saga, entry: Entry, caller: UUID | None) -> Result:
        if entry.flow != saga.flow:
            message = f"Another operation ({entry.flow}) works on the same subject. Try again shortly."
            raise Refused(ErrorCode.REQUEST_IN_PROGRESS, message)
        if entry.caller != caller:
            raise Refused(ErrorCode.FORBIDDEN)
        return self._join(saga, entry)

    def _await_end(self, entry: Entry, deadline: float) -> Entry:
        while entry.status is Status.RUNNING and time.monotonic() < deadline:
            time.sleep(JOIN_PAUSE)  # read the journal again, at most until the deadline
            entry = self._journal.read(entry.saga_id)
        return entry

    def _join(self, saga: Saga, entry: Entry) -> Result:
        is_patient = self._joining.take(0.0)
        try:
            patience = self._forward_seconds + self._resolve_seconds if is_patient else SHORT_JOIN
            entry = self._await_end(entry, time.monotonic() + patience)
        finally:
            if is_patient:
                self._joining.release()
        if entry.is_live:
            raise _make_unknown(saga, entry)
        result = entry.result or {}
        if "resolved_by_hand" in result:
            message = "An operator resolved this by hand. Read the current state with a GET request."
            raise Refused(saga.by_hand_code, message)
        if entry.status is not Status.DONE:
            raise _make_refusal(result)
        return result


class _Attempt:
    """One attempt of a saga in this process: its state, its deadline, and the steps whose outcome is uncertain."""

    def __init__(
        self,
        saga: Saga,
        entry: Entry,
        participants: Participants,
        observer: Observer,
        forward_seconds: float,
        resolve_seconds: float,
    ) -> None:
        self._saga = saga
        self._entry = entry
        self._participants = participants
        self._observer = observer
        self._resolve_seconds = resolve_seconds
        self._deadline = time.monotonic() + forward_seconds
        self._uncertain: set[str] = set()  # steps with at least one lost answer, so they may have happened
        self._insist = 0.0  # seconds in which a call is repeated although its neighbour is away
        self.state = make_state(entry)

    # ── forward

    def run(self) -> Outcome:
        """Read the facts, check the preconditions and run the steps.

        Raises Unknown when the outcome is not known. Then the saga stays live, and recovery ends it.
        """
        try:
            self._participants.refuse_if_away(self._saga.needs)
            self._load_facts()
            self._saga.check(self.state)
        except Refused as refusal:
            return Status.REFUSED, _describe_refusal(refusal)
        except Unknown as unknown:  # no step ran, so there is nothing to settle or to undo
            logger.warning("%s %s has not begun: %s", self._saga.flow, self._entry.subject, unknown.message)
            return Status.UNDONE, _describe_code(ErrorCode.SERVICE_UNAVAILABLE)
        return self._run_steps()

    def _run_steps(self) -> Outcome:
        done: list[Step] = []
        try:
            for step in self._saga.steps:
                self._do(step)
                done.append(step)
        except Refused as refusal:
            return self._compensate(self._saga.steps[len(done)], done, refusal)
        except Unknown as unknown:
            logger.warning("%s %s: %s", self._saga.flow, self._entry.subject, unknown.message)
            failed = self._saga.steps[len(done)]
            if self._saga.pivot is None and failed.name not in self._uncertain:
                return self._undo_unsent(done)
            return self._resolve()
        return Status.DONE, self._collect_result()

    def _compensate(self, refused: Step, done: list[Step], refusal: Refused) -> Outcome:
        if self._saga.is_past_pivot(refused):
            raise Unknown(f"{refused.name} is refused after the pivot: {refusal.code}") from refusal
        self._extend_deadline()
        if self._is_uncertain_pivot(refused) and self._settle(refused):
            return self._run_forward_again()
        # A refusal after a lost answer may come from this step's own effect, so this step is undone too (R8).
        self._undo_steps([*done, refused] if refused.name in self._uncertain else done)
        return Status.REFUSED, _describe_refusal(refusal)

    def _undo_unsent(self, done: list[Step]) -> Outcome:
        """Undo the steps before one that was never sent. Its own undo might need a neighbour that is away."""
        self._extend_deadline()
        return self._undo_all(done)

    def _is_uncertain_pivot(self, step: Step) -> bool:
        return step is self._saga.pivot and not self._saga.runs_forward_again and step.name in self._uncertain

    # ── after the restore of a database

    def repeat(self, steps: Sequence[Step], prepared: Mapping[str, Any]) -> None:
        """Run these steps. The others gave their results to the journal. Raises Refused or Unknown."""
        self.state.update(self._entry.result or {})
        self._load_facts()
        self.state.update(prepared)
        for step in steps:
            self._do(step)

    def undo(self, steps: Sequence[Step]) -> None:
        """Undo these steps, last step first. Raises Unknown."""
        self._undo_steps(list(steps))

    # ── after a lost answer

    def resolve_adopted(self, insist: float = math.inf) -> Outcome:
        """Settle or undo a saga that another process left. Raises Unknown when a participant does not answer."""
        self._insist = insist
        try:
            self._load_facts()
        except Refused as refusal:
            if refusal.code not in NO_STEP_RAN:
                raise Unknown(f"the facts of {self._saga.flow} could not be read: {refusal.code}") from refusal
            return Status.REFUSED, _describe_refusal(refusal)
        return self._settle_or_undo()

    def _resolve(self) -> Outcome:
        self._extend_deadline()
        return self.resolve_adopted(INSIST_SECONDS)

    def _settle_or_undo(self) -> Outcome:
        pivot = self._saga.pivot
        if pivot is None:
            return self._undo_all()
        if not self._saga.runs_forward_again and not self._settle(pivot):
            return self._undo_all()
        return self._run_forward_again()

    def _settle(self, pivot: Any) -> bool:
        happened = self._retry(pivot, lambda: pivot.settle(self._participants, self.state, self.state.key(pivot.name)))
        self._observer("settled", self._saga, pivot.name)
        logger.info("%s %s: pivot %s", self._saga.flow, self._entry.subject, "DONE" if happened else "VOIDED")
        return bool(happened)

    def _run_forward_again(self) -> Outcome:
        for step in self._saga.steps:
            try:
                self._do(step)
            except Refused as refusal:
                if step is self._saga.pivot and self._saga.runs_forward_again:
                    return Status.REFUSED, _describe_refusal(refusal)
                raise Unknown(f"{step.name} is refused after the pivot: {refusal.code}") from refusal
        return Status.DONE, self._collect_result()

    def _undo_all(self, steps: list[Step] | None = None) -> Outcome:
        self._undo_steps(list(self._saga.steps) if steps is None else steps)
        return Status.UNDONE, _describe_code(self._saga.undone_code, self._saga.undone_message)

    # ── one call

    def _load_facts(self) -> None:
        facts = retry_until(
            self._deadline, lambda: self._saga.facts(self._participants, self.state), insist=self._insist
        )
        self.state.update(facts)

    def _do(self, step: Step) -> None:
        if (do := step.do) is None:  # a compensation without an action
            return
        key = self.state.key(step.name)
        self._observer("asking", self._saga, step.name)
        result = self._retry(step, lambda: do(self._participants, self.state, key), step.max_tries)
        self.state.update(result or {})
        self._observer("answered", self._saga, step.name)

    def _undo_steps(self, steps: list[Step]) -> None:
        for step in reversed(steps):
            if step.undo is not None:
                self._undo_step(step, step.undo)

    def _undo_step(self, step: Step, undo: Undo) -> None:
        self._observer("undoing", self._saga, step.name)
        logger.warning("Compensating: %s of %s %s", step.name, self._saga.flow, self._entry.subject)
        try:
            self._retry(step, lambda: undo(self._participants, self.state, self.state.key(step.name)))
        except Refused as refusal:  # a healthy participant never refuses an undo
            logger.error("Compensation %s refused: %s", step.name, refusal)
            raise Unknown(f"the undo of {step.name} was refused: {refusal.code}") from refusal
        COMPENSATIONS.labels(self._saga.flow, step.name).inc()
        self._observer("undone", self._saga, step.name)

    def _retry(self, step: Step, call: Callable[[], T], max_tries: int | None = None) -> T:
        def note(unknown: Unknown) -> None:
            if not isinstance(unknown, NotSent):
                self._uncertain.add(step.name)

        return retry_until(self._deadline, call, max_tries=max_tries, on_unknown=note, insist=self._insist)

    def _extend_deadline(self) -> None:
        """Start the time for settling and undoing. These calls must happen, so they insist.

        If their neighbour stays away, recovery makes them later, because the client waits here.
        """
        self._deadline = time.monotonic() + self._resolve_seconds
        self._insist = INSIST_SECONDS

    # ── the end

    def _collect_result(self) -> Result:
        return {name: self.state.get(name) for name in self._saga.result_fields}

    def list_notices(self) -> list[NoticeDue]:
        """Return the notices that are due when the saga is done."""
        fields = {name: self.state.get(name) for name in self._saga.notice_fields}
        return [NoticeDue(str(self.state[notice.to]), notice.message, fields) for notice in self._saga.notices]


def make_state(entry: Entry) -> State:
    """Return the state of an attempt before its facts are read."""
    known = {**entry.given, "reserved": entry.reserved}
    return State(entry.flow, entry.subject, entry.dispute_number, entry.attempt, known)


def _describe_code(code: ErrorCode, message: str = "") -> Result:
    return {"code": code, "message": message or ERRORS[code].message, "details": {}}


def _describe_refusal(refusal: Refused) -> Result:
    return {"code": refusal.code, "message": refusal.message, "details": refusal.details}


def _make_refusal(result: Result) -> Refused:
    return Refused(result["code"], result["message"], **(result.get("details") or {}))


def _make_unknown(saga: Saga, entry: Entry) -> Unknown:
    """Return a 503 error with the subject's id, so that the client can read the result later (R10)."""
    details: dict[str, Any] = {saga.subject_name: str(entry.subject)}
    return Unknown("The result is not known yet. Read it shortly with a GET request, or retry.", **details)
