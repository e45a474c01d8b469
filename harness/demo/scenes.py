"""The scenes of the demo, in the order of the reference: purchase, its failures, transfer, gate.

Every scene sends a customer's requests through the gateway and asserts the outcome that it prints.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Mapping
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
    """Return the id of a seed seat by its number. Event 1 has 100 seats, in rows A to D of 25."""
    return f"5ea7000{event}-0000-0000-0000-{number:012d}"


def purchase(narrator: Narrator) -> None:
    """Scenario 1 (section 5 of the reference): reserve, pay, and pay once more."""
    narrator.scene("Scenario 1 · a user buys a ticket")
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(1)
    narrator.step("before the purchase", seat, None, buyer)
    held = buyer.reserve(seat).must(200)
    narrator.step(f"POST /api/reserve → HELD until {held['held_until']}", seat, held["order_id"], buyer)
    paid = buyer.pay(held["order_id"]).must(200)
    narrator.step(f"POST /api/pay → {paid['status']}, QR {paid['qr_payload'][:24]}…", seat, held["order_id"], buyer)
    again = buyer.pay(held["order_id"]).must(200)
    assert again["remaining_balance"] == paid["remaining_balance"], "a second pay charged again"
    narrator.step("POST /api/pay again → the same answer and no second charge", None, None, buyer)


def top_up(narrator: Narrator) -> None:
    """Top-up (section 9): the webhook of Stripe credits the payment once."""
    narrator.scene("Top-up · a user buys credits with Stripe")
    buyer = Api(narrator.gateway).register("topped-up@example.com")
    intent = buyer.post("/api/credits/topup", {"amount": 400}).must(200)
    narrator.step(f"POST /api/credits/topup → PaymentIntent {intent['payment_intent_id']}", None, None, buyer)
    _pay_by_card(narrator, intent["payment_intent_id"])
    narrator.wait_until("the webhook has credited the payment", lambda: buyer.balance() == 400)
    narrator.step("Stripe confirms the card payment and sends the signed webhook", None, None, buyer)


def flagged_purchase(narrator: Narrator) -> None:
    """Scenario 1, high-risk path: a flagged user enters a one-time code before the payment."""
    narrator.scene("Scenario 1 · a flagged user must enter a one-time code")
    buyer, seat = narrator.log_in("user2@example.com"), seat_id(80)
    held = buyer.reserve(seat).must(200)
    narrator.step(f"POST /api/reserve → otp_required: {held['otp_required']}", seat, held["order_id"], buyer)
    _assert_refused(buyer.pay(held["order_id"]), 428, "OTP_REQUIRED")
    narrator.step("POST /api/pay without the code → 428 OTP_REQUIRED")
    code = narrator.inbox.newest_code("+6591234568")
    _assert_refused(buyer.verify_otp("000000" if code != "000000" else "111111"), 401, "OTP_INVALID")
    narrator.step("POST /api/verify-otp with a wrong code → 401 OTP_INVALID, two attempts left")
    buyer.verify_otp(code, held["order_id"]).must(200)
    buyer.pay(held["order_id"]).must(200)
    narrator.step("POST /api/verify-otp with the right code, then POST /api/pay → paid", seat, held["order_id"], buyer)


def abandonment(narrator: Narrator) -> None:
    """Scenario 1, abandonment: the expired hold message releases the seat."""
    narrator.scene("Scenario 1 · a user abandons a hold, and the expired RabbitMQ message releases the seat")
    _restart_orchestrators(narrator, SHORT_HOLD)
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(2)
    held = buyer.reserve(seat).must(200)
    narrator.step("POST /api/reserve with a hold of 3 s and no payment", seat, held["order_id"], buyer)
    narrator.wait_until("the seat is available", lambda: db.seat(narrator.stack, seat)["status"] == "AVAILABLE")
    narrator.wait_until("the order has failed", lambda: db.order_status(narrator.stack, held["order_id"]) == "FAILED")
    narrator.step(
        "the message expired in seat.hold.queue, and its consumer released the seat", seat, held["order_id"], buyer
    )
    _assert_refused(buyer.pay(held["order_id"]), 409, "ORDER_FAILED")
    narrator.step("POST /api/pay → 409 ORDER_FAILED, and nothing is charged", None, None, buyer)


def _call_for_orchestrators(narrator: Narrator, act: Callable[[str], object]) -> None:
    """Call `act` with the name of the orchestrator, or with both of a cluster."""
    for name in narrator.stack.members("orchestrator-service"):
        act(name)


def _restart_orchestrators(narrator: Narrator, env: Mapping[str, str]) -> None:
    _call_for_orchestrators(narrator, lambda name: narrator.stack.restart(name, env))


def broker_outage(narrator: Narrator) -> None:
    """Without RabbitMQ the sweeper settles an abandoned hold, because the database has its expiry, too."""
    narrator.scene("RabbitMQ is down, and the sweepers release the seat")
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(3)
    held = buyer.reserve(seat).must(200)
    narrator.stack.stop("rabbitmq")
    narrator.step("POST /api/reserve with a hold of 3 s, then RabbitMQ is stopped", seat, held["order_id"], buyer)
    lost = buyer.reserve(seat_id(4))
    assert lost.status == 503, lost
    narrator.step(
        f"POST /api/reserve without RabbitMQ → {lost.status} {lost.error_code}, and its seat is released", seat_id(4)
    )
    narrator.wait_until(
        "the sweeper has released the seat", lambda: db.seat(narrator.stack, seat)["status"] == "AVAILABLE", 60
    )
    narrator.wait_until(
        "the order has failed", lambda: db.order_status(narrator.stack, held["order_id"]) == "FAILED", 60
    )
    narrator.step(
        "no message arrived, but the sweepers of Inventory and Order settled the hold", seat, held["order_id"], buyer
    )
    narrator.stack.start("rabbitmq")
    _restart_orchestrators(narrator, {})


def crash(narrator: Narrator) -> None:
    """A SIGKILL between charge and confirmation: recovery refunds the charge."""
    narrator.scene("Crash · the orchestrator is killed between charge and confirmation")
    buyer, seat = narrator.log_in("user1@example.com"), seat_id(5)
    order_id = buyer.reserve(seat).must(200)["order_id"]
    narrator.step("POST /api/reserve → HELD", seat, order_id, buyer)
    with closing(narrator.connect("orders_db")) as blocker, blocker.cursor() as cursor:
        blocker.autocommit = False
        cursor.execute("SELECT FROM orders WHERE order_id = %s FOR UPDATE", (order_id,))
        Thread(target=_pay_without_reply, args=(buyer, order_id), daemon=True).start()
        narrator.wait_until("the charge is on the ledger", lambda: _find_charge(narrator, order_id))
        _call_for_orchestrators(narrator, narrator.stack.kill)
        blocker.rollback()
    narrator.step(
        "the user is charged, then SIGKILL ends the orchestrator (the order's confirmation was already sent)",
        seat,
        order_id,
        buyer,
    )
    _call_for_orchestrators(narrator, narrator.stack.start)
    saga = narrator.wait_until("recovery has ended the saga", lambda: _find_ended_saga(narrator, order_id)) or {}
    narrator.step(
        f"recovery finds no pivot, so it refunds: the saga is {saga['status']} (epoch {saga['epoch']})",
        seat,
        order_id,
        buyer,
    )
    assert db.order_status(narrator.stack, order_id) == "FAILED"


def transfer_and_gate(narrator: Narrator) -> None:
    """Scenarios 2 and 3 (sections 6 and 7): a transfer with two codes, then scans of the old and the new owner's QR."""
    narrator.scene("Scenario 2 · a user sells the ticket to another user, and both enter a code")
    seller, buyer, seat = narrator.log_in("user1@example.com"), narrator.log_in("topped-up@example.com"), seat_id(1)
    old_qr = seller.qr(seat).must(200)["qr_payload"]
    _transfer(narrator, seller, buyer, seat, 300)
    narrator.step("POST /api/transfer/confirm with both codes → COMPLETED for 300.00", seat, None, seller, buyer)
    narrator.scene("Scenario 3 · the gate")
    staff = narrator.log_in(STAFF)
    admitted = buyer.qr(seat).must(200)["qr_payload"]
    _scan(narrator, staff, old_qr, "the old owner's QR", "NOT_OWNER", seat)
    _scan(narrator, staff, admitted, "the new owner's QR", "SUCCESS", seat)
    _scan(narrator, staff, admitted, "the same QR again", "DUPLICATE", seat)


