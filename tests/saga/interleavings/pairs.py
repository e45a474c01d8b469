"""The pairs that the explorer runs: two actors on one seat, order or transfer, in one prepared situation.

Actor *a* uses the first orchestrator process and *b* the second one. The actors in capitals are background workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from flask import Flask

from harness.api_client import ApiResponse
from services.chassis import json_codec
from services.chassis.clients import HttpPeer
from services.inventory.consumer import SeatReleases
from services.inventory.queue_consumer import Message
from services.inventory.store import holds
from services.orchestrator.app import Orchestrator
from tests.saga.in_process import db_builders
from tests.saga.in_process.in_process_system import ORDER
from tests.saga.in_process.local_calls import call
from tests.saga.in_process.scenarios import AMOUNT, FLOWS, HALL, PRICE, Case
from tests.saga.properties.stripe_events import build_payment, sign
from tests.support.service_settings import make_credential


@dataclass(frozen=True)
class Process:
    """An orchestrator process. `other` is the orchestrator of the other actor."""

    orchestrator: Orchestrator
    app: Flask
    other: Orchestrator


Act = Callable[[Case, Process], ApiResponse | None]


@dataclass(frozen=True)
class Pair:
    """Two actors and the situation in which they start. A third actor *c* shares the process of *b*."""

    situation: str
    a: str
    b: str
    c: str = ""

    @property
    def acts(self) -> dict[str, str]:
        """The act of each actor."""
        return {name: act for name, act in (("a", self.a), ("b", self.b), ("c", self.c)) if act}

    @property
    def name(self) -> str:
        """The name in schedules and reports."""
        return f"{'~'.join(self.acts.values())} ({self.situation})"


def parse_pair(name: str) -> Pair:
    """The pair of a name such as `pay~scan (held)`, or with a third actor `pay~scan~RECOVERY (held)`."""
    acts, _, situation = name.removesuffix(")").partition(" (")
    return Pair(situation, *acts.split("~"))


def _post(who: str, path: str, fixed: Mapping[str, str], **names: str) -> Act:
    """A request of a user. `names` maps fields of the body to ids of the case."""

    def act(case: Case, process: Process) -> ApiResponse:
        ids = {field: case.ids[name] for field, name in names.items()}
        return case.caller(who, process.app).post(path, {**fixed, **ids})

    return act


def _flow(name: str) -> Act:
    return lambda case, process: FLOWS[name].act(case, process.app)


def _reserve(who: str, key: str | None = None) -> Act:
    def act(case: Case, process: Process) -> ApiResponse:
        headers = {"Idempotency-Key": key} if key else {}
        return case.caller(who, process.app).post("/api/reserve", {"seat_id": case.seat}, **headers)

    return act


def _pay_under_key(case: Case, process: Process) -> ApiResponse:
    body = {"order_id": case.ids["order_id"]}
    return case.caller("buyer", process.app).post("/api/pay", body, **{"Idempotency-Key": str(uuid4())})


def _initiate(seller: str, buyer: str) -> Act:
    def act(case: Case, process: Process) -> ApiResponse:
        parties = {"seller_user_id": case.people[seller], "buyer_user_id": case.people[buyer]}
        body = {"seat_id": case.seat, **parties, "credits_amount": AMOUNT}
        return case.caller(seller, process.app).post("/api/transfer/initiate", body)

    return act


def _scan(holder: str, gate: str = "") -> Act:
    """A scan of the QR code that `holder` has. `gate` is the scan id, or empty for a new one."""

    def act(case: Case, process: Process) -> ApiResponse:
        body = {"qr_payload": case.ids[f"qr {holder}"], "hall_id": HALL}
        key = case.ids.setdefault(f"scan {gate}", str(uuid4())) if gate else str(uuid4())
        return case.caller("staff", process.app).post("/api/verify", body, **{"Idempotency-Key": key})

    return act


def _refresh_qr(who: str) -> Act:
    return lambda case, process: case.caller(who, process.app).get(f"/api/tickets/{case.seat}/qr")


def _pay_webhook(case: Case, _process: Process) -> ApiResponse:
    payload = case.ids["webhook"].encode()
    return call(case.system.apps["http://user.test"], "POST", "/api/webhooks/stripe", payload, sign(payload))


def _spend(who: str) -> Act:
    """The payment of another order of this user."""
    return lambda case, process: case.caller(who, process.app).post("/api/pay", {"order_id": case.ids[f"other {who}"]})


# ── background workers


EXPIRE = {
    "inventory": "UPDATE seats SET held_until = '2020-01-01' WHERE hold_id = %(order)s AND status = 'HELD' RETURNING 1",
    "order": """
