"""Stripe takes a payment back: refunds, disputes and cancellations, repeated and in any order."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from harness import invariants
from services.user.store import reversals
from tests.support.concurrency import run_concurrently
from tests.support.waiting import wait_until
from tests.unit.user.test_webhook import deliver, event, intent
from tests.unit.user.user_app import UserApp, status_codes

pytestmark = pytest.mark.unit

DISPUTES = ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")


@pytest.fixture(autouse=True)
def invariants_hold(users: UserApp) -> Iterator[None]:
    """After each test, the invariants of the ledger hold for all payments so far."""
    yield
    assert find_violations(users) == []


def find_violations(users: UserApp) -> list[str]:
    """Check the invariants that users_db alone decides. No order charges credits here, so I1 counts the deducts."""
    with users.db.transaction() as tx:
        tables = {table: tx.all(f"SELECT * FROM {table}") for table in invariants.TABLES["users_db"]}
    spent = [{"status": "CONFIRMED", "credits_charged": -row["amount"]} for row in tables["credit_entries"]
             if row["kind"] in ("DEDUCT", "REFUND")]  # fmt: skip
    snapshot = invariants.Snapshot(tables | {"orders": spent, "sagas": []})
    checks = (
        invariants.i1_money_is_conserved,
        invariants.i2_balances_are_their_entries,
        invariants.i8_payments_credit_once,
    )
    return [line for check in checks for line in check(snapshot)]


class Payment:
    """A credited top-up, and the events that Stripe sends about it later."""

    def __init__(self, users: UserApp, cents: int = 5000, *, user: UUID | None = None, is_paid: bool = True) -> None:
        self.users, self.cents = users, cents
        self.user = user or users.new_user("0.00")
        self.intent = intent(self.user, cents)
        self.intent_id = self.intent["id"]
        self.charge_id, self.dispute_id = f"ch_{uuid4().hex}", f"dp_{uuid4().hex}"
        self.clock = itertools.count(100)
        if is_paid:
            self.send(self.build_paid())

    def build_paid(self) -> dict[str, Any]:
        return event(self.intent, created=next(self.clock))

    def build_refunded(self, total: int, **changes: Any) -> dict[str, Any]:
        """`total` is cumulative, as in Stripe's object."""
        charge = {
            "id": self.charge_id, "object": "charge", "amount": self.cents, "amount_refunded": total, "currency": "sgd",
            "payment_intent": self.intent_id, "refunded": total == self.cents, "metadata": self.intent["metadata"],
        }  # fmt: skip
        return event(charge | changes, "charge.refunded", created=next(self.clock))

    def build_failed_refund(self, cents: int, kind: str = "refund.failed", status: str = "failed") -> dict[str, Any]:
        refund = {
            "id": f"re_{uuid4().hex}", "object": "refund", "amount": cents, "charge": self.charge_id,
            "currency": "sgd", "payment_intent": self.intent_id, "status": status,
        }  # fmt: skip
        return event(refund, kind, created=next(self.clock))

    def build_dispute(self, kind: str, status: str = "needs_response", **changes: Any) -> dict[str, Any]:
        dispute = {
            "id": self.dispute_id, "object": "dispute", "amount": self.cents, "charge": self.charge_id,
            "currency": "sgd", "payment_intent": self.intent_id, "status": status, "reason": "fraudulent",
        }  # fmt: skip
        return event(dispute | changes, f"charge.dispute.{kind}", created=next(self.clock))

    def build_canceled(self) -> dict[str, Any]:
        about = self.intent | {"status": "canceled", "amount_received": 0}
        return event(about, "payment_intent.canceled", created=next(self.clock))

    def send(self, *events: dict[str, Any]) -> None:
        assert status_codes(deliver(self.users, sent) for sent in events) == [200] * len(events)

    def spend(self, amount: str) -> str:
        key = f"pay:{uuid4()}:1:deduct"
        self.users.post("/credits/deduct", key=key, user_id=self.user, amount=Decimal(amount))
        return key

    @property
    def credits(self) -> tuple[Decimal, Decimal]:
        """The free and the frozen credits."""
        account = self.users.account(self.user)
        return account["credit_balance"], account["frozen_credits"]

    @property
    def owed(self) -> Decimal:
        sql = "SELECT coalesce(sum(owed), 0) AS owed FROM payment_reversals WHERE user_id = %(user)s"
        owed: Decimal = self.users.db.read(lambda tx: tx.only(sql, user=self.user))["owed"]
        return owed

    @property
    def entries(self) -> list[tuple[str, Decimal]]:
        """The ledger without the opening, in the order of writing, as kind and amount."""
        sql = """
            SELECT kind, amount FROM credit_entries
            WHERE user_id = %(user)s AND kind <> 'OPENING' ORDER BY created_at, ctid"""
        return [(row["kind"], row["amount"]) for row in self.users.db.read(lambda tx: tx.all(sql, user=self.user))]


