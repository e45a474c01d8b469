"""The scenes of the demo, in the order of the reference: purchase, what can go wrong with it, transfer, gate.

Every scene goes through the gateway as a customer would, and asserts what it shows.
"""

from __future__ import annotations

import urllib.parse
from contextlib import closing
from threading import Thread
from typing import Any

import urllib3

from harness import db
from harness.api_client import Api, ApiResponse
from harness.demo.narrator import Narrator

HALL = "HALL-A"
SHORT_HOLD = {"HOLD_TTL_SECONDS": "3"}
STAFF = "staff@example.com"


def seat_id(number: int, event: int = 1) -> str:
    """A seat of the seed by its number: event 1 has 100 in rows A–D of 25."""
    return f"5ea7000{event}-0000-0000-0000-{number:012d}"


def purchase(narrator: Narrator) -> None:
    """§5, happy path."""
    narrator.scene("Scenario 1 · a ticket is bought")
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(1)
    narrator.step("before", seat, None, buyer)
    held = buyer.reserve(seat).must(200)
    narrator.step(f"POST /api/reserve → HELD until {held['held_until']}", seat, held["order_id"], buyer)
    paid = buyer.pay(held["order_id"]).must(200)
    narrator.step(f"POST /api/pay → {paid['status']}, QR {paid['qr_payload'][:24]}…", seat, held["order_id"], buyer)
    again = buyer.pay(held["order_id"]).must(200)
    assert again["remaining_balance"] == paid["remaining_balance"], "a second pay charged again"
    narrator.step("POST /api/pay once more → the same answer, no second charge", None, None, buyer)


def top_up(narrator: Narrator) -> None:
    """§9, Stripe: credits come with the webhook, once."""
    narrator.scene("Credits by Stripe · a top-up")
    buyer = Api(narrator.gateway).register("topped-up@example.com")
    intent = buyer.post("/api/credits/topup", {"amount": 400}).must(200)
    narrator.step(f"POST /api/credits/topup → PaymentIntent {intent['payment_intent_id']}", None, None, buyer)
    _pay_by_card(narrator, intent["payment_intent_id"])
    narrator.wait_until("the webhook has credited", lambda: buyer.balance() == 400)
    narrator.step("card confirmed at Stripe, signed webhook received", None, None, buyer)


def flagged_purchase(narrator: Narrator) -> None:
    """§5, high-risk path: a code before paying."""
    narrator.scene("Scenario 1 · a flagged user has to verify a code")
    buyer, seat = narrator.log_in("user2@example.com"), seat_id(80)
    held = buyer.reserve(seat).must(200)
    narrator.step(f"reserve → otp_required: {held['otp_required']}", seat, held["order_id"], buyer)
    _assert_refused(buyer.pay(held["order_id"]), 428, "OTP_REQUIRED")
    narrator.step("pay before the code → 428 OTP_REQUIRED")
    code = narrator.inbox.newest_code("+6591234568")
    _assert_refused(buyer.verify_otp("000000" if code != "000000" else "111111"), 401, "OTP_INVALID")
    narrator.step("a wrong code → 401 OTP_INVALID, two attempts left")
    buyer.verify_otp(code, held["order_id"]).must(200)
    buyer.pay(held["order_id"]).must(200)
    narrator.step("the right code, then pay", seat, held["order_id"], buyer)


def abandonment(narrator: Narrator) -> None:
    """§5, abandonment: the dead-lettered message releases the seat."""
    narrator.scene("Scenario 1 · a hold is abandoned; RabbitMQ's dead-lettered message releases it")
    narrator.stack.restart("orchestrator-service", SHORT_HOLD)
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(2)
    held = buyer.reserve(seat).must(200)
    narrator.step("reserve with a TTL of 3 s, then walk away", seat, held["order_id"], buyer)
    narrator.wait_until("the seat is free", lambda: db.seat(narrator.stack, seat)["status"] == "AVAILABLE")
    narrator.wait_until("the order has failed", lambda: db.order_status(narrator.stack, held["order_id"]) == "FAILED")
    narrator.step("the message came back from seat.hold.queue", seat, held["order_id"], buyer)
    _assert_refused(buyer.pay(held["order_id"]), 409, "ORDER_FAILED")
    narrator.step("paying now → 409 ORDER_FAILED, nothing charged", None, None, buyer)


def broker_outage(narrator: Narrator) -> None:
    """The database holds the truth: with RabbitMQ gone the sweeper settles an abandoned hold."""
    narrator.scene("RabbitMQ is stopped; the sweeper does its work")
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(3)
    held = buyer.reserve(seat).must(200)
    narrator.stack.stop("rabbitmq")
    narrator.step("reserve with a TTL of 3 s, then RabbitMQ is stopped", seat, held["order_id"], buyer)
    lost = buyer.reserve(seat_id(4))
    assert lost.status == 503, lost
    narrator.step(f"another reserve meanwhile → {lost.status} {lost.error_code}, its seat given back", seat_id(4))
    narrator.wait_until(
        "the sweeper has released the seat", lambda: db.seat(narrator.stack, seat)["status"] == "AVAILABLE", 60
    )
    narrator.wait_until(
        "the order has failed", lambda: db.order_status(narrator.stack, held["order_id"]) == "FAILED", 60
    )
    narrator.step("no message came; Inventory's and Order's sweepers settled it", seat, held["order_id"], buyer)
    narrator.stack.start("rabbitmq")
    narrator.stack.restart("orchestrator-service", {})