WITH one AS (UPDATE orders SET expires_at = '2020-01-01' WHERE order_id = %(order)s AND status = 'PENDING')
UPDATE transfers SET expires_at = '2020-01-01' WHERE order_id = %(order)s RETURNING 1""",
}

EXPIRE_NEW = "UPDATE seats SET held_until = '2020-01-01' WHERE seat_id = %(seat)s AND status = 'HELD' RETURNING 1"


def _expire_and(work: Act, *services: str) -> Act:
    """Let the hold, the order and the transfer expire, each by the clock of its database, and do the work."""

    def act(case: Case, process: Process) -> ApiResponse | None:
        for service in services or EXPIRE:
            case.system.dbs[service].statement(EXPIRE[service], order=case.ids["order_id"])
        return work(case, process)

    return act


def _take_over_new_hold(case: Case, process: Process) -> ApiResponse:
    """Let the hold that the other actor has just made expire, and reserve the seat."""
    case.system.dbs["inventory"].statement(EXPIRE_NEW, seat=case.seat)
    return case.caller("second", process.app).post("/api/reserve", {"seat_id": case.seat})


def _sweep_holds(case: Case, _process: Process) -> None:
    holds.sweep(case.system.dbs["inventory"], batch=200, grace_seconds=0)


def _sweep_orders(case: Case, _process: Process) -> None:
    case.system.order_sweeper.sweep()


def _wake_up(case: Case, process: Process) -> None:
    """Handle the message of the hold, as Inventory's consumer does, with the notice to Order."""
    orders = HttpPeer("Order", ORDER, make_credential("inventory-service", "order-service"), case.system.http)
    publisher: Any = process.orchestrator.publisher
    releases = SeatReleases(
        case.system.dbs["inventory"], publisher, lambda order: orders.post(f"/orders/{order}/expire")
    )
    body = json_codec.encode({"seat_id": case.seat, "order_id": case.ids["order_id"]})
    releases.handle(Message(body, case.ids["order_id"], {}))


def _recover(_case: Case, process: Process) -> None:
    """Recovery in a second process, after the first one seems to be dead although it still works."""
    process.other.journal.resign()
    process.orchestrator.recovery.tick()


def _complete(_case: Case, process: Process) -> None:
    process.orchestrator.completion.tick()


def _send_notices(_case: Case, process: Process) -> None:
    process.orchestrator.outbox.tick()


ACTS: Mapping[str, Act] = {
    "reserve": _reserve("buyer"),
    "reserve by another": _reserve("second"),
    "reserve with a key": _reserve("buyer", "key"),
    "take-over": _expire_and(_reserve("second")),
    "take-over of a new hold": _take_over_new_hold,
    "pay": _flow("pay"),
    "pay under a key": _pay_under_key,
    "verify-otp": _flow("verify-otp"),
    "wrong code": _post("buyer", "/api/verify-otp", {"otp_code": "0000"}, order_id="order_id"),
    "resend": _post("buyer", "/api/otp/resend", {}, order_id="order_id"),
    "refund": _flow("refund"),
    "initiate": _initiate("seller", "buyer"),
    "onward": _initiate("buyer", "third"),
    "confirm": _flow("confirm"),
    "seller's code": _post("seller", "/api/transfer/confirm", {}, seller_otp="seller_code", transfer_id="transfer_id"),
    "buyer's code": _post("buyer", "/api/transfer/confirm", {}, buyer_otp="buyer_code", transfer_id="transfer_id"),
    "wrong transfer code": _post("buyer", "/api/transfer/confirm", {"buyer_otp": "0000"}, transfer_id="transfer_id"),
    "confirm onward": _post(
        "third", "/api/transfer/confirm", {}, seller_otp="code 1", buyer_otp="code 2", transfer_id="onward"
    ),
    "cancel": _post("seller", "/api/transfer/cancel", {}, transfer_id="transfer_id"),
    "cancel by buyer": _post("buyer", "/api/transfer/cancel", {}, transfer_id="transfer_id"),
    "dispute": _flow("dispute"),
    "dispute by seller": _post("seller", "/api/transfer/dispute", {"reason": "not paid"}, transfer_id="transfer_id"),
    "reverse": _flow("reverse"),
    "dismiss": _flow("dismiss"),
    "scan": _scan("owner"),
    "scan again": _scan("owner", "same"),
    "scan of the buyer": _scan("buyer"),
    "QR of the seller": _refresh_qr("seller"),
    "webhook": _pay_webhook,
    "buyer spends": _spend("buyer"),
    "HOLD SWEEPER": _expire_and(_sweep_holds),
    "ORDER SWEEPER": _expire_and(_sweep_orders, "order"),
    "HOLD MESSAGE": _expire_and(_wake_up),
    "RECOVERY": _recover,
    "COMPLETION": _complete,
    "OUTBOX": _send_notices,
}