def dispute(narrator: Narrator) -> None:
    """Scenario 2, dispute: staff reverse the transfer, which returns the ticket and the credits."""
    narrator.scene("Scenario 2 · the buyer disputes a transfer, and staff reverse it")
    seller, buyer, staff = (narrator.log_in(e) for e in ("user1@example.com", "topped-up@example.com", STAFF))
    seat = seat_id(90)
    seller.pay(seller.reserve(seat).must(200)["order_id"]).must(200)
    transfer_id = _transfer(narrator, seller, buyer, seat, 50)
    narrator.step("the transfer is COMPLETED for 50.00", seat, None, seller, buyer)
    disputed = buyer.transfer("dispute", transfer_id, reason="not what was promised").must(200)
    narrator.step(
        f"POST /api/transfer/dispute → {disputed['credits_frozen']} of the seller's credits are frozen",
        seat,
        None,
        seller,
        buyer,
    )
    staff.transfer("reverse", transfer_id).must(200)
    assert str(db.seat(narrator.stack, seat)["owner_user_id"]) == seller.user_id
    narrator.step("POST /api/transfer/reverse → seat and credits are as before the transfer", seat, None, seller, buyer)


def _transfer(narrator: Narrator, seller: Api, buyer: Api, seat: str, amount: int) -> str:
    transfer_id: str = seller.initiate(seat, seller.user_id, buyer.user_id, amount).must(201)["transfer_id"]
    narrator.step("POST /api/transfer/initiate → PENDING_OTP, and each phone gets a code")
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
        return  # expected, because the scene kills the orchestrator during this call


def _pay_by_card(narrator: Narrator, intent_id: str) -> None:
    key = narrator.stack.env("user-service")["STRIPE_SECRET_KEY"]
    content = urllib.parse.urlencode({"payment_method": "pm_card_visa"})
    url = f"{narrator.stack.url('fake-stripe')}/v1/payment_intents/{intent_id}/confirm"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-www-form-urlencoded"}
    answer = urllib3.request("POST", url, body=content, headers=headers)
    assert answer.status == 200, answer.data


def _assert_refused(answer: ApiResponse, status: int, code: str) -> None:
    assert (answer.status, answer.error_code) == (status, code), answer