def crash(narrator: Narrator) -> None:
    """A SIGKILL between charge and confirm: recovery gives the money back."""
    narrator.scene("The orchestrator is SIGKILLed between charge and confirm")
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(5)
    order_id = buyer.reserve(seat).must(200)["order_id"]
    narrator.step("reserved", seat, order_id, buyer)
    with closing(narrator.connect("orders_db")) as blocker, blocker.cursor() as cursor:
        blocker.autocommit = False
        cursor.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (order_id,))
        Thread(target=_pay_without_reply, args=(buyer, order_id), daemon=True).start()
        narrator.wait_until("the charge is on the ledger", lambda: _find_charge(narrator, order_id))
        narrator.stack.kill("orchestrator-service")
        blocker.rollback()
    narrator.step("charged, then SIGKILL; the order's confirm was under way and still arrives", seat, order_id, buyer)
    narrator.stack.start("orchestrator-service")
    saga = narrator.wait_until("recovery has ended the saga", lambda: _find_ended_saga(narrator, order_id)) or {}
    narrator.step(
        f"recovery: the pivot never happened, so pay is {saga['status']} in epoch {saga['epoch']}",
        seat,
        order_id,
        buyer,
    )
    assert db.order_status(narrator.stack, order_id) == "FAILED"


def transfer_and_gate(narrator: Narrator) -> None:
    """§6 and §7: two codes, the swap, and what the gate says to old and new owner."""
    narrator.scene("Scenario 2 · the ticket changes hands, with a code from each party")
    seller, buyer, seat = narrator.log_in("user1@example.com"), narrator.log_in("topped-up@example.com"), seat_id(1)
    old_qr = seller.qr(seat).must(200)["qr_payload"]
    transfer_id = _transfer(narrator, seller, buyer, seat, 300)
    narrator.step(f"transfer {transfer_id} COMPLETED for 300.00", seat, None, seller, buyer)
    narrator.scene("Scenario 3 · the gate")
    staff = narrator.log_in(STAFF)
    admitted = buyer.qr(seat).must(200)["qr_payload"]
    _scan(narrator, staff, old_qr, "the old owner's QR", "NOT_OWNER", seat)
    _scan(narrator, staff, admitted, "the new owner's QR", "SUCCESS", seat)
    _scan(narrator, staff, admitted, "the same QR again", "DUPLICATE", seat)


def dispute(narrator: Narrator) -> None:
    """§6, dispute and reverse: the ticket goes back, and so does the money."""
    narrator.scene("Scenario 2 · a transfer is disputed and reversed")
    seller, buyer, staff = (narrator.log_in(e) for e in ("user1@example.com", "topped-up@example.com", STAFF))
    seat = seat_id(90)
    seller.pay(seller.reserve(seat).must(200)["order_id"]).must(200)
    transfer_id = _transfer(narrator, seller, buyer, seat, 50)
    narrator.step("sold on for 50.00", seat, None, seller, buyer)
    disputed = buyer.transfer("dispute", transfer_id, reason="not what was promised").must(200)
    narrator.step(f"the buyer disputes: {disputed['credits_frozen']} frozen at the seller", seat, None, seller, buyer)
    staff.transfer("reverse", transfer_id).must(200)
    assert str(db.seat(narrator.stack, seat)["owner_user_id"]) == seller.user_id
    narrator.step("staff reverse it: seat and credits are back where they were", seat, None, seller, buyer)


def _transfer(narrator: Narrator, seller: Api, buyer: Api, seat: str, amount: int) -> str:
    transfer_id: str = seller.initiate(seat, seller.user_id, buyer.user_id, amount).must(201)["transfer_id"]
    narrator.step("POST /api/transfer/initiate → PENDING_OTP, a code to each phone")
    codes = {"seller_otp": _read_code(narrator, seller), "buyer_otp": _read_code(narrator, buyer)}
    done = seller.confirm(transfer_id, **codes).must(200)
    assert done["status"] == "COMPLETED", done
    return transfer_id


def _scan(narrator: Narrator, staff: Api, qr: str, whose: str, expected: str, seat: str) -> None:
    scan = staff.scan(qr, HALL).must(200)
    assert scan["result"] == expected, scan
    narrator.step(f"{whose} → {scan['result']}: {scan['message']}", seat)


def _read_code(narrator: Narrator, person: Api) -> str:
    user = db.row(narrator.stack, "users_db", "SELECT phone FROM users WHERE user_id = %s", person.user_id) or {}
    return narrator.inbox.newest_code(user["phone"])


def _find_charge(narrator: Narrator, order_id: str) -> Any:
    return db.row(
        narrator.stack, "users_db", "SELECT key FROM credit_entries WHERE key = %s", f"pay:{order_id}:1:deduct_credits"
    )


def _find_ended_saga(narrator: Narrator, order_id: str) -> dict[str, Any] | None:
    sql = "SELECT status::text, epoch FROM sagas WHERE flow = 'pay' AND subject = %s AND status <> 'RUNNING'"
    return db.row(narrator.stack, "sagas_db", sql, order_id)


def _pay_without_reply(buyer: Api, order_id: str) -> None:
    try:
        buyer.pay(order_id)
    except urllib3.exceptions.HTTPError:
        return  # the orchestrator dies under this call; that is the scene


def _pay_by_card(narrator: Narrator, intent_id: str) -> None:
    key = narrator.stack.env("user-service")["STRIPE_SECRET_KEY"]
    content = urllib.parse.urlencode({"payment_method": "pm_card_visa"})
    url = f"{narrator.stack.url('fake-stripe')}/v1/payment_intents/{intent_id}/confirm"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-www-form-urlencoded"}
    answer = urllib3.request("POST", url, body=content, headers=headers)
    assert answer.status == 200, answer.data


def _assert_refused(answer: ApiResponse, status: int, code: str) -> None:
    assert (answer.status, answer.error_code) == (status, code), answer
