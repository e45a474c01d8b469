"""The flows of the matrix: how each flow is prepared, and its one request.

`prepare` inserts users, seat and state. `act` sends the request to the orchestrator with faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from flask import Flask

from harness.api_client import ApiResponse, Inbox
from harness.invariants import Rows, Snapshot
from tests.saga.in_process import db_builders
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.saga.in_process.local_calls import Caller

HALL = "HALL-A"
PRICE = Decimal(200)
AMOUNT = Decimal(150)


@dataclass
class Case:
    """The users, the seat and the ids of one execution."""

    system: InProcessSystem
    app: Flask
    inbox: Inbox
    seat: UUID
    people: dict[str, UUID] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def caller(self, who: str, app: Flask | None = None) -> Caller:
        """A client with the token of a user. It calls the healthy orchestrator unless `app` is another one."""
        role = "staff" if who == "staff" else "customer"
        return Caller(app or self.app, self.system.token(self.people[who], role))

    def code(self, who: str) -> str:
        """The newest one-time password that a user received."""
        return self.inbox.newest_code(self.system.phone(self.people[who]))

    def balance(self, who: str) -> Any:
        """The spendable credits of a user. The type is Any, so that tests can compare them with integers."""
        return self.system.credits(self.people[who])[0]

    def status(self) -> str:
        """The status of the seat."""
        return str(self.system.seat(self.seat)["status"])

    def owner(self) -> str | None:
        """The owner of the seat."""
        owner = self.system.seat(self.seat)["owner_user_id"]
        return next((who for who, user in self.people.items() if user == owner), None)

    def issue_qr(self, who: str) -> None:
        """Issue a QR of the ticket for a user, which the next `verify` request scans."""
        sealed = self.system.rescuer.participants.seal.seal(self.seat, self.people[who], HALL)
        self.ids |= {"qr": sealed.payload, "scan": str(uuid4())}

    def run(self, flow: str) -> ApiResponse:
        """Send the request of a flow to the healthy orchestrator."""
        return FLOWS[flow].act(self, self.app)


Prepare = Callable[[Case], None]
Act = Callable[[Case, Flask], ApiResponse]


@dataclass(frozen=True)
class Flow:
    """A request whose edges get the faults."""

    name: str
    prepare: Prepare
    act: Act


# ── scenario 1


def _create_buyer(case: Case) -> None:
    case.people["buyer"] = case.system.new_user()


def _create_flagged_buyer(case: Case) -> None:
    case.people["buyer"] = case.system.new_user(flagged=True)


def _reserve(case: Case, app: Flask) -> ApiResponse:
    answer = case.caller("buyer", app).post("/api/reserve", {"seat_id": case.seat})
    if answer.status == 200:
        case.ids["order_id"] = answer.data["order_id"]
    return answer


def _hold(case: Case) -> None:
    _create_buyer(case)
    case.ids["order_id"] = db_builders.hold_seat(case.system, case.seat, case.people["buyer"], PRICE)


def _reserve_first(case: Case) -> None:
    _create_buyer(case)
    _reserve(case, case.app).must(200)


def _hold_of_failed_order(case: Case) -> None:
    _hold(case)
    with case.system.dbs["order"].transaction() as tx:
        tx.run("UPDATE orders SET status = 'FAILED' WHERE order_id = %(id)s", id=case.ids["order_id"])


def _pay(case: Case, app: Flask) -> ApiResponse:
    return case.caller("buyer", app).post("/api/pay", {"order_id": case.ids["order_id"]})


def _hold_for_flagged(case: Case) -> None:
    _create_flagged_buyer(case)
    buyer = case.people["buyer"]
    sid, case.ids["code"] = case.system.send_code(buyer)
    case.ids["order_id"] = db_builders.hold_seat(case.system, case.seat, buyer, PRICE, sid)


def _verify_otp(case: Case, app: Flask) -> ApiResponse:
    body = {"order_id": case.ids["order_id"], "otp_code": case.ids["code"]}
    return case.caller("buyer", app).post("/api/verify-otp", body)


def _sell(case: Case) -> None:
    _create_buyer(case)
    case.ids["order_id"] = db_builders.sell_seat(case.system, case.seat, case.people["buyer"], PRICE)
    case.people["staff"] = case.system.new_user("0.00", role="staff")


def _refund(case: Case, app: Flask) -> ApiResponse:
    return case.caller("staff", app).post(f"/api/orders/{case.ids['order_id']}/refund", {})


# ── scenario 2


def _create_parties(case: Case) -> None:
    _sell(case)
    case.people["seller"] = case.people["buyer"]
    case.people["buyer"] = case.system.new_user()


def _initiate(case: Case, app: Flask) -> ApiResponse:
    parties = {f"{who}_user_id": case.people[who] for who in ("seller", "buyer")}
    body = {"seat_id": case.seat, **parties, "credits_amount": AMOUNT}
    answer = case.caller("seller", app).post("/api/transfer/initiate", body)
    if answer.status == 201:
        case.ids["transfer_id"] = answer.data["transfer_id"]
    return answer


def _start_transfer(case: Case) -> None:
    _create_parties(case)
    seller_sid, case.ids["seller_code"] = case.system.send_code(case.people["seller"])
    buyer_sid, case.ids["buyer_code"] = case.system.send_code(case.people["buyer"])
    case.ids["transfer_id"] = db_builders.start_transfer(case.system, _handover(case), seller_sid, buyer_sid)


def _handover(case: Case) -> db_builders.Handover:
    seller, buyer = case.people["seller"], case.people["buyer"]
    return db_builders.Handover(case.seat, case.ids["order_id"], seller, buyer, AMOUNT)


def _confirm(case: Case, app: Flask) -> ApiResponse:
    codes = {"seller_otp": case.ids["seller_code"], "buyer_otp": case.ids["buyer_code"]}
    return case.caller("seller", app).post("/api/transfer/confirm", {"transfer_id": case.ids["transfer_id"], **codes})


def _complete_transfer(case: Case) -> None:
    _create_parties(case)
    case.ids["transfer_id"] = db_builders.complete_transfer(case.system, _handover(case))


def _dispute(case: Case, app: Flask) -> ApiResponse:
    body = {"transfer_id": case.ids["transfer_id"], "reason": "not what was promised"}
    return case.caller("buyer", app).post("/api/transfer/dispute", body)


def _dispute_transfer(case: Case) -> None:
    _complete_transfer(case)
    db_builders.dispute_transfer(case.system, case.ids["transfer_id"], case.people["seller"], AMOUNT)


def _staff_action(verb: str) -> Act:
    def act(case: Case, app: Flask) -> ApiResponse:
        return case.caller("staff", app).post(f"/api/transfer/{verb}", {"transfer_id": case.ids["transfer_id"]})

    return act


# ── scenario 3


def _issue_qr(case: Case) -> None:
    _sell(case)
    case.issue_qr("buyer")


def _scan(case: Case, app: Flask) -> ApiResponse:
    body = {"qr_payload": case.ids["qr"], "hall_id": HALL}
    return case.caller("staff", app).post("/api/verify", body, **{"Idempotency-Key": case.ids["scan"]})


FLOWS: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("reserve", _create_buyer, _reserve),
        Flow("reserve flagged", _create_flagged_buyer, _reserve),
        Flow("reserve again", _hold_of_failed_order, _reserve),
        Flow("pay", _hold, _pay),
        Flow("pay reserved", _reserve_first, _pay),
        Flow("verify-otp", _hold_for_flagged, _verify_otp),
        Flow("refund", _sell, _refund),
        Flow("initiate", _create_parties, _initiate),
        Flow("confirm", _start_transfer, _confirm),
        Flow("dispute", _complete_transfer, _dispute),
        Flow("reverse", _dispute_transfer, _staff_action("reverse")),
        Flow("dismiss", _dispute_transfer, _staff_action("dismiss")),
        Flow("verify", _issue_qr, _scan),
    )
}


def read_state(case: Case, found: Snapshot) -> dict[str, Any]:
    """Return the end state of an execution, in the form of `END_STATES`."""
    order, transfer, [seat] = _newest(found["orders"]), _newest(found["transfers"]), found["seats"]
    credits = {user["user_id"]: (user["credit_balance"], user["frozen_credits"]) for user in found["users"]}
    return {
        "seat": seat["status"],
        "owner": next((who for who, user in case.people.items() if user == seat["owner_user_id"]), None),
        "order": order["status"] if order else None,
        "transfer": transfer["status"] if transfer else None,
        **{who: credits[user] for who, user in case.people.items() if who != "staff"},
    }


def _newest(rows: Rows) -> dict[str, Any] | None:
    return max(rows, key=lambda row: row["created_at"], default=None)