# ── situations


def _prepare_free(case: Case) -> None:
    FLOWS["reserve"].prepare(case)


def _prepare_flagged_buyer(case: Case) -> None:
    FLOWS["reserve flagged"].prepare(case)


def _other_order(case: Case, who: str) -> None:
    """A held seat of its own that costs more than this user has left after the flow."""
    seat = case.system.new_seat()
    case.ids[f"other {who}"] = db_builders.hold_seat(case.system, seat, case.people[who], PRICE * 9 / 2)
    case.ids["other seat"] = str(seat)


def _prepare_two_holds(case: Case) -> None:
    FLOWS["pay"].prepare(case)
    _other_order(case, "buyer")


def _prepare_buyer_spends(case: Case) -> None:
    FLOWS["confirm"].prepare(case)
    _other_order(case, "buyer")


def _prepare_dispute(case: Case) -> None:
    FLOWS["dispute"].prepare(case)
    case.run("dispute").must(200)


def _prepare_both_codes(case: Case) -> None:
    FLOWS["confirm"].prepare(case)
    both = "SET seller_otp_verified = true, buyer_otp_verified = true WHERE transfer_id = %(id)s RETURNING transfer_id"
    case.system.row("order", f"UPDATE transfers {both}", id=case.ids["transfer_id"])


def _prepare_onward(case: Case) -> None:
    FLOWS["dispute"].prepare(case)
    people = [case.people["buyer"], case.people["third"]]
    handover = db_builders.Handover(case.seat, case.ids["order_id"], people[0], people[1], AMOUNT)
    (sid, case.ids["code 1"]), (other, case.ids["code 2"]) = (case.system.send_code(user) for user in people)
    case.ids["onward"] = db_builders.start_transfer(case.system, handover, sid, other)


def _prepare_ended_pay(case: Case) -> None:
    FLOWS["pay"].prepare(case)
    case.run("pay").must(200)


SITUATIONS: Mapping[str, Callable[[Case], None]] = {
    "free": _prepare_free,
    "free, flagged": _prepare_flagged_buyer,
    "held": FLOWS["pay"].prepare,
    "two holds": _prepare_two_holds,
    "code sent": FLOWS["verify-otp"].prepare,
    "paid": _prepare_ended_pay,
    "sold": FLOWS["initiate"].prepare,
    "transfer": FLOWS["confirm"].prepare,
    "transfer, spending": _prepare_buyer_spends,
    "verified": _prepare_both_codes,
    "completed": FLOWS["dispute"].prepare,
    "onward": _prepare_onward,
    "disputed": _prepare_dispute,
}


def prepare(case: Case, situation: str) -> None:
    """Create the users, the state and the QR codes of a situation."""
    case.people |= {"second": case.system.new_user(), "third": case.system.new_user()}
    SITUATIONS[situation](case)
    case.people.setdefault("staff", case.system.new_user("0.00", role="staff"))
    owner = "seller" if situation in ("sold", "transfer", "transfer, spending", "verified") else "buyer"
    for name, who in (("owner", owner), ("buyer", "buyer")):
        case.ids[f"qr {name}"] = case.system.rescuer.participants.seal.seal(case.seat, case.people[who], HALL).payload
    case.ids["webhook"] = build_payment(case.people["buyer"], 500).decode()


def _pairs(situation: str, a: str, *others: str) -> list[Pair]:
    return [Pair(situation, a, other) for other in others]


