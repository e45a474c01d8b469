"""Scenarios that reach the documented answers of the public API: people, tickets, clocks and races."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from uuid import uuid4

from fakes.stripe.webhooks import sign
from harness.api_client import NEW_PASSWORD, ApiResponse
from tests.support.concurrency import run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

PAST_SEAT = "5ea70003-0000-0000-0000-000000000001"
EVENT = "e0e0e0e0-0000-0000-0000-000000000002"
HALL = "HALL-B"
LATE = 601  # seconds, because a code expires after ten minutes
HOLD_OVER = 301  # seconds, because a hold ends after five minutes


def cover_all(system: TestSystem) -> None:
    """Run every scenario."""
    for scenario in (
        cover_accounts,
        cover_events,
        cover_purchases,
        cover_codes,
        cover_tickets,
        cover_transfers,
        cover_disputes,
        cover_scans,
        cover_payments,
    ):
        scenario(system)


def cover_accounts(system: TestSystem) -> None:
    """Register twice, log in with a wrong password, refresh, log out."""
    person = system.visitor().register()
    expect(
        person.post("/api/auth/register", {"email": person.email, "phone": "+6591112222", "password": NEW_PASSWORD}),
        409,
    )
    expect(system.visitor().post("/api/auth/login", {"email": person.email, "password": "wrong"}), 401)
    expect(person.call("POST", "/api/auth/refresh", token=person.refresh_token), 200)
    expect(person.post("/api/auth/logout"), 200)
    cover_logins(system)


def cover_logins(system: TestSystem) -> None:
    """Change and reset a password, end logins, and lock and unlock the account."""
    person, staff = system.visitor().register(), system.staff()
    of_user, password = f"/api/auth/users/{person.user_id}", "a much better one"
    expect(person.get("/api/auth/logins"), 200)
    expect(person.post("/api/auth/password", {"current_password": NEW_PASSWORD, "new_password": password}), 200)
    expect(person.post("/api/auth/logout-everywhere"), 200)
    verify = "UPDATE users SET phone_verified_at = now() WHERE email = %s RETURNING phone"
    person.phone = system.rows("users_db", verify, person.email)[0]["phone"]
    expect(person.post("/api/auth/password/reset", {"email": person.email}), 200)
    reset = {"email": person.email, "otp_code": system.code(person), "new_password": NEW_PASSWORD}
    expect(person.post("/api/auth/password/reset/confirm", {**reset, "otp_code": "0000000000"}), 401)
    expect(person.post("/api/auth/password/reset/confirm", reset), 200)
    for action in ("logout", "lock"):
        expect(staff.post(f"{of_user}/{action}"), 200)
    expect(person.post("/api/auth/login", {"email": person.email, "password": NEW_PASSWORD}), 403)
    expect(staff.post(f"{of_user}/unlock"), 200)


def cover_events(system: TestSystem) -> None:
    """Get a list and a seat map, and 304 when they are unchanged."""
    person = system.person()
    for path in ("/api/events", f"/api/events/{EVENT}"):
        etag = expect(person.get(path), 200).headers["ETag"]
        system.wait_until("the answer is 304", lambda: person.get(path, **{"If-None-Match": etag}).status == 304)  # noqa: B023


def cover_purchases(system: TestSystem) -> None:
    """Reserve and pay, with every refusal."""
    buyer, other, poor = system.person(), system.person(), system.person("0.00")
    seat, key = system.seat(), {"Idempotency-Key": str(uuid4())}
    order = expect(buyer.reserve(seat, **key), 200).data["order_id"]
    expect(buyer.reserve(system.seat(), **key), 422)
    expect(other.reserve(seat), 409)
    expect(other.reserve(PAST_SEAT), 410)
    expect(other.pay(order), 403)
    expect(buyer.pay(order), 200)
    expect(other.order(order), 403)
    expect(buyer.order(order), 200)
    expect(buyer.verify_otp("123456", order), 409)
    expect(buyer.post("/api/otp/resend", {"order_id": order}), 409)
    expect(poor.pay(system.hold_seat(poor)[1]), 402)
    _, late = system.hold_seat(buyer)
    with system.clock("orders_db", HOLD_OVER), system.clock("sagas_db", HOLD_OVER):
        expect(buyer.pay(late), 410)
    expect(system.staff().post(f"/api/orders/{late}/refund"), 409)
    _, failed = system.hold_seat(buyer)
    system.rows("orders_db", "UPDATE orders SET status = 'FAILED' WHERE order_id = %s", failed)
    expect(buyer.pay(failed), 409)
    expect(system.staff().post(f"/api/orders/{order}/refund"), 200)


def cover_codes(system: TestSystem) -> None:
    """Verify the code of a flagged purchase: right, wrong three times, expired, of another buyer, resent too often."""
    buyer, careless, other = system.person(flagged=True), system.person(flagged=True), system.person()
    _, order = system.hold_seat(buyer)
    expect(buyer.pay(order), 428)
    expect(other.verify_otp("123456", order), 403)
    expect(other.post("/api/otp/resend", {"order_id": order}), 403)
    with system.smu.advance_clock(LATE):
        expect(buyer.verify_otp(system.code(buyer), order), 410)
    expect(buyer.post("/api/otp/resend", {"order_id": order}), 200)
    expect(buyer.verify_otp(system.code(buyer), order), 200)
    _, failing = system.hold_seat(careless)
    for status in (401, 401, 429):
        expect(careless.verify_otp("0000000000", failing), status)
    _, order = system.hold_seat(buyer)
    statuses = [buyer.post("/api/otp/resend", {"order_id": order}).status for _ in range(5)]
    assert statuses[-1] == 429, statuses


def cover_tickets(system: TestSystem) -> None:
    """List tickets, orders and transfers, and get the QR code in each format."""
    owner, other = system.person(), system.person()
    seat = system.insert_ticket(owner)
    for path in ("/api/tickets", "/api/orders", "/api/transfers", "/api/credits/balance"):
        expect(owner.get(path), 200)
    expect(owner.qr(seat), 200)
    for kind in ("image/svg+xml", "image/png"):
        expect(owner.get(f"/api/tickets/{seat}/qr", Accept=kind), 200)
    expect(other.qr(seat), 403)


def cover_transfers(system: TestSystem) -> None:
    """Initiate, confirm and cancel, with every refusal."""
    seller, buyer, stranger = system.person(), system.person(), system.person()
    seat, key = system.insert_ticket(seller), {"Idempotency-Key": str(uuid4())}
    offer = {"seat_id": seat, "seller_user_id": seller.user_id, "buyer_user_id": buyer.user_id}
    expect(seller.initiate(seat, seller.user_id, buyer.user_id, 99_999), 402)
    expect(buyer.initiate(seat, stranger.user_id, buyer.user_id, 10), 403)
    transfer = expect(seller.post("/api/transfer/initiate", {**offer, "credits_amount": 10}, **key), 201).data[
        "transfer_id"
    ]
    expect(seller.post("/api/transfer/initiate", {**offer, "credits_amount": 11}, **key), 422)
    expect(seller.initiate(seat, seller.user_id, buyer.user_id, 10), 409)
    expect(seller.transfer("dispute", transfer, reason="too soon"), 409)
    expect(stranger.confirm(transfer, seller_otp="123456"), 403)
    expect(stranger.transfer("cancel", transfer), 403)
    expect(buyer.get(f"/api/transfers/{transfer}"), 200)
    expect(stranger.get(f"/api/transfers/{transfer}"), 403)
    expect(stranger.transfer("dispute", transfer, reason="not my transfer"), 403)
    with system.smu.advance_clock(LATE):
        expect(seller.confirm(transfer, seller_otp=system.code(seller)), 410)
    expect(seller.post("/api/otp/resend", {"transfer_id": transfer}), 200)
    expect(seller.confirm(transfer, seller_otp="0000000000"), 401)
    expect(seller.confirm(transfer, seller_otp=system.code(seller)), 200)
    expect(buyer.transfer("cancel", transfer), 200)
    expect(buyer.confirm(transfer, buyer_otp="123456"), 409)
    expect(confirm_without_credits(system, seller, seat), 402)


def confirm_without_credits(system: TestSystem, seller: Person, seat: str) -> ApiResponse:
    """Confirm a transfer after the buyer spent the credits."""
    buyer = system.person("200.00")
    transfer = system.start_transfer(seller, buyer, seat, 150)
    system.buy_seat(buyer, "5ea70002-0000-0000-0000-000000004990")
    return seller.confirm(transfer, seller_otp=system.code(seller), buyer_otp=system.code(buyer))


def cover_disputes(system: TestSystem) -> None:
    """Dispute two transfers. Staff reverse one and dismiss the other."""
    staff = system.staff()
    for verb in ("reverse", "dismiss"):
        seller, buyer = system.people(2)
        transfer = system.complete_transfer(seller, buyer, system.insert_ticket(seller))
        expect(staff.transfer(verb, transfer), 409)
        expect(buyer.transfer("cancel", transfer), 409)
        expect(buyer.transfer("dispute", transfer, reason="not what was promised"), 200)
        expect(staff.transfer(verb, transfer), 200)


def cover_scans(system: TestSystem) -> None:
    """Scan once, with a reused key, after the admission, and twice at once under one key."""
    owner, staff, key = system.person(), system.staff(), {"Idempotency-Key": str(uuid4())}
    seat, second = system.insert_tickets(owner, 2)
    qr = owner.qr(seat).data["qr_payload"]
    expect(staff.scan(qr, HALL, **key), 200)
    expect(staff.scan(qr, "HALL-A", **key), 422)
    expect(owner.qr(seat), 409)
    again, qr = {"Idempotency-Key": str(uuid4())}, owner.qr(second).data["qr_payload"]
    with hold_row_lock(system, "seats_db", "seats", "seat_id", second, 0.6):
        answers = run_concurrently([lambda: staff.scan(qr, HALL, **again)] * 2)
    assert 409 in {answer.status for answer in answers}, answers


def cover_payments(system: TestSystem) -> None:
    """Top up, reuse a key, use one key twice at once, and send an unrelated event."""
    buyer, key = system.person(), {"Idempotency-Key": str(uuid4())}
    expect(buyer.top_up(50, **key), 200)
    expect(buyer.top_up(60, **key), 422)
    busy = {"Idempotency-Key": str(uuid4())}
    with system.stripe.fault("late", "/v1/payment_intents", ms=700, count=1):
        answers = run_concurrently([lambda: buyer.top_up(70, **busy)] * 2)
    assert 409 in {answer.status for answer in answers}, answers
    expect(
        system.visitor().call("POST", "/api/webhooks/stripe", *sign_event(system, b'{"type": "customer.created"}')), 200
    )


def sign_event(system: TestSystem, payload: bytes = b"") -> tuple[bytes, dict[str, str]]:
    """Build an event with Stripe's signature. Without a payload, it reports a payment of an unknown user."""
    intent = {
        "id": f"pi_{uuid4().hex}",
        "amount_received": 100,
        "currency": "sgd",
        "metadata": {"user_id": str(uuid4())},
    }
    payment = {"id": f"evt_{uuid4().hex}", "type": "payment_intent.succeeded", "data": {"object": intent}}
    event = payload.replace(b"{", b'{"id": "evt_1", "object": "event", ', 1) or json.dumps(payment).encode()
    secret = system.env("user-service")["STRIPE_WEBHOOK_SECRET"]
    return event, {"Stripe-Signature": sign(event, secret, int(time.time())), "Content-Type": "application/json"}


def expect(answer: ApiResponse, status: int) -> ApiResponse:
    """Return the answer. Raises AssertionError if it has another status."""
    assert answer.status == status, answer
    return answer


@contextmanager
def hold_row_lock(
    system: TestSystem, database: str, table: str, column: str, row_id: str, seconds: float
) -> Iterator[None]:
    """Lock a row from another connection for the first `seconds` of the block."""
    with closing(system.connect(database)) as blocker, blocker.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        blocker.autocommit = False
        cursor.execute(f"SELECT FROM {table} WHERE {column} = %s FOR UPDATE", (row_id,))

        def release() -> None:
            time.sleep(seconds)  # the fault is defined as a length of time
            blocker.rollback()

        pool.submit(release)
        yield
