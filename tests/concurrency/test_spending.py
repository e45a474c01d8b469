"""Credits and tickets are spent once, although many requests try to spend them at the same time."""

from __future__ import annotations

from functools import partial

import pytest

from tests.concurrency.figures import Figures
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.concurrency, pytest.mark.usefixtures("invariants")]

PAYMENTS, GATES, ORDERS = 40, 40, 12
HALL = "HALL-B"
PAIRS = 6


@pytest.mark.claim("lock/credits-are-spent-once")
def test_40_payments_of_one_order_charge_once(system: TestSystem, figures: Figures) -> None:
    buyer = system.person("1000.00")
    seat, order_id = system.hold_seat(buyer)
    answers = run_concurrently([partial(buyer.pay, order_id)] * PAYMENTS)
    assert outcomes(answers) == {"200": PAYMENTS}
    assert len({answer.data["remaining_balance"] for answer in answers}) == 1
    price = answers[0].data["credits_charged"]
    charges = system.rows("users_db", "SELECT amount FROM credit_entries WHERE key LIKE %s", f"pay:{order_id}:%")
    assert [row["amount"] for row in charges] == [-price]
    assert system.seat_status(seat) == "SOLD"
    figures.add("concurrent payments of one order", payments=PAYMENTS, charges=len(charges))


@pytest.mark.claim("lock/deduct-in-one-transaction", "lock/credits-are-spent-once")
def test_orders_beyond_the_balance_are_not_paid(system: TestSystem, figures: Figures) -> None:
    buyer = system.person("1000000.00")
    orders = [system.hold_seat(buyer)[1] for _ in range(ORDERS)]
    price = system.rows("orders_db", "SELECT credits_charged FROM orders WHERE order_id = %s", orders[0])[0]
    affordable = ORDERS // 3
    _reduce_balance(system, buyer, buyer.balance() - affordable * price["credits_charged"] - 1)
    answers = run_concurrently([partial(buyer.pay, order_id) for order_id in orders])
    assert outcomes(answers) == {"200": affordable, "402 INSUFFICIENT_CREDITS": ORDERS - affordable}
    assert buyer.balance() == 1
    confirmed = [order_id for order_id in orders if system.order_status(order_id) == "CONFIRMED"]
    assert len(confirmed) == affordable
    figures.add("concurrent orders on one balance", orders=ORDERS, affordable=affordable, paid=len(confirmed))


def _reduce_balance(system: TestSystem, buyer: Person, amount: object) -> None:
    """Reduce the balance and its opening entry, so that the ledger stays consistent."""
    for sql in (
        "UPDATE credit_entries SET amount = amount - %s WHERE user_id = %s AND kind = 'OPENING'",
        "UPDATE users SET credit_balance = credit_balance - %s WHERE user_id = %s",
    ):
        system.rows("users_db", sql, amount, buyer.user_id)


@pytest.mark.claim("gate/admits-once")
def test_40_gates_admit_one_ticket_once(system: TestSystem, figures: Figures) -> None:
    owner = system.person()
    gates, ticket = system.people(GATES, "0.00", role="staff"), system.insert_ticket(owner)
    qr = owner.qr(ticket).must(200)["qr_payload"]
    answers = run_concurrently([partial(gate.scan, qr, HALL) for gate in gates])
    assert outcomes(answers) == {"200": GATES}
    results = sorted(answer.data["result"] for answer in answers)
    assert results == ["DUPLICATE"] * (GATES - 1) + ["SUCCESS"]
    entries = system.rows("seats_db", "SELECT result::text FROM entry_logs WHERE seat_id = %s", ticket)
    assert sorted(row["result"] for row in entries) == results
    figures.add("one ticket at many gates", gates=GATES, admitted=1)


def count_deadlocks(system: TestSystem) -> int:
    """Return how many deadlocks PostgreSQL has broken in all databases."""
    found = system.rows("postgres", "SELECT sum(deadlocks)::int AS number FROM pg_stat_database")
    return int(found[0]["number"])


def test_opposite_transfers_of_two_users_do_not_deadlock(system: TestSystem, figures: Figures) -> None:
    before = count_deadlocks(system)
    pairs = [system.people(2) for _ in range(PAIRS)]
    transfers = []
    for one, other in pairs:
        for seller, buyer, credits in ((one, other, 100), (other, one, 60)):
            transfer_id = system.start_transfer(seller, buyer, system.insert_ticket(seller), credits)
            codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
            transfers.append(partial(buyer.confirm, transfer_id, **codes))
    answers = run_concurrently(transfers)
    assert outcomes(answers) == {"200": 2 * PAIRS}
    assert {answer.data["status"] for answer in answers} == {"COMPLETED"}
    assert {(one.balance(), other.balance()) for one, other in pairs} == {(1040, 960)}
    assert count_deadlocks(system) == before
    figures.add("opposite transfers", pairs=PAIRS, deadlocks=0)