PAIRS: Mapping[str, Pair] = {
    pair.name: pair
    for pair in [
        *_pairs("free", "reserve", "reserve", "reserve by another", "RECOVERY", "take-over of a new hold"),
        *_pairs("free", "reserve with a key", "reserve with a key", "RECOVERY"),
        *_pairs("free, flagged", "reserve", "RECOVERY", "reserve by another"),
        *_pairs("held", "pay", "pay", "pay under a key", "reserve", "reserve by another", "take-over", "refund"),
        *_pairs("held", "pay", "webhook", "scan"),
        *_pairs("held", "pay", "HOLD SWEEPER", "ORDER SWEEPER", "HOLD MESSAGE", "RECOVERY", "OUTBOX"),
        *_pairs("held", "take-over", "HOLD SWEEPER", "ORDER SWEEPER", "HOLD MESSAGE", "RECOVERY"),
        *_pairs("held", "HOLD SWEEPER", "HOLD MESSAGE"),
        *_pairs("two holds", "pay", "buyer spends"),
        *_pairs("code sent", "verify-otp", "verify-otp", "wrong code", "pay", "resend", "take-over"),
        *_pairs("code sent", "verify-otp", "ORDER SWEEPER", "HOLD MESSAGE"),
        *_pairs("code sent", "wrong code", "wrong code"),
        *_pairs("paid", "OUTBOX", "OUTBOX"),
        *_pairs("sold", "refund", "refund", "initiate", "scan", "QR of the seller", "RECOVERY", "OUTBOX"),
        *_pairs("sold", "initiate", "initiate", "scan", "RECOVERY", "ORDER SWEEPER"),
        *_pairs("sold", "scan", "scan", "QR of the seller"),
        *_pairs("sold", "scan again", "scan again"),
        *_pairs("transfer", "confirm", "confirm", "cancel", "scan", "scan of the buyer", "refund", "initiate"),
        *_pairs("transfer", "confirm", "ORDER SWEEPER", "RECOVERY", "QR of the seller", "wrong transfer code"),
        *_pairs("transfer", "seller's code", "buyer's code", "cancel by buyer"),
        *_pairs("transfer", "cancel", "cancel by buyer", "ORDER SWEEPER", "initiate"),
        *_pairs("transfer, spending", "confirm", "buyer spends"),
        *_pairs("verified", "confirm", "COMPLETION"),
        *_pairs("verified", "COMPLETION", "COMPLETION", "cancel", "ORDER SWEEPER", "scan", "refund"),
        *_pairs("completed", "dispute", "dispute", "dispute by seller", "onward", "scan of the buyer", "refund"),
        *_pairs("completed", "dispute", "RECOVERY", "webhook"),
        *_pairs("onward", "dispute", "confirm onward"),
        *_pairs("disputed", "reverse", "reverse", "dismiss", "scan of the buyer", "RECOVERY", "onward", "dispute"),
        *_pairs("disputed", "dismiss", "dismiss", "RECOVERY", "onward", "scan of the buyer", "dispute"),
        *_pairs("disputed", "reverse", "refund"),
    ]
}
MATRIX_PAIRS = tuple(  # the flows of the reference's compensation matrices, against each other
    name
    for name in PAIRS
    if name
    in (
        "reserve~reserve by another (free)",
        "pay~pay (held)",
        "pay~take-over (held)",
        "pay~HOLD MESSAGE (held)",
        "verify-otp~pay (code sent)",
        "scan~scan (sold)",
        "refund~scan (sold)",
        "initiate~initiate (sold)",
        "dispute~scan of the buyer (completed)",
        "reverse~dismiss (disputed)",
    )
)
assert len(MATRIX_PAIRS) == 10
EXPIRING = ("HOLD SWEEPER", "ORDER SWEEPER", "HOLD MESSAGE", "take-over", "take-over of a new hold")


def choose_third(pair: Pair) -> Pair:
    """Add the background worker that can touch the subject of a pair: recovery, unless it is there already."""
    if "RECOVERY" not in pair.acts.values():
        return replace(pair, c="RECOVERY")
    if pair.situation in ("held", "two holds", "code sent"):
        return replace(pair, c="HOLD MESSAGE")
    return replace(pair, c="ORDER SWEEPER" if "transfer" in pair.situation else "OUTBOX")
