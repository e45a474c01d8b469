"""Scenario 1 through the gateway: reserve and pay, alone and in a crowd (issue 2)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from functools import partial

import pytest

from tests.support.concurrency import outcomes, run_concurrently
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

SEATS_OF_THE_SEED = "5ea70001-0000-0000-0000-0000000000"
WAITERS = """
SELECT count(*) AS waiting FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND datname = 'seats_db'"""


@contextmanager
def watched_locks(system: TestSystem) -> Iterator[list[int]]:
    """Counts who waits for a lock in Inventory's database, again and again."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        with closing(system.connect("seats_db")) as connection, connection.cursor() as cursor:
            while not over.wait(0.002):
                cursor.execute(WAITERS)
                seen.append(cursor.fetchone()["waiting"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def charges(system: TestSystem, user_id: str) -> list[Decimal]:
    """What was taken from a balance."""
    sql = "SELECT amount FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'"
    return [row["amount"] for row in system.rows("users_db", sql, user_id)]


@pytest.mark.claim(
    "reserve/post-reserve",
    "reserve/returns-order-id",
    "pay/post-pay",
    "pay/deducts-price",
    "pay/confirms-order",
    "pay/sells-seat",
    "pay/returns-qr",
    "testing/end-to-end",
)
def test_a_seat_is_reserved_and_paid_for(system: TestSystem) -> None:
    buyer, seat = system.person("500.00"), system.seat()
    held = buyer.reserve(seat).must(200)
    assert (held["status"], held["seat_id"], held["otp_required"]) == ("HELD", seat, False)
    assert (system.seat_status(seat), system.order_status(held["order_id"])) == ("HELD", "PENDING")
    assert buyer.balance() == 500
    paid = buyer.pay(held["order_id"]).must(200)
    assert (paid["status"], paid["credits_charged"]) == ("CONFIRMED", held["price"])
    assert paid["remaining_balance"] == 500 - held["price"] == buyer.balance()
    row = system.seat_row(seat)
    assert (row["status"], row["price_paid"], str(row["owner_user_id"])) == ("SOLD", held["price"], buyer.user_id)
    assert buyer.order(held["order_id"]).must()["status"] == "CONFIRMED"


@pytest.mark.claim("schema/orders.credits_charged", "schema/events.pricing_tiers")
@pytest.mark.parametrize(("number", "price"), [(24, 350), (26, 200), (99, 120)])
def test_the_price_is_that_of_the_seats_category(system: TestSystem, number: int, price: int) -> None:
    held = system.person().reserve(f"{SEATS_OF_THE_SEED}{number:02d}").must(200)
    assert held["price"] == price


@pytest.mark.claim(
    "protocols/grpc-and-nowait",
    "lock/reserve-uses-nowait",
    "lock/loser-is-refused",
    "reserve/seat-unavailable",
    "testing/load-on-contention",
)
def test_of_200_simultaneous_reserves_one_wins_and_the_rest_are_refused_without_waiting(
    system: TestSystem,
) -> None:
    buyers, seat = system.people(200), system.seat()
    with watched_locks(system) as waiters:
        answers = run_concurrently([partial(b.reserve, seat) for b in buyers])
    assert outcomes(answers) == {"200": 1, "409 SEAT_UNAVAILABLE": 199}
    assert len(waiters) > 20
    assert Counter(waiters) == {0: len(waiters)}, "somebody waited for a lock"
    (winner,) = [b for b, a in zip(buyers, answers, strict=True) if a.status == 200]
    assert str(system.seat_row(seat)["held_by_user_id"]) == winner.user_id


@pytest.mark.claim(
    "protocols/grpc-and-nowait",
    "reserve/locks-and-holds-seat",
    "reserve/seat-unavailable",
    "lock/reserve-uses-nowait",
    "lock/loser-is-refused",
)
def test_a_seat_in_somebodys_hands_is_refused_at_once(system: TestSystem) -> None:
    buyer, seat = system.person(), system.seat()
    with closing(system.connect("seats_db")) as other, other.cursor() as cursor, watched_locks(system) as waiters:
        other.autocommit = False
        cursor.execute("SELECT FROM seats WHERE seat_id = %s FOR UPDATE", (seat,))
        answer = buyer.reserve(seat)
        other.rollback()
    assert (answer.status, answer.error_code) == (409, "SEAT_UNAVAILABLE")
    assert not any(waiters)
    buyer.reserve(seat).must(200)


@pytest.mark.claim("lock/credits-are-spent-once")
def test_30_simultaneous_pays_of_one_order_charge_once(system: TestSystem) -> None:
    buyer = system.person("1000.00")
    seat, order_id = system.held(buyer)
    answers = run_concurrently([lambda: buyer.pay(order_id)] * 30)
    assert outcomes(answers) == {"200": 30}
    assert len({a.data["remaining_balance"] for a in answers}) == 1
    assert len(charges(system, buyer.user_id)) == 1
    assert system.seat_status(seat) == "SOLD"


def test_a_pay_repeated_later_gives_the_first_answer_and_charges_nothing(system: TestSystem) -> None:
    buyer = system.person()
    _, order_id = system.held(buyer)
    first, again = buyer.pay(order_id).must(200), buyer.pay(order_id).must(200)
    named = ("order_id", "seat_id", "status", "credits_charged", "remaining_balance")
    assert [first[name] for name in named] == [again[name] for name in named]
    assert len(charges(system, buyer.user_id)) == 1


@pytest.mark.claim("lock/credits-are-spent-once", "lock/deduct-in-one-transaction")
def test_of_many_orders_paid_at_once_only_those_that_the_balance_covers_are_confirmed(system: TestSystem) -> None:
    buyer = system.person("5000.00")
    orders = [buyer.reserve(system.seat()).must(200) for _ in range(5)]
    price = orders[0]["price"]
    system.rows("users_db", "UPDATE users SET credit_balance = %s WHERE user_id = %s", price * 2, buyer.user_id)
    system.rows("users_db", "UPDATE credit_entries SET amount = %s WHERE user_id = %s", price * 2, buyer.user_id)
    answers = run_concurrently([partial(buyer.pay, o["order_id"]) for o in orders])
    assert outcomes(answers) == {"200": 2, "402 INSUFFICIENT_CREDITS": 3}
    assert system.credits(buyer) == (0, 0)


@pytest.mark.claim("pay/keeps-hold-without-credits", "pay/deducts-price", "protocols/webhook-adds-credits")
def test_who_cannot_pay_keeps_the_seat_held_and_pays_after_a_top_up(system: TestSystem) -> None:
    buyer = system.person("1.00")
    seat, order_id = system.held(buyer)
    assert outcomes([buyer.pay(order_id)]) == {"402 INSUFFICIENT_CREDITS": 1}
    assert (system.seat_status(seat), system.order_status(order_id)) == ("HELD", "PENDING")
    intent = buyer.top_up(400).must(200)
    system.pay_by_card(intent["payment_intent_id"])
    system.until("the top-up is credited", lambda: buyer.balance() == 401)
    assert buyer.pay(order_id).must(200)["status"] == "CONFIRMED"


def test_who_holds_a_seat_already_is_told_which_order_it_is(system: TestSystem) -> None:
    buyer = system.person()
    seat, order_id = system.held(buyer)
    again = buyer.reserve(seat)
    assert (again.status, again.error_code) == (409, "SEAT_UNAVAILABLE")
    assert again.envelope["details"]["order_id"] == order_id
    assert "details" not in system.person().reserve(seat).envelope


def test_a_sold_seat_a_past_event_and_an_unknown_seat_are_refused_by_name(system: TestSystem) -> None:
    buyer = system.person()
    sold = buyer.reserve(system.ticket(buyer))
    past = buyer.reserve("5ea70003-0000-0000-0000-000000000001")
    unknown = buyer.reserve("5ea70009-0000-0000-0000-000000000001")
    assert outcomes([sold, past, unknown]) == {
        "409 SEAT_ALREADY_SOLD": 1,
        "410 EVENT_ENDED": 1,
        "404 SEAT_NOT_FOUND": 1,
    }
    assert system.seat_status("5ea70003-0000-0000-0000-000000000001") == "AVAILABLE"


def test_nobody_pays_or_sees_the_order_of_another(system: TestSystem) -> None:
    buyer, stranger = system.person(), system.person()
    _, order_id = system.held(buyer)
    assert outcomes([stranger.pay(order_id), stranger.order(order_id)]) == {"403 FORBIDDEN": 2}
    nothing = "00000000-0000-4000-8000-000000000000"
    assert outcomes([buyer.pay(nothing), buyer.order(nothing)]) == {"404 ORDER_NOT_FOUND": 2}
    assert charges(system, stranger.user_id) == charges(system, buyer.user_id) == []
    assert buyer.pay(order_id).status == 200
