"""The whole system against a small pure model: random verbs, deaths and lost answers, time moved, payments replayed.

After every step the databases have to look as the model does; a verb struck by a fault may have ended done, or
compensated, or not begun, and nothing else. Invariants at the end of every example. `test_machine.py` runs it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

from flask import Flask
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness import invariants
from harness.api_client import ApiResponse
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.in_process_system import Caller
from tests.saga.in_process.scenarios import HALL, Case, Flow
from tests.saga.matrix.expected_outcomes import TABLE
from tests.saga.properties.model import Model, Seat, User

USERS, SEATS = ("ann", "ben", "cho", "dan"), ("s1", "s2", "s3")
FLAGGED = "dan"
STRIKES = (Kind.DIES_BEFORE, Kind.DIES_AFTER, Kind.LOST_GIVES_UP, Kind.LATE_GIVES_UP, Kind.TWICE)
EDGES = {flow: [line.split("  ")[0].strip() for line in block.strip().splitlines()] for flow, block in TABLE.items()}
WEBHOOK_SECRET = b"whsec_x"

users, seats = st.sampled_from(USERS), st.sampled_from(SEATS)
amounts = st.sampled_from([50, 200, 700])
strikes = st.one_of(st.none(), st.none(), st.tuples(st.sampled_from(STRIKES), st.integers(0, 15)))
NOTHING = "nothing"  # the id of what a struck verb would have made, and did not


@dataclass(frozen=True)
class SystemState:
    """How seats, people and sales stand in the databases, by their ids."""

    seats: Mapping[str, tuple[str, str | None]]
    balances: Mapping[str, tuple[Decimal, Decimal]]
    statuses: Mapping[str, str]


class SagaStateMachine(RuleBasedStateMachine):
    """Verbs of the public API, and what the system does to it."""

    engine: Engine
    steps_taken: ClassVar[list[int]] = []

    @initialize()
    def open(self) -> None:
        system = self.engine.system
        self.ids = {name: system.new_user(flagged=name == FLAGGED) for name in USERS}
        self.seat_ids = {name: system.new_seat() for name in SEATS}
        self.staff = system.new_user("0.00", role="staff")
        self.model = Model({u: User(1000, is_flagged=u == FLAGGED) for u in USERS}, {s: Seat() for s in SEATS})
        self.events: list[tuple[str, int, bytes]] = []
        self.steps = 0

    @invariant()
    def count(self) -> None:
        self.steps += 1

    # ── scenario 1

    @rule(user=users, seat=seats, strike=strikes)
    def reserve(self, user: str, seat: str, strike: Any) -> None:
        def act(app: Flask) -> ApiResponse:
            return self._as(user, app).post("/api/reserve", {"seat_id": self.seat_ids[seat]})

        def done(model: Model) -> str:
            held = self.engine.system.seat(self.seat_ids[seat])["hold_id"]
            return model.reserve(user, seat, str(held or NOTHING))

        self._verb("reserve", act, done, None, strike)

    @precondition(lambda self: self.model.orders)
    @rule(user=users, data=st.data(), strike=strikes)
    def pay(self, user: str, data: Any, strike: Any) -> None:
        order = data.draw(st.sampled_from(list(self.model.orders)))
        payer = data.draw(st.sampled_from([user, self.model.orders[order].user, self.model.orders[order].user]))
        self._verb(
            "pay",
            lambda app: self._as(payer, app).post("/api/pay", {"order_id": order}),
            lambda model: model.pay(payer, order),
            lambda model: model.undo_pay(payer, order),
            strike,
        )

    @rule(seat=seats)
    def hold_expires(self, seat: str) -> None:
        if self.model.seats[seat].status == "HELD":
            self.engine.system.expire_hold(self.seat_ids[seat])
            self.engine.system.sweep()
        self.model.expire(seat)
        self._compare()

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), right=st.booleans())
    def verify(self, data: Any, right: bool) -> None:
        order = data.draw(st.sampled_from(list(self.model.orders)))
        body = {"order_id": order, "otp_code": self._order_code(order, right=right)}
        act = lambda app: self._as(self.model.orders[order].user, app).post("/api/verify-otp", body)  # noqa: E731
        self._verb("verify-otp", act, lambda model: model.verify(order, right=right), None, None)

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), strike=strikes)
    def refund(self, data: Any, strike: Any) -> None:
        order = data.draw(st.sampled_from(list(self.model.orders)))
        act = lambda app: self._staff(app).post(f"/api/orders/{order}/refund", {})  # noqa: E731
        self._verb("refund", act, lambda model: model.refund(order), None, strike)

    @rule(user=users, amount=amounts, data=st.data())
    def top_up(self, user: str, amount: int, data: Any) -> None:
        """A signed webhook; now and then one that came before."""
        again = bool(self.events) and data.draw(st.booleans())
        if again:
            user, amount, payload = data.draw(st.sampled_from(self.events))
        else:
            payload = _event(self.ids[user], amount)
            self.events.append((user, amount, payload))
        self._webhook(payload)
        self.model.top_up(user, amount, again=again)
        self._compare()

    # ── scenario 2

    @rule(seat=seats, seller=users, buyer=users, amount=amounts, strike=strikes)
    def initiate(self, seat: str, seller: str, buyer: str, amount: int, strike: Any) -> None:
        owner = self.model.seats[seat].owner or seller
        body = {"seat_id": self.seat_ids[seat], "seller_user_id": self.ids[owner], "buyer_user_id": self.ids[buyer]}

        def done(model: Model) -> str:
            newest = self.engine.system.transfer_of(self.seat_ids[seat])
            known = newest is None or str(newest["transfer_id"]) in model.transfers
            return model.initiate(
                seat, owner, buyer, amount, NOTHING if known or newest is None else str(newest["transfer_id"])
            )

        act = lambda app: self._as(owner, app).post("/api/transfer/initiate", {**body, "credits_amount": amount})  # noqa: E731
        self._verb("initiate", act, done, None, strike)

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data(), strike=strikes)
    def confirm(self, data: Any, strike: Any) -> None:
        transfer_id = data.draw(st.sampled_from(list(self.model.transfers)))
        transfer = self.model.transfers[transfer_id]
        codes = self._codes(transfer_id)
        body = {"transfer_id": transfer_id, **codes}
        self._verb(
            "confirm",
            lambda app: self._as(transfer.seller, app).post("/api/transfer/confirm", body),
            lambda model: model.confirm(transfer_id),
            lambda model: model.undo_confirm(transfer_id),
            strike,
        )

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        transfer_id = data.draw(st.sampled_from(list(self.model.transfers)))
        act = lambda app: self._party(transfer_id, app).post("/api/transfer/cancel", {"transfer_id": transfer_id})  # noqa: E731
        self._verb("cancel", act, lambda model: model.cancel(transfer_id), None, None)

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data(), strike=strikes)
    def dispute(self, data: Any, strike: Any) -> None:
        transfer_id = data.draw(st.sampled_from(list(self.model.transfers)))
        body = {"transfer_id": transfer_id, "reason": "as the machine has it"}
        act = lambda app: self._party(transfer_id, app).post("/api/transfer/dispute", body)  # noqa: E731
        self._verb("dispute", act, lambda model: model.dispute(transfer_id), None, strike)

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data(), verb=st.sampled_from(["reverse", "dismiss"]), strike=strikes)
    def decide(self, data: Any, verb: str, strike: Any) -> None:
        transfer_id = data.draw(st.sampled_from(list(self.model.transfers)))
        act = lambda app: self._staff(app).post(f"/api/transfer/{verb}", {"transfer_id": transfer_id})  # noqa: E731
        self._verb(verb, act, lambda model: getattr(model, verb)(transfer_id), None, strike)

    # ── scenario 3

    @rule(seat=seats, user=users)
    def scan(self, seat: str, user: str) -> None:
        sealed = self.engine.system.rescuer.participants.seal.seal(self.seat_ids[seat], self.ids[user], HALL)
        body = {"qr_payload": sealed.payload, "hall_id": HALL}
        answer = self._staff(self.engine.preparer_app).post("/api/verify", body).must(200)
        assert answer["result"] == self.model.scan(seat, user)
        self._compare()

    # ── how a verb is checked

    def _verb(
        self,
        flow: str,
        act: Callable[[Flask], ApiResponse],
        done: Callable[[Model], str],
        undone: Callable[[Model], None] | None,
        strike: tuple[Kind, int] | None,
    ) -> None:
        self.engine.system.forget_otp_sends()
        case = Case(self.engine.system, self.engine.preparer_app, self.engine.inbox, next(iter(self.seat_ids.values())))
        answer = self.engine.act(Flow(flow, lambda _: None, lambda _, app: act(app)), case, *_faults(flow, strike))
        self.engine.settle()
        self._adopt(answer, done, undone, struck=strike is not None)

    def _adopt(
        self,
        answer: ApiResponse | None,
        done: Callable[[Model], str],
        undone: Callable[[Model], None] | None,
        *,
        struck: bool,
    ) -> None:
        after = deepcopy(self.model)
        told = done(after)
        if not struck or (answer is not None and answer.status < 300):
            assert answer is not None
            assert (answer.error_code or "ok") == told, answer
            self.model = after
            self._compare()
            return
        candidates = [after, self.model]
        if undone is not None:  # also one that would have been refused: it died before it had read anything
            compensated = deepcopy(self.model)
            undone(compensated)
            candidates.append(compensated)
        stands = self._look(after)
        fitting = [model for model in candidates if not self._differences(model, stands)]
        assert fitting, [self._differences(model, stands) for model in candidates]
        self.model = fitting[0]

    def _compare(self) -> None:
        assert not self._differences(self.model, self._look(self.model))

    def _look(self, model: Model) -> SystemState:
        """How everything stands that the model knows of."""
        system, ids = self.engine.system, [known for known in model.orders if known != NOTHING]
        transfers = [known for known in model.transfers if known != NOTHING]
        return SystemState(
            system.owners(self.seat_ids.values()), system.balances(self.ids.values()), system.statuses(ids, transfers)
        )

    def _differences(self, model: Model, stands: SystemState) -> list[str]:
        if NOTHING in model.orders or NOTHING in model.transfers:
            return ["what the model has done never came to be"]
        due: dict[str, Any] = {id_: order.status for id_, order in model.orders.items()}
        due |= {id_: transfer.status for id_, transfer in model.transfers.items()}
        for name, seat in model.seats.items():
            due[str(self.seat_ids[name])] = (seat.status, str(self.ids[seat.owner]) if seat.owner else None)
        for name, user in model.users.items():
            due[str(self.ids[name])] = (user.balance, user.frozen)
        found = {**stands.statuses, **stands.seats, **stands.balances}
        named = {str(id_): name for name, id_ in (*self.seat_ids.items(), *self.ids.items())}
        return [
            f"{named.get(id_, id_)}: {found.get(id_)}, model {expected}"
            for id_, expected in due.items()
            if found.get(id_) != expected
        ]

    def _order_code(self, order_id: str, *, right: bool) -> str:
        """A fresh code for an order that waits for one, or a wrong one; any code where none is waited for."""
        order = self.model.orders[order_id]
        if order.status != "PENDING" or not order.needs_code:
            return "000000"
        code = self._fresh_code(order.user, {"order_id": order_id})
        return code if right else f"{(int(code) + 1) % 10**6:06d}"

    def _fresh_code(self, name: str, body: dict[str, str]) -> str:
        self.engine.system.forget_otp_sends()
        self._as(name, self.engine.preparer_app).post("/api/otp/resend", body).must(200)
        return self.engine.inbox.newest_code(self.engine.system.phone(self.ids[name]))

    def _codes(self, transfer_id: str) -> dict[str, str]:
        """A fresh code for each party that has still to verify; any code where the transfer is over."""
        transfer = self.model.transfers[transfer_id]
        stands = self.engine.system.transfer(transfer_id)
        codes = {}
        for party, name in (("seller", transfer.seller), ("buyer", transfer.buyer)):
            if transfer.status == "PENDING_OTP" and not stands[f"{party}_otp_verified"]:
                codes[f"{party}_otp"] = self._fresh_code(name, {"transfer_id": transfer_id})
        return codes or {"seller_otp": "000000"}

    def _as(self, name: str, app: Flask) -> Caller:
        return Caller(app, self.engine.system.token(self.ids[name]))

    def _staff(self, app: Flask) -> Caller:
        return Caller(app, self.engine.system.token(self.staff, "staff"))

    def _party(self, transfer_id: str, app: Flask) -> Caller:
        return self._as(self.model.transfers[transfer_id].buyer, app)

    def _webhook(self, payload: bytes) -> None:
        moment = str(int(time.time()))
        signature = hmac.new(WEBHOOK_SECRET, f"{moment}.".encode() + payload, hashlib.sha256).hexdigest()
        headers = {"Stripe-Signature": f"t={moment},v1={signature}", "Content-Type": "application/json"}
        self.engine.system.post_webhook(payload, headers)

    def teardown(self) -> None:
        if not hasattr(self, "ids"):
            return
        self.steps_taken.append(self.steps)
        people = [*self.ids.values(), self.staff]
        scope = invariants.Scope(seats=list(self.seat_ids.values()), users=people)
        found = invariants.find_violations(self.engine.system.connect, scope=scope)
        self.engine.system.forget_sagas()
        assert not found, found


def _faults(flow: str, strike: tuple[Kind, int] | None) -> list[Fault]:
    if strike is None or flow not in EDGES:
        return []
    kind, place = strike
    return [Fault(EDGES[flow][place % len(EDGES[flow])], kind)]


def _event(user_id: UUID, amount: int) -> bytes:
    metadata = {"user_id": str(user_id)}
    intent = {"id": f"pi_{uuid4().hex}", "object": "payment_intent", "status": "succeeded", "currency": "sgd"}
    event = {"id": f"evt_{uuid4().hex}", "object": "event", "type": "payment_intent.succeeded", "livemode": False}
    event |= {"created": int(time.time()), "data": {"object": intent | {"metadata": metadata}}}
    event["data"]["object"]["amount_received"] = amount * 100  # type: ignore[index]
    return json.dumps(event).encode()
