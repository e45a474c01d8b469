"""What the documented answers of the public API need to come about: people, tickets, clocks and races."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from uuid import uuid4

from fakes.stripe.webhooks import sign
from harness.api_client import ApiResponse
from tests.support.people import Person
from tests.support.system import TestSystem

PAST_SEAT = "5ea70003-0000-0000-0000-000000000001"
EVENT = "e0e0e0e0-0000-0000-0000-000000000002"
HALL = "HALL-B"
LATE = 601  # seconds: a code has ten minutes
Work = Callable[[], ApiResponse]


def play(system: TestSystem) -> None:
    """Every scene."""
    for scene in (accounts, events, purchase, codes, tickets, transfers, disputes, gate, payments):
        scene(system)


def accounts(system: TestSystem) -> None:
    """Register, log in, refresh, log out; an address that is taken, a wrong password."""
    person = system.visitor().register()
    answer(person.post("/api/auth/register", {"email": person.email, "phone": "+6591112222", "password": "x" * 8}), 409)
    answer(system.visitor().post("/api/auth/login", {"email": person.email, "password": "wrong"}), 401)
    answer(person.call("POST", "/api/auth/refresh", token=person.refresh_token), 200)
    answer(person.post("/api/auth/logout"), 200)


def events(system: TestSystem) -> None:
    """Lists and maps, and what they say to somebody who has them already."""
    person = system.person()
    for path in ("/api/events", f"/api/events/{EVENT}"):
        known = answer(person.get(path), 200).headers["ETag"]
        system.until("nothing has changed since", lambda: person.get(path, **{"If-None-Match": known}).status == 304)  # noqa: B023


def purchase(system: TestSystem) -> None:
    """Reserve and pay, with everything that can stand against it."""
    buyer, other, poor = system.person(), system.person(), system.person("0.00")
    seat, key = system.seat(), {"Idempotency-Key": str(uuid4())}
    order = answer(buyer.reserve(seat, **key), 200).data["order_id"]
    answer(buyer.reserve(system.seat(), **key), 422)
    answer(other.reserve(seat), 409)
    answer(other.reserve(PAST_SEAT), 410)
    answer(other.pay(order), 403)
    answer(buyer.pay(order), 200)
    answer(other.order(order), 403)
    answer(buyer.order(order), 200)
    answer(buyer.verify_otp("123456", order), 409)
    answer(buyer.post("/api/otp/resend", {"order_id": order}), 409)
    answer(poor.pay(system.held(poor)[1]), 402)
    _, late = system.held(buyer)
    system.rows("orders_db", "UPDATE orders SET expires_at = app_now() WHERE order_id = %s", late)
    answer(buyer.pay(late), 410)
    answer(system.staff().post(f"/api/orders/{late}/refund"), 409)
    _, failed = system.held(buyer)
    system.rows("orders_db", "UPDATE orders SET status = 'FAILED' WHERE order_id = %s", failed)
    answer(buyer.pay(failed), 409)
    answer(system.staff().post(f"/api/orders/{order}/refund"), 200)


def codes(system: TestSystem) -> None:
    """The code of a flagged purchase: right, wrong three times, too late, somebody else's, sent too often."""
    buyer, careless, other = system.person(flagged=True), system.person(flagged=True), system.person()
    _, order = system.held(buyer)
    answer(buyer.pay(order), 428)
    answer(other.verify_otp("123456", order), 403)
    answer(other.post("/api/otp/resend", {"order_id": order}), 403)
    with system.smu.later(LATE):
        answer(buyer.verify_otp(system.code(buyer), order), 410)
    answer(buyer.post("/api/otp/resend", {"order_id": order}), 200)
    answer(buyer.verify_otp(system.code(buyer), order), 200)
    _, doomed = system.held(careless)
    for status in (401, 401, 429):
        answer(careless.verify_otp("0000000000", doomed), status)
    _, order = system.held(buyer)
    statuses = [buyer.post("/api/otp/resend", {"order_id": order}).status for _ in range(5)]
    assert statuses[-1] == 429, statuses


def tickets(system: TestSystem) -> None:
    """My things, and the QR as text and as a picture."""
    owner, other = system.person(), system.person()
    seat = system.ticket(owner)
    for path in ("/api/tickets", "/api/orders", "/api/transfers", "/api/credits/balance"):
        answer(owner.get(path), 200)
    answer(owner.qr(seat), 200)
    for kind in ("image/svg+xml", "image/png"):
        answer(owner.get(f"/api/tickets/{seat}/qr", Accept=kind), 200)
    answer(other.qr(seat), 403)


