"""Runs a saga: forward until it is done or refused, and when an answer stays out, settles or undoes.

What a step answers is *done*, *refused* or *unknown* (rule R1). Unknown is never guessed: the same key is asked
again until the deadline, and then the pivot's participant decides (R5):

    pivot DONE     every step again, forward, under its key
    pivot VOIDED   every undo, last step first
    no pivot       every undo
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from uuid import UUID

from prometheus_client import Counter

from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ERRORS, ErrorCode
from services.orchestrator.participants import Participants
from services.orchestrator.saga.definition import Saga, State, Step
from services.orchestrator.saga.journal import Entry, Journal, NoticeDue, Status
from services.orchestrator.saga.retry import ask

logger = logging.getLogger(__name__)
T = TypeVar("T")

JOIN_PAUSE = 0.02  # seconds between two looks at an attempt that somebody else has in hand
# Facts that are refused with one of these: there is no such thing, or it is not the caller's. No step was ever taken.
NOTHING_TO_WORK_ON = (
    ErrorCode.ORDER_NOT_FOUND,
    ErrorCode.TRANSFER_NOT_FOUND,
    ErrorCode.SEAT_NOT_FOUND,
    ErrorCode.USER_NOT_FOUND,
    ErrorCode.EVENT_NOT_FOUND,
    ErrorCode.FORBIDDEN,
)
AT_STAKE = ("price", "amount", "credits_amount", "buyer_id", "seller_user_id", "buyer_user_id", "seat_id", "order_id")
SAGAS = Counter("sagas_total", "Sagas ended", ["flow", "status"])
COMPENSATIONS = Counter("saga_compensations_total", "Undo steps that ran", ["flow", "step"])

Observer = Callable[[str, Saga, str], None]
"""Told of each turn as (turn, saga, step): begun, asking, answered, undoing, undone, settled, ending, ended."""


def silent(_turn: str, _saga: Saga, _step: str) -> None:
    """The observer of a process that nobody watches."""


class Runner:
    """Starts sagas for requests, and resolves those that recovery has adopted."""

    def __init__(
        self,
        journal: Journal,
        participants: Participants,
        *,
        forward_seconds: float,
        resolve_seconds: float,
        observer: Observer = silent,
    ) -> None:
        self._journal = journal
        self._participants = participants
        self._forward_seconds = forward_seconds
        self._resolve_seconds = resolve_seconds
        self._observer = observer

    def run(
        self,
        saga: Saga,
        subject: UUID,
        given: Mapping[str, Any],
        *,
        caller: UUID | None = None,
        dispute_number: int = 0,
    ) -> State | Mapping[str, Any]:
        """Run a saga for `subject` and return its answer.

        Asked again: joins the attempt under way, or repeats the answer of one that ended done. Raises Refused with
        the step's own code; with the saga's `undone_code` when it failed and was compensated; REQUEST_IN_PROGRESS
        when another flow has the subject; Unknown with the subject in its details when the result is not known yet.
        """
        entry, mine = self._journal.begin(
            saga.flow, subject, given, caller=caller, dispute_number=dispute_number, one_attempt=saga.one_attempt
        )
        if not mine:
            return self._from_another(saga, entry, caller)
        self._observer("begun", saga, "")
        execution = self._execution(saga, entry)
        try:
            return self._answered(saga, entry, execution, execution.run())
        except Unknown as unknown:
            logger.warning("%s %s is left to recovery: %s", saga.flow, subject, unknown.message)
            raise not_known_yet(saga, entry) from unknown

    def resolve(self, saga: Saga, entry: Entry) -> bool:
        """Bring an adopted saga to its end: settle or undo first, never resume in the middle (R6).

        True when it has ended. False when a participant did not answer: ask again later.
        """
        execution = self._execution(saga, entry)
        try:
            status, result = execution.resolve_adopted()
        except Unknown as unknown:
            logger.warning("%s %s cannot be settled yet: %s", saga.flow, entry.subject, unknown.message)
            return False
        self._end(saga, entry, execution, status, result)
        return True

    def at_stake(self, saga: Saga, entry: Entry) -> Mapping[str, Any]:
        """What a person needs to know of a saga that cannot be ended: whose money, how much, which seat (R7)."""
        state = State(entry.flow, entry.subject, entry.dispute_number, entry.attempt, entry.given)
        with suppress(Refused, Unknown):
            state.update(saga.facts(self._participants, state))
        return {name: str(state[name]) for name in AT_STAKE if name in state}

    def _execution(self, saga: Saga, entry: Entry) -> _Execution:
        return _Execution(saga, entry, self._participants, self._observer, self._forward_seconds, self._resolve_seconds)

    def _answered(
        self, saga: Saga, entry: Entry, execution: _Execution, outcome: tuple[Status, Mapping[str, Any]]
    ) -> State | Mapping[str, Any]:
        status, result = outcome
        if not self._end(saga, entry, execution, status, result):
            return self._join(saga, entry)  # somebody adopted it meanwhile: their end is the answer
        if status is not Status.DONE:
            raise refusal_in(result)
        return execution.state

    def _end(self, saga: Saga, entry: Entry, execution: _Execution, status: Status, result: Mapping[str, Any]) -> bool:
        notices = execution.notices() if status is Status.DONE else []
        self._observer("ending", saga, "")
        ended = self._journal.end(entry, status, result, notices)
        if ended:
            SAGAS.labels(saga.flow, status).inc()
            logger.info("%s %s: %s", saga.flow, entry.subject, status)
            self._observer("ended", saga, "")
        return ended

    def _from_another(self, saga: Saga, entry: Entry, caller: UUID | None) -> Mapping[str, Any]:
        if entry.flow != saga.flow:
            raise Refused(ErrorCode.REQUEST_IN_PROGRESS, f"A {entry.flow} of it is under way; ask again shortly.")
        if entry.caller != caller:
            raise Refused(ErrorCode.FORBIDDEN)
        return self._join(saga, entry)

    def _join(self, saga: Saga, entry: Entry) -> Mapping[str, Any]:
        deadline = time.monotonic() + self._forward_seconds + self._resolve_seconds
        while entry.status is Status.RUNNING and time.monotonic() < deadline:
            time.sleep(JOIN_PAUSE)  # between two looks at the journal; bounded by the deadline
            entry = self._journal.read(entry.saga_id)
        if entry.is_live:
            raise not_known_yet(saga, entry)
        result = entry.result or {}
        if "resolved_by_hand" in result:
            raise Refused(saga.by_hand_code, "This was put right by hand; look at it by GET.")
        if entry.status is not Status.DONE:
            raise refusal_in(result)
        return result


class _Execution:
    """One attempt in hand: its state, what is done, how long is left."""

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
        self._doubtful: set[str] = set()
        self.state = State(entry.flow, entry.subject, entry.dispute_number, entry.attempt, entry.given)

    # ── from the beginning

    def run(self) -> tuple[Status, Mapping[str, Any]]:
        """Read, check, step by step; how it ended. Raises Unknown when that is not known: the saga stays live."""
        try:
            self._read_facts()
            self._saga.check(self.state)
        except Refused as refusal:
            return Status.REFUSED, _as_result(refusal)
        except Unknown as unknown:  # no step was asked for: there is nothing to settle, and nothing to undo
            logger.warning("%s %s has not begun: %s", self._saga.flow, self._entry.subject, unknown.message)
            return Status.UNDONE, _undone_result(ErrorCode.SERVICE_UNAVAILABLE)
        return self._forward_or_back()

    def _forward_or_back(self) -> tuple[Status, Mapping[str, Any]]:
        done: list[Step] = []
        try:
            for step in self._saga.steps:
                self._take(step)
                done.append(step)
        except Refused as refusal:
            return self._back_out(self._saga.steps[len(done)], done, refusal)
        except Unknown as unknown:
            logger.warning("%s %s: %s", self._saga.flow, self._entry.subject, unknown.message)
            return self._resolved()
        return Status.DONE, self._result()

    def _back_out(self, refused: Step, done: list[Step], refusal: Refused) -> tuple[Status, Mapping[str, Any]]:
        if self._saga.is_past_pivot(refused):
            raise Unknown(f"{refused.name} is refused after the pivot: {refusal.code}") from refusal
        self._grant_time()
        if self._is_doubtful_pivot(refused) and self._ask_settle(refused):
            return self._again_forward()
        # A refusal after a lost answer may hide an effect of our own: that step is undone too (R8).
        self._undo([*done, refused] if refused.name in self._doubtful else done)
        return Status.REFUSED, _as_result(refusal)

    def _is_doubtful_pivot(self, step: Step) -> bool:
        return step is self._saga.pivot and not self._saga.runs_forward_again and step.name in self._doubtful

    # ── when an answer stays out

    def resolve_adopted(self) -> tuple[Status, Mapping[str, Any]]:
        """Settle or undo a saga that somebody else left. Raises Unknown."""
        try:
            self._read_facts()
        except Refused as refusal:
            if refusal.code not in NOTHING_TO_WORK_ON:
                raise Unknown(f"the facts of {self._saga.flow} are refused: {refusal.code}") from refusal
            return Status.REFUSED, _as_result(refusal)
        return self._settled()

    def _resolved(self) -> tuple[Status, Mapping[str, Any]]:
        self._grant_time()
        return self.resolve_adopted()

    def _settled(self) -> tuple[Status, Mapping[str, Any]]:
        pivot = self._saga.pivot
        if pivot is None:
            return self._undone()
        if not self._saga.runs_forward_again and not self._ask_settle(pivot):
            return self._undone()
        return self._again_forward()

    def _ask_settle(self, pivot: Any) -> bool:
        settled = self._ask(pivot, lambda: pivot.settle(self._participants, self.state, self.state.key(pivot.name)))
        self._observer("settled", self._saga, pivot.name)
        logger.info("%s %s: pivot %s", self._saga.flow, self._entry.subject, "DONE" if settled else "VOIDED")
        return bool(settled)

    def _again_forward(self) -> tuple[Status, Mapping[str, Any]]:
        for step in self._saga.steps:
            try:
                self._take(step)
            except Refused as refusal:
                if step is self._saga.pivot and self._saga.runs_forward_again:
                    return Status.REFUSED, _as_result(refusal)
                raise Unknown(f"{step.name} is refused after the pivot: {refusal.code}") from refusal
        return Status.DONE, self._result()

    def _undone(self) -> tuple[Status, Mapping[str, Any]]:
        self._undo(list(self._saga.steps))
        return Status.UNDONE, _undone_result(self._saga.undone_code)

    # ── one step, one undo, one question

    def _read_facts(self) -> None:
        facts = ask(lambda: self._saga.facts(self._participants, self.state), self._deadline)
        self.state.update(facts)

    def _take(self, step: Step) -> None:
        if (do := step.do) is None:  # a compensation
            return
        self._observer("asking", self._saga, step.name)
        answer = self._ask(step, lambda: do(self._participants, self.state, self.state.key(step.name)), step.asks)
        self.state.update(answer or {})
        self._observer("answered", self._saga, step.name)

    def _undo(self, steps: list[Step]) -> None:
        for step in reversed(steps):
            if step.undo is not None:
                self._undo_one(step, step.undo)

    def _undo_one(self, step: Step, undo: Callable[[Participants, State, str], object]) -> None:
        self._observer("undoing", self._saga, step.name)
        logger.warning("Compensating: %s of %s %s", step.name, self._saga.flow, self._entry.subject)
        try:
            self._ask(step, lambda: undo(self._participants, self.state, self.state.key(step.name)))
        except Refused as refusal:  # an undo is never refused by a healthy participant
            logger.error("Compensation %s refused: %s", step.name, refusal)
            raise Unknown(f"the undo of {step.name} was refused: {refusal.code}") from refusal
        COMPENSATIONS.labels(self._saga.flow, step.name).inc()
        self._observer("undone", self._saga, step.name)

    def _ask(self, step: Step, call: Callable[[], T], asks: int = 0) -> T:
        return ask(call, self._deadline, lambda: self._doubtful.add(step.name), asks)

    def _grant_time(self) -> None:
        self._deadline = time.monotonic() + self._resolve_seconds

    # ── the end

    def _result(self) -> Mapping[str, Any]:
        return {name: self.state.get(name) for name in self._saga.answer}

    def notices(self) -> list[NoticeDue]:
        """Who is to be told what, now that it is done."""
        fields = {name: self.state.get(name) for name in self._saga.notice_fields}
        return [NoticeDue(str(self.state[notice.to]), notice.message, fields) for notice in self._saga.notices]


def _undone_result(code: ErrorCode) -> Mapping[str, Any]:
    return {"code": code, "message": ERRORS[code].message, "details": {}}


def _as_result(refusal: Refused) -> Mapping[str, Any]:
    return {"code": refusal.code, "message": refusal.message, "details": refusal.details}


def refusal_in(result: Mapping[str, Any]) -> Refused:
    """The refusal that a saga ended with, as its journal result has it."""
    return Refused(result["code"], result["message"], **(result.get("details") or {}))


def not_known_yet(saga: Saga, entry: Entry) -> Unknown:
    """503 with the subject, so that the client finds the result later by GET (R10)."""
    details: dict[str, Any] = {saga.subject_name: str(entry.subject)}
    return Unknown("The result is not known yet; look for it shortly.", **details)