def money(free: str, frozen: str = "0.00") -> tuple[Decimal, Decimal]:
    return Decimal(free), Decimal(frozen)


# Refunds


def test_refund_takes_the_credits_back(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_refunded(5000))
    assert (payment.credits, payment.owed) == (money("0.00"), 0)
    assert payment.entries == [("TOPUP", Decimal("50.00")), ("REVERSAL", Decimal("-50.00"))]


def test_partial_refunds_take_the_cumulative_amount(users: UserApp) -> None:
    payment = Payment(users)
    for total, left in ((1000, "40.00"), (1550, "34.50"), (5000, "0.00")):
        payment.send(payment.build_refunded(total))
        assert payment.credits == money(left)


def test_repeated_refund_takes_once(users: UserApp) -> None:
    payment = Payment(users)
    sent = payment.build_refunded(2000)
    payment.send(sent, sent, sent)
    assert payment.credits == money("30.00")


def test_concurrent_copies_of_a_refund_take_once(users: UserApp) -> None:
    payment = Payment(users)
    sent = payment.build_refunded(2000)
    assert status_codes(run_concurrently([lambda: deliver(users, sent)] * 5)) == [200] * 5
    assert payment.credits == money("30.00")


def test_older_refund_total_arrives_late(users: UserApp) -> None:
    payment = Payment(users)
    first, second = payment.build_refunded(1000), payment.build_refunded(3000)
    payment.send(second, first)
    assert payment.credits == money("20.00")


def test_refund_before_its_payment_is_reported(users: UserApp) -> None:
    payment = Payment(users, is_paid=False)
    paid, refunded = payment.build_paid(), payment.build_refunded(2000)
    payment.send(refunded, paid)
    assert payment.credits == money("30.00")


def test_payment_and_refund_reported_at_once(users: UserApp) -> None:
    """Neither of two concurrent events may miss the other."""
    for _ in range(5):
        payment = Payment(users, is_paid=False)
        sent = [partial(deliver, users, payment.build_paid()), partial(deliver, users, payment.build_refunded(2000))]
        assert status_codes(run_concurrently(sent)) == [200, 200]
        assert payment.credits == money("30.00")


def test_events_of_one_payment_wait_for_each_other(users: UserApp) -> None:
    payment = Payment(users, is_paid=False)
    with ThreadPoolExecutor(2) as pool:
        with users.db.transaction() as tx:
            reversals.lock_payment(tx, payment.intent_id)
            running = [
                pool.submit(deliver, users, sent) for sent in (payment.build_paid(), payment.build_refunded(2000))
            ]
            wait_until(lambda: users.count_waiting() == 2 or any(call.done() for call in running))
            assert not any(call.done() for call in running)
        assert status_codes(call.result() for call in running) == [200, 200]
    assert payment.credits == money("30.00")