def transfers(system: TestSystem) -> None:
    """Initiate, confirm, cancel, and what stands against each."""
    seller, buyer, stranger = system.person(), system.person(), system.person()
    seat, key = system.ticket(seller), {"Idempotency-Key": str(uuid4())}
    offer = {"seat_id": seat, "seller_user_id": seller.user_id, "buyer_user_id": buyer.user_id}
    answer(seller.initiate(seat, seller.user_id, buyer.user_id, 99_999), 402)
    answer(buyer.initiate(seat, stranger.user_id, buyer.user_id, 10), 403)
    transfer = answer(seller.post("/api/transfer/initiate", {**offer, "credits_amount": 10}, **key), 201).data[
        "transfer_id"
    ]
    answer(seller.post("/api/transfer/initiate", {**offer, "credits_amount": 11}, **key), 422)
    answer(seller.initiate(seat, seller.user_id, buyer.user_id, 10), 409)
    answer(seller.transfer("dispute", transfer, reason="too soon"), 409)
    answer(stranger.confirm(transfer, seller_otp="123456"), 403)
    answer(stranger.transfer("cancel", transfer), 403)
    answer(stranger.transfer("dispute", transfer, reason="none of mine"), 403)
    with system.smu.later(LATE):
        answer(seller.confirm(transfer, seller_otp=system.code(seller)), 410)
    answer(seller.post("/api/otp/resend", {"transfer_id": transfer}), 200)
    answer(seller.confirm(transfer, seller_otp="0000000000"), 401)
    answer(seller.confirm(transfer, seller_otp=system.code(seller)), 200)
    answer(buyer.transfer("cancel", transfer), 200)
    answer(buyer.confirm(transfer, buyer_otp="123456"), 409)
    answer(spent(system, seller, seat), 402)


def spent(system: TestSystem, seller: Person, seat: str) -> ApiResponse:
    """A swap whose buyer has spent the credits meanwhile."""
    buyer = system.person("200.00")
    transfer = system.initiated(seller, buyer, seat, 150)
    system.bought(buyer, "5ea70002-0000-0000-0000-000000004990")
    return seller.confirm(transfer, seller_otp=system.code(seller), buyer_otp=system.code(buyer))


def disputes(system: TestSystem) -> None:
    """Disputed and decided, one way and the other."""
    staff = system.staff()
    for verb in ("reverse", "dismiss"):
        seller, buyer = system.people(2)
        transfer = system.transferred(seller, buyer, system.ticket(seller))
        answer(staff.transfer(verb, transfer), 409)
        answer(buyer.transfer("cancel", transfer), 409)
        answer(buyer.transfer("dispute", transfer, reason="not what was promised"), 200)
        answer(staff.transfer(verb, transfer), 200)


def gate(system: TestSystem) -> None:
    """Admitted, asked again, asked with another body, asked twice at once."""
    owner, staff, key = system.person(), system.staff(), {"Idempotency-Key": str(uuid4())}
    seat, second = system.tickets(owner, 2)
    qr = owner.qr(seat).data["qr_payload"]
    answer(staff.scan(qr, HALL, **key), 200)
    answer(staff.scan(qr, "HALL-A", **key), 422)
    answer(owner.qr(seat), 409)
    again, qr = {"Idempotency-Key": str(uuid4())}, owner.qr(second).data["qr_payload"]
    with locked(system, "seats_db", "seats", "seat_id", second, 0.6):
        statuses = run_concurrently(lambda: staff.scan(qr, HALL, **again), lambda: staff.scan(qr, HALL, **again))
    assert 409 in statuses, statuses


def payments(system: TestSystem) -> None:
    """A top-up, once for each key; and Stripe's word about something else."""
    buyer, key = system.person(), {"Idempotency-Key": str(uuid4())}
    answer(buyer.top_up(50, **key), 200)
    answer(buyer.top_up(60, **key), 422)
    busy = {"Idempotency-Key": str(uuid4())}
    with system.stripe.fault("late", "/v1/payment_intents", ms=700, count=1):
        statuses = run_concurrently(lambda: buyer.top_up(70, **busy), lambda: buyer.top_up(70, **busy))
    assert 409 in statuses, statuses
    answer(system.visitor().call("POST", "/api/webhooks/stripe", *signed(system, b'{"type": "customer.created"}')), 200)


def signed(system: TestSystem, payload: bytes = b"") -> tuple[bytes, dict[str, str]]:
    """An event as Stripe would send it; without a payload, a payment that nobody here has made."""
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


def answer(given: ApiResponse, status: int) -> ApiResponse:
    """The answer, which has to have this status."""
    assert given.status == status, given
    return given


def run_concurrently(*works: Work) -> list[int]:
    """Statuses of calls that are made at the same time."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [given.status for given in pool.map(lambda work: work(), works)]


@contextmanager
def locked(system: TestSystem, database: str, table: str, column: str, row_id: str, seconds: float) -> Iterator[None]:
    """A row's lock is somebody else's for the first `seconds` of the block."""
    with closing(system.connect(database)) as blocker, blocker.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        blocker.autocommit = False
        cursor.execute(f"SELECT FROM {table} WHERE {column} = %s FOR UPDATE", (row_id,))

        def let_go() -> None:
            time.sleep(seconds)  # the fault itself is a length of time
            blocker.rollback()

        pool.submit(let_go)
        yield
