"""Compares the journal with the effects that the services store, and settles the differences (`admin reconcile`).

After a restore of one database to an earlier moment than the others, there are three kinds of differences:

    MISSING   The saga is DONE, and a service lacks the effect of a step.
    LEFT      The saga is UNDONE or REFUSED, and the effect of a step still exists.
    UNKNOWN   An effect exists, and the journal lacks its saga.

A difference with a safe rule is settled by calls of the services under the keys of the saga. A person must decide the
others. Every call has a key, so a repeated or concurrent run changes nothing twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from services.chassis.errors import Refused, Unknown
from services.contracts.enums import SeatStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Need, Participants
from services.orchestrator.saga.definition import Saga, State, Step
from services.orchestrator.saga.flows import (
    DISMISS,
    DISPUTE,
    INITIATE,
    PAY,
    REFUND,
    RESERVE,
    REVERSE,
    SAGAS,
    TRANSFER_CONFIRM,
)
from services.orchestrator.saga.journal import Entry, Status, make_id
from services.orchestrator.saga.journal_history import JournalHistory, SagaName, first_id
from services.orchestrator.saga.runner import OPERATOR_FIELDS, Runner, make_state

# An unfinished reserve or initiate ends by itself, because holds, orders and transfers expire.
FLOWS = tuple(saga.flow for saga in (PAY, REFUND, TRANSFER_CONFIRM, DISPUTE, REVERSE, DISMISS))
STORES = (Need.USERS, Need.ORDERS, Need.INVENTORY)
OPTIONAL = {"freeze_the_rest"}  # a dispute may have frozen the whole amount
RELEASED_LATER = {"deduct_credits", "freeze_what_is_left"}  # a refund or a dismissal voids these keys
EARLIER_SECONDS = 300  # a saga can be under way at a time, and the clocks of two hosts differ
HOLD_SECONDS = 60  # of a seat between its new hold and its sale
_KEY = re.compile(rf"({'|'.join(FLOWS)}):([0-9a-f-]{{36}}):(?:(\d+)\.)?(\d+):(\w+)")

Outcomes = Mapping[str, str]  # key of an effect → DONE, REFUSED or VOIDED


class Kind(StrEnum):
    """The kind of a difference."""

    MISSING = "MISSING"
    LEFT = "LEFT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Difference:
    """A saga whose journal and effects differ. With an `obstacle`, a person must decide."""

    kind: Kind
    entry: Entry
    steps: tuple[Step, ...]
    facts: Mapping[str, str]
    obstacle: str = ""

    def __str__(self) -> str:
        about = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        names = " and ".join(step.name for step in self.steps)
        texts = {
            Kind.MISSING: (f"{self.entry.status} in the journal, but without the effect of {names}", "repeats it"),
            Kind.LEFT: (f"{self.entry.status} in the journal, but {names} is in effect", "undoes it"),
            Kind.UNKNOWN: (f"not in the journal, but {names} is in effect", "lets recovery complete or undo it"),
        }
        what, settling = texts[self.kind]
        end = f"A person must decide: {self.obstacle}" if self.obstacle else f"Settling {settling}."
        return f"{self.entry.flow} {self.entry.subject} ({about}): {what}. {end}"


class Reconciliation:
    """One comparison of the sagas that began after `since` and ended at least `margin_seconds` ago.

    Those of the EARLIER_SECONDS before `since` are compared too.
    """

    def __init__(
        self,
        history: JournalHistory,
        participants: Participants,
        runner: Runner,
        *,
        since: datetime,
        margin_seconds: float,
    ) -> None:
        self._history = history
        self._participants = participants
        self._runner = runner
        self._since = since - timedelta(seconds=EARLIER_SECONDS)
        self._margin = margin_seconds

    def list_differences(self) -> Iterator[Difference]:
        """Compare and yield each difference, in the order of the sagas. Raises Unknown if a service does not answer.

        A caller may settle a difference before it takes the next one, which may depend on it.
        """
        yield from self._compare_ended()
        yield from self._compare_unknown()

    def settle(self, difference: Difference, operator: str) -> str:
        """Settle a difference. Returns "" or the reason why it is not settled."""
        try:
            return self._settle(difference, operator)
        except (Refused, Unknown) as failure:
            return failure.message

    # ── sagas of the journal

    def _compare_ended(self) -> Iterator[Difference]:
        after, differing = first_id(self._since), set[str]()
        while entries := self._history.list_ended(FLOWS, after, self._margin):
            after, outcomes = entries[-1].saga_id, self._read_outcomes(entries)
            for entry in entries:
                if found := self._compare(entry, outcomes):
                    kind, steps = found
                    yield self._describe(kind, entry, steps, outcomes, differing)

    def _compare(self, entry: Entry, outcomes: Outcomes) -> tuple[Kind, list[Step]] | None:
        saga, state = SAGAS[entry.flow], make_state(entry)
        by_step = {step: outcomes.get(state.key(step.name)) for step in saga.steps if step.stored_by}
        if entry.status is not Status.DONE:
            left = [step for step, outcome in by_step.items() if outcome == "DONE"]
            return (Kind.LEFT, left) if left else None
        lost = {step for step, outcome in by_step.items() if outcome in (None, "REFUSED") and step.name not in OPTIONAL}
        missing = [step for step in saga.steps if step in lost or self._is_unreleased(entry, step)]
        return (Kind.MISSING, missing) if missing else None

    def _is_unreleased(self, entry: Entry, step: Step) -> bool:
        """Return whether a step that voids the key of an earlier saga has not done so."""
        try:
            if step.name == "refund_charge":
                key = self._participants.orders.get(entry.subject)["charge_key"]
            elif step.name == "unfreeze_dispute":
                key = self._participants.orders.get_transfer(entry.subject)["freeze_key"]
                if key and not key.startswith(f"dispute:{entry.subject}:{entry.dispute_number}."):
                    return False  # of a later dispute
            else:
                return False
        except Refused:  # the order or transfer is lost, so its other effects are missing too
            return False
        return bool(key) and self._participants.list_effects(Need.USERS, keys=[key])[0].get(key) == "DONE"

    def _read_outcomes(self, entries: Iterable[Entry]) -> Outcomes:
        keys: dict[Need, list[str]] = defaultdict(list)
        for entry in entries:
            state = make_state(entry)
            for step in SAGAS[entry.flow].steps:
                if step.stored_by:
                    keys[step.stored_by].append(state.key(step.name))
        found: dict[str, str] = {}
        for need, own in keys.items():
            found |= self._participants.list_effects(need, keys=own)[0]
        return found

    # ── sagas that the journal lacks

    def _compare_unknown(self) -> Iterator[Difference]:
        lacked: dict[SagaName, set[str]] = defaultdict(set)
        for keys in (keys for need in STORES for keys in self._list_happened(need)):
            names = {key: name for key in keys if (name := _parse_key(key))}
            lacks = self._history.find_lacked(set(names.values()))
            for key, name in names.items():
                if name in lacks:
                    lacked[name].add(key)
        for name in sorted(lacked, key=lambda name: FLOWS.index(name.flow)):
            if found := self._describe_unknown(name, lacked[name]):
                yield found

    def _list_happened(self, need: Need) -> Iterator[list[str]]:
        """Yield the keys of effects that happened since `since`, page by page."""
        after, is_last = "", False
        age = (datetime.now(UTC) - self._since).total_seconds()
        ages = {"max_age": max(0.0, age), "min_age": self._margin}
        while not is_last:
            outcomes, after = self._participants.list_effects(need, after=after, **ages)
            yield [key for key, outcome in outcomes.items() if outcome == "DONE"]
            is_last = not after

    def _describe_unknown(self, name: SagaName, keys: set[str]) -> Difference | None:
        entry, obstacle = self._rebuild_entry(name)
        outcomes, state = self._read_outcomes([entry]), make_state(entry)
        if any(outcomes.get(state.key(step)) == "VOIDED" for step in RELEASED_LATER):
            return None  # a refund or a dismissal has followed, so nothing is at stake
        steps = tuple(step for step in SAGAS[name.flow].steps if state.key(step.name) in keys)
        if not steps:
            return None
        facts = self._runner.describe_for_operator(SAGAS[name.flow], entry)
        return Difference(Kind.UNKNOWN, entry, steps, facts, obstacle)

    def _rebuild_entry(self, name: SagaName) -> tuple[Entry, str]:
        """Return the entry that the journal lacks, with its input, and an obstacle if the input is lost."""
        given: dict[str, Any] = {SAGAS[name.flow].subject_name: str(name.subject)}
        caller, obstacle = None, ""
        try:
            if name.flow == PAY.flow:
                given["user_id"] = self._participants.orders.get(name.subject)["user_id"]
                caller = UUID(given["user_id"])
            elif name.flow == DISPUTE.flow:
                transfer = self._participants.orders.get_transfer(name.subject)
                given["reason"] = transfer["dispute_reason"] or "The reason is lost."
            elif name.flow == REFUND.flow:
                self._participants.orders.get(name.subject)
            else:
                self._participants.orders.get_transfer(name.subject)
        except Refused as refusal:
            obstacle = refusal.message
        started = {"status": Status.RUNNING, "result": None, "epoch": 1, "correlation_id": None, "is_overdue": False}
        return Entry(saga_id=make_id(), **vars(name), caller=caller, given=given, **started), obstacle  # type: ignore[arg-type]

    # ── description and obstacles

    def _describe(
        self, kind: Kind, entry: Entry, steps: Sequence[Step], outcomes: Outcomes, differing: set[str]
    ) -> Difference:
        """Describe a difference. The state that it will meet is not known yet if an earlier one concerns its seat."""
        state, is_lost = self._load(entry)
        concerned = {str(entry.subject), str(state.get("seat_id"))}
        obstacle = "" if concerned & differing else self._find_obstacle(kind, entry, steps, outcomes, state, is_lost)
        differing |= concerned
        facts = {name: str(state[name]) for name in OPERATOR_FIELDS if name in state}
        return Difference(kind, entry, tuple(steps), facts, obstacle)

    def _load(self, entry: Entry) -> tuple[State, bool]:
        """Return the state with the facts of the saga, and whether its order or transfer is lost."""
        state = make_state(replace(entry, reserved=None))  # the order must be read, because it may be lost
        state.update(entry.result if entry.status is Status.DONE and entry.result else {})
        try:
            state.update(SAGAS[entry.flow].facts(self._participants, state))
        except Refused as refusal:
            if refusal.code not in (ErrorCode.ORDER_NOT_FOUND, ErrorCode.TRANSFER_NOT_FOUND):
                return state, False
            created = self._load_creation(entry)
            if created is not None:
                state.update({**created, "buyer_id": created.get("user_id"), "amount": created.get("credits_amount")})
            return state, True
        return state, False

    def _load_creation(self, entry: Entry) -> State | None:
        """Return the state of the saga that created the subject of `entry`, or None if the journal lacks that saga."""
        saga = {PAY.flow: RESERVE, TRANSFER_CONFIRM.flow: INITIATE}.get(entry.flow)
        created = self._history.find_done(saga.flow, entry.subject) if saga else None
        if created is None:
            return None
        state = make_state(created)
        state.update(created.result or {}, sent=None)  # the message of the hold is not sent again
        if saga is INITIATE:
            state["order_id"] = self._participants.inventory.get_owner(state["seat_id"]).order_id
        return state

    def _find_obstacle(
        self, kind: Kind, entry: Entry, steps: Sequence[Step], outcomes: Outcomes, state: State, is_lost: bool
    ) -> str:
        """Return why settling is not safe, or "" if it is."""
        if kind is Kind.LEFT:
            final = [step.name for step in steps if step.undo is None]
            return f"{final[0]} cannot be undone." if final else ""
        if any(outcomes.get(state.key(step.name)) == "REFUSED" for step in steps):
            return "An earlier try to settle it was refused."
        if is_lost and self._load_creation(entry) is None:
            return "The order or transfer is lost, and the journal does not show how it was created."
        try:
            found = (CHECKS[step.name](self._participants, state) for step in steps if step.name in CHECKS)
            return next((obstacle for obstacle in found if obstacle), "")
        except Refused as refusal:
            return refusal.message

    # ── settling

    def _settle(self, difference: Difference, operator: str) -> str:
        entry, kind = difference.entry, difference.kind
        saga, note = SAGAS[entry.flow], f"{kind}: {', '.join(step.name for step in difference.steps)}"
        if kind is Kind.UNKNOWN:
            is_written = self._history.write(entry, operator, note)
            return "" if is_written else "Another saga of this order or transfer runs. Repeat the command later."
        outcomes = self._read_outcomes([entry])
        found = self._compare(entry, outcomes)
        if found is None:  # settled by another run
            return ""
        kind, steps = found
        state, is_lost = self._load(entry)
        if obstacle := self._find_obstacle(kind, entry, steps, outcomes, state, is_lost):
            return obstacle
        self._history.record(entry, operator, note)
        if kind is Kind.LEFT:
            self._runner.undo(saga, entry, steps)
            return ""
        if is_lost:
            self._create_again(entry)
        self._runner.repeat(saga, replace(entry, reserved=None), *self._prepare(saga, state, steps))
        return ""

    def _create_again(self, entry: Entry) -> None:
        """Create a lost order or transfer under the key of its first creation."""
        state = self._load_creation(entry)
        for step in (*RESERVE.steps, *INITIATE.steps):
            if state and step.do and step.name == ("create_order" if entry.flow == PAY.flow else "create_transfer"):
                step.do(self._participants, state, state.key(step.name))

    def _prepare(self, saga: Saga, state: State, steps: Sequence[Step]) -> tuple[list[Step], dict[str, Any]]:
        """Return the steps to repeat, and what they need besides the facts."""
        names = {step.name for step in steps}
        prepared: dict[str, Any] = {"is_repair": True}
        if "confirm_seat" in names:
            prepared["new_hold_id"] = self._hold_again(state)
        if saga is DISPUTE:
            prepared["freeze_key"] = state.key("freeze_what_is_left")
            prepared["amount"] = state["credits_frozen"]
        if "pay_buyer_back" in names:
            names.add("freeze_the_rest")  # returns whether it froze a rest
        return [step for step in saga.steps if step.name in names], prepared

    def _hold_again(self, state: State) -> str:
        """Hold the seat of a lost sale again, because the sale needs a hold. Its first hold cannot be made twice."""
        hold_id = str(uuid4())
        hold = (state["seat_id"], state["buyer_id"], hold_id, HOLD_SECONDS)
        self._participants.inventory.reserve(*hold, replaces_hold_id=state["order_id"])
        return hold_id


def _parse_key(key: str) -> SagaName | None:
    """Return the saga of an effect's key, or None for an effect that is not compared."""
    found = _KEY.fullmatch(key)
    return found and SagaName(found[1], UUID(found[2]), int(found[3] or 0), int(found[4]))


