"""The flows as the matrix runs them: who is there before, what is asked, and whom the invariants look at after.

`prepare` uses an orchestrator without faults; `act` is the one request that the victim answers.
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
from tests.saga.in_process.in_process_system import Caller, InProcessSystem

HALL = "HALL-A"
PRICE = Decimal(200)
AMOUNT = Decimal(150)


@dataclass
class Case:
    """One execution's people, seat and ids."""

    system: InProcessSystem
    app: Flask
    inbox: Inbox
    seat: UUID
    people: dict[str, UUID] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def caller(self, who: str, app: Flask | None = None) -> Caller:
        """Somebody at an orchestrator; the preparing one by default."""
        role = "staff" if who == "staff" else "customer"
        return Caller(app or self.app, self.system.token(self.people[who], role))

    def code(self, who: str) -> str:
        """The newest code that went to somebody's phone."""
        return self.inbox.newest_code(self.system.phone(self.people[who]))

    def balance(self, who: str) -> Decimal:
        """What somebody may spend."""
        return self.system.credits(self.people[who])[0]

    def status(self) -> str:
        """How the seat stands."""
        return str(self.system.seat(self.seat)["status"])

    def owner(self) -> str | None:
        """Who owns the seat."""
        owner = self.system.seat(self.seat)["owner_user_id"]
        return next((who for who, user in self.people.items() if user == owner), None)

    def take_qr(self, who: str) -> None:
        """The next scan is of somebody's fresh QR."""
        sealed = self.system.rescuer.participants.seal.seal(self.seat, self.people[who], HALL)
        self.ids |= {"qr": sealed.payload, "scan": str(uuid4())}

    def run(self, flow: str) -> ApiResponse:
        """Another flow's request, answered by an orchestrator without faults."""
        return FLOWS[flow].act(self, self.app)


Prepare = Callable[[Case], None]
Act = Callable[[Case, Flask], ApiResponse]


@dataclass(frozen=True)
class Flow:
    """A request whose every edge gets every fault."""

    name: str
    prepare: Prepare
    act: Act


# ── scenario 1


def _buyer(case: Case) -> None:
    case.people["buyer"] = case.system.new_user()


def _flagged_buyer(case: Case) -> None:
    case.people["buyer"] = case.system.new_user(flagged=True)


def _reserve(case: Case, app: Flask) -> ApiResponse:
    answer = case.caller("buyer", app).post("/api/reserve", {"seat_id": case.seat})
    if answer.status == 200:
        case.ids["order_id"] = answer.data["order_id"]
    return answer


def _held(case: Case) -> None:
    _buyer(case)
    case.ids["order_id"] = db_builders.hold(case.system, case.seat, case.people["buyer"], PRICE)


def _pay(case: Case, app: Flask) -> ApiResponse:
    return case.caller("buyer", app).post("/api/pay", {"order_id": case.ids["order_id"]})


def _held_by_flagged(case: Case) -> None:
    _flagged_buyer(case)
    buyer = case.people["buyer"]
    sid, case.ids["code"] = case.system.send_code(buyer)
    case.ids["order_id"] = db_builders.hold(case.system, case.seat, buyer, PRICE, sid)


def _verify_otp(case: Case, app: Flask) -> ApiResponse:
    body = {"order_id": case.ids["order_id"], "otp_code": case.ids["code"]}
    return case.caller("buyer", app).post("/api/verify-otp", body)


def _sold(case: Case) -> None:
    _buyer(case)
    case.ids["order_id"] = db_builders.sell(case.system, case.seat, case.people["buyer"], PRICE)
    case.people["staff"] = case.system.new_user("0.00", role="staff")


def _refund(case: Case, app: Flask) -> ApiResponse:
    return case.caller("staff", app).post(f"/api/orders/{case.ids['order_id']}/refund", {})


# ── scenario 2


def _two_parties(case: Case) -> None:
    _sold(case)
    case.people["seller"] = case.people["buyer"]
    case.people["buyer"] = case.system.new_user()


def _initiate(case: Case, app: Flask) -> ApiResponse:
    parties = {f"{who}_user_id": case.people[who] for who in ("seller", "buyer")}
    body = {"seat_id": case.seat, **parties, "credits_amount": AMOUNT}
    answer = case.caller("seller", app).post("/api/transfer/initiate", body)
    if answer.status == 201:
        case.ids["transfer_id"] = answer.data["transfer_id"]
    return answer


def _initiated(case: Case) -> None:
    _two_parties(case)
    seller_sid, case.ids["seller_code"] = case.system.send_code(case.people["seller"])
    buyer_sid, case.ids["buyer_code"] = case.system.send_code(case.people["buyer"])
    case.ids["transfer_id"] = db_builders.initiate(case.system, _handover(case), seller_sid, buyer_sid)


def _handover(case: Case) -> db_builders.Handover:
    seller, buyer = case.people["seller"], case.people["buyer"]
    return db_builders.Handover(case.seat, case.ids["order_id"], seller, buyer, AMOUNT)


def _confirm(case: Case, app: Flask) -> ApiResponse:
    codes = {"seller_otp": case.ids["seller_code"], "buyer_otp": case.ids["buyer_code"]}
    return case.caller("seller", app).post("/api/transfer/confirm", {"transfer_id": case.ids["transfer_id"], **codes})


def _transferred(case: Case) -> None:
    _two_parties(case)
    case.ids["transfer_id"] = db_builders.hand_over(case.system, _handover(case))


def _dispute(case: Case, app: Flask) -> ApiResponse:
    body = {"transfer_id": case.ids["transfer_id"], "reason": "not what was promised"}
    return case.caller("buyer", app).post("/api/transfer/dispute", body)


def _disputed(case: Case) -> None:
    _transferred(case)
    db_builders.dispute(case.system, case.ids["transfer_id"], case.people["seller"], AMOUNT)


def _staff_verb(verb: str) -> Act:
    def act(case: Case, app: Flask) -> ApiResponse:
        return case.caller("staff", app).post(f"/api/transfer/{verb}", {"transfer_id": case.ids["transfer_id"]})

    return act


# ── scenario 3


def _with_qr(case: Case) -> None:
    _sold(case)
    case.take_qr("buyer")


def _scan(case: Case, app: Flask) -> ApiResponse:
    body = {"qr_payload": case.ids["qr"], "hall_id": HALL}
    return case.caller("staff", app).post("/api/verify", body, **{"Idempotency-Key": case.ids["scan"]})


FLOWS: Mapping[str, Flow] = {
    flow.name: flow
    for flow in (
        Flow("reserve", _buyer, _reserve),
        Flow("reserve flagged", _flagged_buyer, _reserve),
        Flow("pay", _held, _pay),
        Flow("verify-otp", _held_by_flagged, _verify_otp),
        Flow("refund", _sold, _refund),
        Flow("initiate", _two_parties, _initiate),
        Flow("confirm", _initiated, _confirm),
        Flow("dispute", _transferred, _dispute),
        Flow("reverse", _disputed, _staff_verb("reverse")),
        Flow("dismiss", _disputed, _staff_verb("dismiss")),
        Flow("verify", _with_qr, _scan),
    )
}


def read_state(case: Case, found: Snapshot) -> dict[str, Any]:
    """How things stand after an execution, in the words of the outcome table."""
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