@pytest.mark.parametrize("kind", ["refund.failed", "refund.updated", "charge.refund.updated"])
def test_failed_refund_gives_the_credits_back(users: UserApp, kind: str) -> None:
    payment = Payment(users)
    payment.send(payment.build_refunded(2000))
    failed = payment.build_failed_refund(2000, kind)
    payment.send(failed, failed)
    assert payment.credits == money("50.00")
    payment.send(payment.build_refunded(1000))  # a newer total already leaves out the failed refund
    assert payment.credits == money("40.00")


def test_pending_refund_update_changes_nothing(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_refunded(2000), payment.build_failed_refund(2000, "refund.updated", "succeeded"))
    assert payment.credits == money("30.00")


# Disputes


def test_dispute_freezes_the_credits(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created"))
    assert payment.credits == money("0.00", "50.00")
    assert payment.users.expect_refusal(
        "/credits/deduct", key=f"pay:{uuid4()}:1:deduct", user_id=payment.user, amount=Decimal("0.01")
    ) == "INSUFFICIENT_CREDITS"  # fmt: skip


@pytest.mark.parametrize("status", ["won", "warning_closed"])
def test_dispute_that_ends_well_gives_the_credits_back(users: UserApp, status: str) -> None:
    payment = Payment(users)
    payment.send(
        payment.build_dispute("created"),
        payment.build_dispute("funds_withdrawn"),
        payment.build_dispute("closed", status),
    )
    assert payment.credits == money("50.00")
    assert [kind for kind, _ in payment.entries] == ["TOPUP", "FREEZE", "UNFREEZE"]


def test_lost_dispute_takes_the_credits(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created"), payment.build_dispute("closed", "lost"))
    assert payment.credits == money("0.00")
    assert [kind for kind, _ in payment.entries] == ["TOPUP", "FREEZE", "UNFREEZE", "REVERSAL"]


def test_reinstated_funds_of_a_lost_dispute_come_back(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("closed", "lost"), payment.build_dispute("funds_reinstated", "won"))
    assert payment.credits == money("50.00")


def test_unknown_final_status_keeps_the_credits_frozen(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created"), payment.build_dispute("closed", "prevented"))
    assert payment.credits == money("0.00", "50.00")


def test_partial_dispute_freezes_its_amount(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created", amount=1250))
    assert payment.credits == money("37.50", "12.50")
    payment.send(payment.build_dispute("updated", amount=2000))
    assert payment.credits == money("30.00", "20.00")
    payment.send(payment.build_dispute("closed", "lost", amount=2000))
    assert payment.credits == money("30.00")


def test_late_first_event_of_a_closed_dispute_changes_nothing(users: UserApp) -> None:
    """`created` has an older time by nature, even if a test or a replay stamps it later."""
    payment = Payment(users)
    payment.send(payment.build_dispute("closed", "won"), payment.build_dispute("created"))
    assert payment.credits == money("50.00")


def test_refunded_and_disputed_payment_loses_its_amount_once(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created", "warning_needs_response"), payment.build_refunded(5000))
    assert (payment.credits, payment.owed) == (money("0.00"), 0)
    payment.send(payment.build_dispute("closed", "warning_closed"))
    assert payment.credits == money("0.00")


def test_every_order_of_the_events_ends_alike(users: UserApp) -> None:
    draw = random.Random(7)
    for _ in range(12):
        payment = Payment(users, is_paid=False)
        events = [
            payment.build_paid(),
            payment.build_refunded(500),
            payment.build_refunded(1500),
            payment.build_dispute("created", amount=2000),
            payment.build_dispute("funds_withdrawn", amount=2000),
            payment.build_failed_refund(300),
            payment.build_dispute("closed", "lost", amount=2000),
        ]
        sent = events * 2
        draw.shuffle(sent)
        payment.send(*sent)
        assert (payment.credits, payment.owed) == (money("18.00"), 0), [about["type"] for about in sent]


# Credits that were spent


def test_spent_credits_are_taken_as_far_as_they_are_there(users: UserApp, caplog: pytest.LogCaptureFixture) -> None:
    payment = Payment(users)
    payment.spend("45.00")
    with caplog.at_level(logging.INFO):
        payment.send(payment.build_refunded(5000))
    assert (payment.credits, payment.owed) == (money("0.00"), 45)
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert payment.intent_id in told.getMessage()
    assert "45.00 are owed" in told.getMessage()


def test_debt_is_collected_from_the_next_top_up(users: UserApp) -> None:
    payment = Payment(users)
    payment.spend("45.00")
    payment.send(payment.build_refunded(5000))
    Payment(users, 6000, user=payment.user)
    assert (payment.credits, payment.owed) == (money("15.00"), 0)


def test_debt_is_collected_from_a_refunded_order(users: UserApp) -> None:
    payment = Payment(users)
    charge = payment.spend("45.00")
    payment.send(payment.build_dispute("created"))
    assert (payment.credits, payment.owed) == (money("0.00", "5.00"), 45)
    users.post("/credits/refund", key=charge)
    assert (payment.credits, payment.owed) == (money("0.00", "50.00"), 0)
    payment.send(payment.build_dispute("closed", "won"))
    assert payment.credits == money("50.00")


def test_debt_is_collected_from_an_unfreeze_and_a_transfer(users: UserApp) -> None:
    payment = Payment(users)
    frozen = f"transfer_confirm:{uuid4()}:1:freeze"
    users.post("/credits/freeze", key=frozen, user_id=payment.user, amount=Decimal("50.00"))
    payment.send(payment.build_refunded(5000))
    assert (payment.credits, payment.owed) == (money("0.00", "50.00"), 50)
    users.post("/credits/unfreeze", key=frozen)
    assert (payment.credits, payment.owed) == (money("0.00"), 0)

    seller, buyer = Payment(users, 1000), users.new_user("8.00")
    seller.spend("10.00")
    seller.send(seller.build_refunded(1000))
    hold = f"transfer_confirm:{uuid4()}:1:freeze"
    users.post("/credits/freeze", key=hold, user_id=buyer, amount=Decimal("8.00"))
    users.post("/credits/transfer", key=f"{hold}:pay", hold_keys=[hold], to_user_id=seller.user)
    assert (seller.credits, seller.owed) == (money("0.00"), 2)


def test_won_dispute_cancels_the_debt(users: UserApp) -> None:
    payment = Payment(users)
    payment.spend("45.00")
    payment.send(payment.build_dispute("created"))
    payment.send(payment.build_dispute("closed", "won"))
    assert (payment.credits, payment.owed) == (money("5.00"), 0)


def test_returned_credits_pay_the_debt_of_another_payment(users: UserApp) -> None:
    won = Payment(users, 2000)
    won.send(won.build_dispute("created"))
    refunded = Payment(users, 3000, user=won.user)
    refunded.spend("30.00")
    refunded.send(refunded.build_refunded(3000))
    assert (won.credits, won.owed) == (money("0.00", "20.00"), 30)
    won.send(won.build_dispute("closed", "won"))
    assert (won.credits, won.owed) == (money("0.00"), 10)


# Cancellations and other events


def test_cancellation_of_a_credited_payment_takes_it_back(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_canceled())
    assert payment.credits == money("0.00")


@pytest.mark.parametrize("kind", ["payment_failed", "processing", "requires_action", "created"])
def test_late_event_of_an_earlier_state_takes_nothing(users: UserApp, kind: str) -> None:
    payment = Payment(users)
    payment.send(event(payment.intent, f"payment_intent.{kind}"))
    assert payment.credits == money("50.00")


FOREIGN: dict[str, Callable[[Payment], dict[str, Any]]] = {
    "refund": lambda payment: payment.build_refunded(5000),
    "failed refund": lambda payment: payment.build_failed_refund(5000),
    "canceled without metadata": lambda payment: event(payment.intent | {"metadata": {}}, "payment_intent.canceled"),
    **{f"dispute {kind}": partial(lambda payment, kind: payment.build_dispute(kind), kind=kind) for kind in DISPUTES},
    "no intent": lambda payment: payment.build_refunded(5000, payment_intent=None),
    "other currency": lambda payment: payment.build_refunded(5000, currency="usd"),
    "negative": lambda payment: payment.build_refunded(-1),
    "no number": lambda payment: payment.build_refunded(5000, amount_refunded="5000"),
}  # fmt: skip


@pytest.mark.parametrize("about", FOREIGN)
def test_foreign_event_is_acknowledged_with_one_warning(
    users: UserApp, caplog: pytest.LogCaptureFixture, about: str
) -> None:
    payment = Payment(users, is_paid=False)
    with caplog.at_level(logging.INFO):
        payment.send(FOREIGN[about](payment))
    assert [r.levelno for r in caplog.records if r.levelno >= logging.WARNING] == [logging.WARNING]
    assert (payment.credits, payment.owed, payment.entries) == (money("0.00"), 0, [])


def test_abandoned_top_up_is_no_warning(users: UserApp, caplog: pytest.LogCaptureFixture) -> None:
    payment = Payment(users, is_paid=False)
    with caplog.at_level(logging.INFO):
        payment.send(payment.build_canceled())
    assert [r.levelno for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("cents", [10**10, 10**19, 10**40])
def test_amount_beyond_the_column_is_no_500(users: UserApp, cents: int) -> None:
    payment = Payment(users)
    payment.send(event(intent(payment.user, cents)))
    assert payment.credits == money("50.00")
    payment.send(payment.build_dispute("created", amount=cents))
    assert payment.credits == money("0.00", "50.00")
    payment.send(payment.build_refunded(cents))
    assert payment.credits == money("0.00")


def test_payment_beyond_the_balance_is_no_500(users: UserApp, caplog: pytest.LogCaptureFixture) -> None:
    user = users.new_user("99999999.00")
    payment = Payment(users, 5000, user=user)
    assert payment.credits == money("99999999.00")
    assert "too much for the balance" in caplog.text
    payment.spend("99.00")
    payment.send(payment.build_paid())
    assert payment.credits == money("99999950.00")


def test_returned_credits_beyond_the_balance_are_no_500(users: UserApp, caplog: pytest.LogCaptureFixture) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created"))
    Payment(users, 99_999_980_00, user=payment.user)
    won = payment.build_dispute("closed", "won")
    payment.send(won)
    assert payment.credits == money("99999980.00", "50.00")
    assert "more than the balance can hold" in caplog.text
    payment.spend("100.00")
    payment.send(won)
    assert payment.credits == money("99999930.00")


def test_reversal_is_counted(users: UserApp) -> None:
    payment = Payment(users)
    payment.send(payment.build_dispute("created"))
    metrics = users.call_public("GET", "/metrics").text
    assert 'payment_reversals_total{kind="DISPUTE",outcome="settled"}' in metrics


@pytest.mark.negative_control
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payment_reversals SET taken = taken + 1",
        "UPDATE payment_reversals SET frozen = frozen + 1",
        "UPDATE payment_reversals SET owed = owed + 100",
        "DELETE FROM payment_reversals",
        "UPDATE credit_entries SET kind = 'DEDUCT' WHERE kind = 'REVERSAL'",
    ],
)
def test_invariant_finds_a_false_reversal(users: UserApp, change: str) -> None:
    payment = Payment(users)
    payment.send(payment.build_refunded(1000))
    with users.db.transaction() as tx:
        tx.run("CREATE TEMP TABLE saved AS SELECT * FROM payment_reversals")
        tx.run("CREATE TEMP TABLE saved_entries AS SELECT key FROM credit_entries WHERE kind = 'REVERSAL'")
        tx.run(change)
    try:
        assert find_violations(users) != []
    finally:
        with users.db.transaction() as tx:
            tx.run("DELETE FROM payment_reversals")
            tx.run("INSERT INTO payment_reversals SELECT * FROM saved")
            tx.run("UPDATE credit_entries SET kind = 'REVERSAL' WHERE key IN (SELECT key FROM saved_entries)")
            tx.run("DROP TABLE saved; DROP TABLE saved_entries")