# ── checks before a step is repeated, because a refusal would be stored under its key permanently


def _check_credits(participants: Participants, user_id: str, amount: Any) -> str:
    balance = Decimal(participants.users.get(user_id)["credit_balance"])
    return "" if 0 < Decimal(amount) <= balance else f"user {user_id} has {balance} of {amount} credits."


def _check_seat_is_free(participants: Participants, state: State) -> str:
    seat = participants.inventory.get_owner(state["seat_id"])
    if seat.status == SeatStatus.AVAILABLE or (seat.status == SeatStatus.HELD and seat.hold_id == state["order_id"]):
        return ""
    return f"the seat is {seat.status} for another order."


def _check_owner(participants: Participants, state: State, owner: str) -> str:
    seat = participants.inventory.get_owner(state["seat_id"])
    if (seat.status, seat.order_id, seat.owner_user_id) == (SeatStatus.SOLD, state["order_id"], state[owner]):
        return ""
    return f"the seat is {seat.status} and belongs to {seat.owner_user_id or 'no user'}."


CHECKS: Mapping[str, Callable[[Participants, State], str]] = {
    "deduct_credits": lambda to, state: _check_credits(to, state["buyer_id"], state["price"]),
    "hold_buyers_credits": lambda to, state: _check_credits(to, state["buyer_user_id"], state["amount"]),
    "freeze_what_is_left": lambda to, state: _check_credits(to, state["seller_user_id"], state["credits_frozen"]),
    "confirm_seat": _check_seat_is_free,
    "update_owner": lambda to, state: _check_owner(to, state, "seller_user_id"),
    "restore_owner": lambda to, state: _check_owner(to, state, "buyer_user_id"),
    "cancel_sale": lambda to, state: _check_owner(to, state, "buyer_id"),
}
