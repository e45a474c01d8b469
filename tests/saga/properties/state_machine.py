"""The system against a small model: random actions with crashes, lost replies, expired holds and repeated webhooks.

After every step the databases must match the model. An action with a fault may end done, compensated or not begun, and
in no other state. Every example ends with a check of the invariants. `test_saga_properties.py` runs the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar

from flask import Flask
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness import invariants
from harness.api_client import ApiResponse
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.local_calls import Caller
from tests.saga.in_process.scenarios import HALL, Case, Flow
from tests.saga.matrix.expected_outcomes import TABLE
from tests.saga.properties import stripe_events
from tests.saga.properties.model import Model, Order, Seat, Transfer, User
from tests.saga.properties.state_comparison import MISSING, StateComparison

USERS, SEATS = ("ann", "ben", "cho", "dan"), ("s1", "s2", "s3")
FLAGGED = "dan"
FAULT_KINDS = (Kind.DIES_BEFORE, Kind.DIES_AFTER, Kind.LOST_GIVES_UP, Kind.LATE_GIVES_UP, Kind.TWICE)
EDGES = {flow: [line.split("  ")[0].strip() for line in block.strip().splitlines()] for flow, block in TABLE.items()}

Send = Callable[[Flask], ApiResponse]
Apply = Callable[[Model], str]
Undo = Callable[[Model], None]
InjectedFault = tuple[Kind, int] | None  # a kind, and the number of an edge of the flow

users, seats = st.sampled_from(USERS), st.sampled_from(SEATS)
amounts = st.sampled_from([50, 200, 700])
injected_faults = st.one_of(st.none(), st.none(), st.tuples(st.sampled_from(FAULT_KINDS), st.integers(0, 15)))


class SagaStateMachine(RuleBasedStateMachine):
    """The actions of the public API, the expiry of holds, and the webhooks of Stripe."""

    engine: Engine
    steps_taken: ClassVar[list[int]] = []

    @initialize(past=st.integers(0, 5))
    def open(self, past: int) -> None:
        """Create users and seats. The first seat has a past, because random steps rarely reach the end of a flow."""
        system = self.engine.system
        self.ids = {name: system.new_user(flagged=name == FLAGGED) for name in USERS}
        self.seat_ids = {name: system.new_seat() for name in SEATS}
        self.staff = system.new_user("0.00", role="staff")
        self.model = Model({u: User(1000, is_flagged=u == FLAGGED) for u in USERS}, {s: Seat() for s in SEATS})
        self.comparison = StateComparison(system, self.ids, self.seat_ids)
        self.events: list[tuple[str, int, bytes]] = []
        self.reversed: set[int] = set()  # the payments that were taken back
        self.steps = 0
        seat, seller, buyer = SEATS[0], USERS[0], USERS[1]
        actions: list[Callable[[], None]] = [
            lambda: self._reserve(seller, seat, None),
            lambda: self._pay(seller, self.model.seats[seat].order or "", None),
            lambda: self._initiate(seat, seller, buyer, 200, None),
            lambda: self._confirm(next(iter(self.model.transfers)), None),
            lambda: self._dispute(next(iter(self.model.transfers)), None),
        ]
        for action in actions[:past]:
            action()

    @invariant()
    def count(self) -> None:
        self.steps += 1

    # ── scenario 1

    @rule(user=users, seat=seats, fault=injected_faults)
    def reserve(self, user: str, seat: str, fault: Any) -> None:
        self._reserve(user, seat, fault)

    def _reserve(self, user: str, seat: str, fault: Any) -> None:
        def apply(model: Model) -> str:
            order_id = self.engine.system.seat(self.seat_ids[seat])["hold_id"]
            return model.reserve(user, seat, str(order_id or MISSING))

        send = lambda app: self._as(user, app).post("/api/reserve", {"seat_id": self.seat_ids[seat]})  # noqa: E731
        self._run("reserve", send, apply, lambda model: model.undo_reserve(user, seat), fault)

    @precondition(lambda self: self.model.orders)
    @rule(user=users, data=st.data(), fault=injected_faults)
    def pay(self, user: str, data: Any, fault: Any) -> None:
        order = _draw_often(data, self.model.orders, "PENDING")
        payer = data.draw(st.sampled_from([user, self.model.orders[order].user, self.model.orders[order].user]))
        self._pay(payer, order, fault)

    def _pay(self, payer: str, order: str, fault: Any) -> None:
        self._run(
            "pay",
            lambda app: self._as(payer, app).post("/api/pay", {"order_id": order}),
            lambda model: model.pay(payer, order),
            lambda model: model.undo_pay(payer, order),
            fault,
        )

    @rule(seat=seats)
    def hold_expires(self, seat: str) -> None:
        if self.model.seats[seat].status == "HELD":
            self.engine.system.expire_hold(self.seat_ids[seat])
            self.engine.system.sweep()
        self.model.expire(seat)
        self._compare()

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), is_right=st.booleans())
    def verify(self, data: Any, is_right: bool) -> None:
        order = data.draw(st.sampled_from(list(self.model.orders)))
        body = {"order_id": order, "otp_code": self._order_code(order, is_right=is_right)}
        send = lambda app: self._as(self.model.orders[order].user, app).post("/api/verify-otp", body)  # noqa: E731
        self._run("verify-otp", send, lambda model: model.verify(order, is_right=is_right))

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), fault=injected_faults)
    def refund(self, data: Any, fault: Any) -> None:
        order = data.draw(st.sampled_from(list(self.model.orders)))
        send = lambda app: self._staff(app).post(f"/api/orders/{order}/refund", {})  # noqa: E731
        self._run("refund", send, lambda model: model.refund(order), fault=fault)

    @rule(user=users, amount=amounts, data=st.data())
    def top_up(self, user: str, amount: int, data: Any) -> None:
        """Deliver a signed webhook, sometimes one that was delivered before."""
        is_repeated = bool(self.events) and data.draw(st.booleans())
        if is_repeated:
            user, amount, payload = data.draw(st.sampled_from(self.events))
        else:
            payload = stripe_events.build_payment(self.ids[user], amount)
            self.events.append((user, amount, payload))
        self.engine.system.post_webhook(payload, stripe_events.sign(payload))
        self.model.top_up(user, amount, is_repeated=is_repeated)
        self._compare()

    @precondition(lambda self: self.events)
    @rule(data=st.data(), is_dispute=st.booleans())
    def take_back(self, data: Any, is_dispute: bool) -> None:
        """Report a payment as refunded or as lost, sometimes again or as both. It is taken back once."""
        number = data.draw(st.integers(0, len(self.events) - 1))
        user, amount, payment = self.events[number]
        payload = stripe_events.build_reversal(payment, amount, is_dispute=is_dispute)
        self.engine.system.post_webhook(payload, stripe_events.sign(payload))
        if number not in self.reversed:
            self.reversed.add(number)
            self.model.take_back(user, amount)
        self._compare()

    # ── scenario 2

    @rule(seat=seats, seller=users, buyer=users, amount=amounts, fault=injected_faults)
    def initiate(self, seat: str, seller: str, buyer: str, amount: int, fault: Any) -> None:
        self._initiate(seat, seller, buyer, amount, fault)

    def _initiate(self, seat: str, seller: str, buyer: str, amount: int, fault: Any) -> None:
        owner = self.model.seats[seat].owner or seller
        body = {"seat_id": self.seat_ids[seat], "seller_user_id": self.ids[owner], "buyer_user_id": self.ids[buyer]}

        def apply(model: Model) -> str:
            newest = self.engine.system.transfer_of(self.seat_ids[seat])
            newest_id = str(newest["transfer_id"]) if newest else MISSING
            return model.initiate(seat, owner, buyer, amount, MISSING if newest_id in model.transfers else newest_id)

        send = lambda app: self._as(owner, app).post("/api/transfer/initiate", {**body, "credits_amount": amount})  # noqa: E731
        self._run("initiate", send, apply, fault=fault)

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data(), fault=injected_faults)
    def confirm(self, data: Any, fault: Any) -> None:
        self._confirm(_draw_often(data, self.model.transfers, "PENDING_OTP"), fault)

    def _confirm(self, transfer_id: str, fault: Any) -> None:
        transfer = self.model.transfers[transfer_id]
        codes = self._codes(transfer_id)
        body = {"transfer_id": transfer_id, **codes}
        self._run(
            "confirm",
            lambda app: self._as(transfer.seller, app).post("/api/transfer/confirm", body),
            lambda model: model.confirm(transfer_id),
            lambda model: model.undo_confirm(transfer_id),
            fault,
        )

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        transfer_id = data.draw(st.sampled_from(list(self.model.transfers)))
        send = lambda app: self._party(transfer_id, app).post("/api/transfer/cancel", {"transfer_id": transfer_id})  # noqa: E731
        self._run("cancel", send, lambda model: model.cancel(transfer_id))

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data(), fault=injected_faults)
    def dispute(self, data: Any, fault: Any) -> None:
        self._dispute(_draw_often(data, self.model.transfers, "COMPLETED"), fault)

    def _dispute(self, transfer_id: str, fault: Any) -> None:
        body = {"transfer_id": transfer_id, "reason": "not what was promised"}
        send = lambda app: self._party(transfer_id, app).post("/api/transfer/dispute", body)  # noqa: E731
        self._run("dispute", send, lambda model: model.dispute(transfer_id), fault=fault)

    @precondition(lambda self: self.model.transfers)
    @rule(data=st.data(), verb=st.sampled_from(["reverse", "dismiss"]), fault=injected_faults)
    def decide(self, data: Any, verb: str, fault: Any) -> None:
        transfer_id = _draw_often(data, self.model.transfers, "DISPUTED")
        send = lambda app: self._staff(app).post(f"/api/transfer/{verb}", {"transfer_id": transfer_id})  # noqa: E731
        self._run(verb, send, lambda model: getattr(model, verb)(transfer_id), fault=fault)

    # ── scenario 3

    @rule(seat=seats, user=users)
    def scan(self, seat: str, user: str) -> None:
        sealed = self.engine.system.rescuer.participants.seal.seal(self.seat_ids[seat], self.ids[user], HALL)
        body = {"qr_payload": sealed.payload, "hall_id": HALL}
        answer = self._staff(self.engine.healthy_app).post("/api/verify", body).must(200)
        assert answer["result"] == self.model.scan(seat, user)
        self._compare()

    # ── checks

    def _run(self, flow: str, send: Send, apply: Apply, undo: Undo | None = None, fault: InjectedFault = None) -> None:
        """Run an action in the system and in the model, and compare both."""
        self.engine.system.delete_counted_events()
        case = Case(self.engine.system, self.engine.healthy_app, self.engine.inbox, next(iter(self.seat_ids.values())))
        request = Flow(flow, lambda _: None, lambda _, app: send(app))
        response = self.engine.act(request, case, *_plan_faults(flow, fault))
        self.engine.recover()
        is_certain = fault is None or (response is not None and response.status < 300)
        if is_certain:
            assert response is not None
            assert (response.error_code or "ok") == apply(self.model), response
            self._compare()
        else:
            self._accept_any_end(apply, undo)

    def _accept_any_end(self, apply: Apply, undo: Undo | None) -> None:
        """Find the end of an action with a fault: done, not begun or compensated. Continue with that model."""
        done = deepcopy(self.model)
        apply(done)
        candidates = [done, self.model]
        if undo is not None:  # even an action that would be refused, because the process died before it read anything
            compensated = deepcopy(self.model)
            undo(compensated)
            candidates.append(compensated)
        state = self.comparison.read_state(done)
        matching = [model for model in candidates if not self.comparison.find_differences(model, state)]
        assert matching, [self.comparison.find_differences(model, state) for model in candidates]
        self.model = matching[0]

    def _compare(self) -> None:
        assert not self.comparison.find_differences(self.model, self.comparison.read_state(self.model))

    # ── clients and codes

    def _order_code(self, order_id: str, *, is_right: bool) -> str:
        """Return a new code for an order that waits for one, or a wrong code. Other orders get any code."""
        order = self.model.orders[order_id]
        if order.status != "PENDING" or not order.needs_code:
            return "000000"
        code = self._request_code(order.user, {"order_id": order_id})
        return code if is_right else f"{(int(code) + 1) % 10**6:06d}"

    def _request_code(self, name: str, body: dict[str, str]) -> str:
        self.engine.system.delete_counted_events()
        self._as(name, self.engine.healthy_app).post("/api/otp/resend", body).must(200)
        return self.engine.inbox.newest_code(self.engine.system.phone(self.ids[name]))

    def _codes(self, transfer_id: str) -> dict[str, str]:
        """Return a new code for each party that has not verified yet. A finished transfer gets any code."""
        transfer = self.model.transfers[transfer_id]
        row = self.engine.system.transfer(transfer_id)
        codes = {}
        for party, name in (("seller", transfer.seller), ("buyer", transfer.buyer)):
            if transfer.status == "PENDING_OTP" and not row[f"{party}_otp_verified"]:
                codes[f"{party}_otp"] = self._request_code(name, {"transfer_id": transfer_id})
        return codes or {"seller_otp": "000000"}

    def _as(self, name: str, app: Flask) -> Caller:
        return Caller(app, self.engine.system.token(self.ids[name]))

    def _staff(self, app: Flask) -> Caller:
        return Caller(app, self.engine.system.token(self.staff, "staff"))

    def _party(self, transfer_id: str, app: Flask) -> Caller:
        return self._as(self.model.transfers[transfer_id].buyer, app)

    def teardown(self) -> None:
        if not hasattr(self, "ids"):
            return
        self.steps_taken.append(self.steps)
        people = [*self.ids.values(), self.staff]
        scope = invariants.Scope(seats=list(self.seat_ids.values()), users=people)
        found = invariants.find_violations(self.engine.system.connect, scope=scope)
        self.engine.system.delete_sagas()
        assert not found, found


def _draw_often(data: Any, known: Mapping[str, Order] | Mapping[str, Transfer], status: str) -> str:
    """Draw an id, more often one with this status, so that the later steps of a flow are reached."""
    fitting = [each for each, row in known.items() if row.status == status]
    chosen: str = data.draw(st.sampled_from([*fitting * 3, *known]))
    return chosen


def _plan_faults(flow: str, fault: InjectedFault) -> list[Fault]:
    if fault is None or flow not in EDGES:
        return []
    kind, place = fault
    return [Fault(EDGES[flow][place % len(EDGES[flow])], kind)]
