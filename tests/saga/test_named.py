"""The cases that a reviewer asks for by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from harness import invariants
from services.orchestrator.journal import Status
from services.orchestrator.sagas import PAY, REVERSE
from tests.saga import states
from tests.saga.engine import Engine
from tests.saga.faults import Fault, Kind
from tests.saga.scenarios import FLOWS, Case, Flow

pytestmark = pytest.mark.saga


def _hold_invariants(engine: Engine, *cases: Case, parked: int = 0) -> None:
    scope = invariants.Scope([c.seat for c in cases], [user for c in cases for user in c.people.values()])
    found = invariants.violations(engine.world.connect, scope=scope, parked=parked)
    assert not found, found


def _balance(case: Case, who: str) -> Any:
    return case.world.credits(case.people[who])[0]


def _balance_of(case: Case, user: UUID) -> Any:
    return case.world.credits(user)[0]


def _again(case: Case, name: str) -> Flow:
    """A flow's request, on a case that is prepared already."""
    return Flow(name, lambda _: None, FLOWS[name].act)


@pytest.mark.claim("5.matrix.5")
def test_confirm_seat_arriving_after_the_refund_is_refused(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    told = engine.act(_again(case, "pay"), case, Fault("inventory ConfirmSeat", Kind.LATE_GIVES_UP))
    assert told is not None
    assert told.status == 500
    assert _balance(case, "buyer") == 1000, "the charge is back before the late message comes"
    engine.settle()
    assert case.world.seat(case.seat)["status"] == "HELD"
    _hold_invariants(engine, case)


def test_lost_reply_of_the_pivot_sells_once_and_charges_once(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    told = engine.act(_again(case, "pay"), case, Fault("inventory ConfirmSeat", Kind.LOST_GIVES_UP))
    engine.settle()
    assert told is not None
    assert told.status == 200
    assert (case.world.seat(case.seat)["status"], _balance(case, "buyer")) == ("SOLD", 800)
    _hold_invariants(engine, case)


def test_expired_hold_taken_over_while_its_pay_is_in_flight_ends_with_one_seat_and_one_refund(engine: Engine) -> None:
    """The first pay dies before its pivot; the hold expires; somebody else buys the seat; then recovery comes."""
    case = engine.prepared(FLOWS["pay"])
    engine.act(_again(case, "pay"), case, Fault("inventory ConfirmSeat", Kind.DIES_BEFORE))
    case.world.expire_hold(case.seat)
    case.people["second"] = case.world.new_user()
    order = case.caller("second").post("/api/reserve", {"seat_id": case.seat}).must(200)["order_id"]
    case.caller("second").post("/api/pay", {"order_id": order}).must(200)
    engine.settle()
    assert case.world.seat(case.seat)["owner_user_id"] == case.people["second"]
    assert (_balance(case, "buyer"), _balance(case, "second")) == (1000, 800)
    _hold_invariants(engine, case)


def test_same_pay_many_times_at_once_charges_once(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: FLOWS["pay"].act(case, case.app), range(8)))
    assert {answer.status for answer in answers} == {200}
    assert _balance(case, "buyer") == 800
    _hold_invariants(engine, case)


@pytest.mark.claim("6.matrix.6")
def test_owner_change_refused_after_the_seller_spent_everything_gives_the_buyer_all_back(engine: Engine) -> None:
    case = engine.prepared(FLOWS["confirm"])
    other = Case(case.world, case.app, case.inbox, case.world.new_seat(), {"buyer": case.people["seller"]})
    FLOWS["reserve"].act(other, case.app).must(200)
    FLOWS["pay"].act(other, case.app).must(200)  # 600 left
    gate = engine.prepared(FLOWS["verify"])
    gate.seat, gate.people = case.seat, {**gate.people, "buyer": case.people["seller"]}
    qr = gate.caller("buyer").get(f"/api/tickets/{case.seat}/qr").must(200)["qr_payload"]
    gate.caller("staff").post("/api/verify", {"qr_payload": qr, "hall_id": "HALL-A"}).must(200)
    told = FLOWS["confirm"].act(case, case.app)
    assert (told.status, told.error_code) == (409, "SEAT_UNAVAILABLE")
    assert (_balance(case, "buyer"), _balance(case, "seller")) == (1000, 600)
    transfer = case.world.transfer_of(case.seat)
    assert transfer is not None
    assert transfer["status"] == "FAILED"


def test_seat_scanned_before_its_pay_is_settled_stays_paid_for(engine: Engine) -> None:
    """The pivot is done and the process dies: the seat is SOLD, the saga not ended; the gate may admit, once."""
    case = engine.prepared(FLOWS["pay"])
    engine.act(_again(case, "pay"), case, Fault("inventory ConfirmSeat", Kind.DIES_AFTER))
    case.people["staff"] = case.world.new_user("0.00", role="staff")
    qr = case.caller("buyer").get(f"/api/tickets/{case.seat}/qr").must(200)["qr_payload"]
    scan = case.caller("staff").post("/api/verify", {"qr_payload": qr, "hall_id": "HALL-A"}).must(200)
    assert scan["result"] == "SUCCESS"
    engine.settle()
    assert (case.world.seat(case.seat)["status"], _balance(case, "buyer")) == ("CHECKED_IN", 800)
    _hold_invariants(engine, case)


def test_duplicate_of_a_refused_deduct_after_a_top_up_stays_refused(engine: Engine) -> None:
    """The refusal is the key's answer; only the next attempt has a key of its own."""
    case = engine.prepared(FLOWS["pay"])
    to, poor = engine.preparer.to, case.world.new_user("10.00")
    key = f"pay:{uuid4()}:1:deduct_credits"
    for _ in range(2):
        with pytest.raises(Exception, match="INSUFFICIENT_CREDITS"):
            to.users.deduct(key, str(poor), Decimal(200))
        if not _balance_of(case, poor) > 10:
            states.give(case.world, poor, Decimal(490))
    assert to.users.deduct(key.replace(":1:", ":2:"), str(poor), Decimal(200))["credit_balance"] == 300


def test_dismiss_waits_while_a_reverse_is_parked(engine: Engine) -> None:
    case = engine.prepared(FLOWS["reverse"])
    transfer = UUID(case.ids["transfer_id"])
    journal = engine.preparer.journal
    entry, _ = journal.begin(
        REVERSE.flow, transfer, {"transfer_id": str(transfer)}, caller=None, round_=1, one_attempt=False
    )
    journal.end(entry, Status.PARKED, {"code": "SERVICE_UNAVAILABLE", "message": "parked", "details": {}})
    told = FLOWS["dismiss"].act(case, case.app)
    assert (told.status, told.error_code) == (409, "REQUEST_IN_PROGRESS")
    _hold_invariants(engine, case, parked=1)


def test_dismiss_of_a_verified_transfer_does_not_complete_it(engine: Engine) -> None:
    """Both have verified and the process died before the swap: COMPLETED now would be a swap that never ran."""
    case = engine.prepared(FLOWS["confirm"])
    engine.act(_again(case, "confirm"), case, Fault("journal begin", Kind.DIES_BEFORE))
    told = FLOWS["dismiss"].act(case, case.app)
    assert (told.status, told.error_code) == (409, "TRANSFER_INVALID_STATE")
    engine.settle()
    assert (_balance(case, "buyer"), _balance(case, "seller")) == (850, 950)
    _hold_invariants(engine, case)


def test_stranger_neither_joins_nor_learns_the_answer_of_a_pay(engine: Engine) -> None:
    case = engine.prepared(FLOWS["pay"])
    case.people["stranger"] = case.world.new_user()
    order = {"order_id": case.ids["order_id"]}
    before = case.caller("stranger").post("/api/pay", order)
    FLOWS["pay"].act(case, case.app).must(200)
    after = case.caller("stranger").post("/api/pay", order)
    assert [(a.status, a.error_code) for a in (before, after)] == [(403, "FORBIDDEN")] * 2
    assert PAY.flow == "pay"
    _hold_invariants(engine, case)


@pytest.mark.claim("13.levels.5")
def test_saga_that_keeps_failing_is_parked_with_what_is_at_stake(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    case = engine.prepared(FLOWS["pay"])
    engine.act(_again(case, "pay"), case, Fault("inventory ConfirmSeat", Kind.DIES_BEFORE))
    with case.world.dbs["orchestrator"].transaction() as tx:
        tx.run("UPDATE sagas SET park_after = clock_timestamp() - interval '1 second' WHERE status = 'RUNNING'")
    with case.world.dbs["user"].transaction() as tx:  # the undo of the charge cannot get at the row
        tx.only("SELECT 1 FROM users WHERE user_id = %(id)s FOR UPDATE", id=case.people["buyer"])
        case.world.impatient_rescue()
    [parked] = [saga for saga in case.world.parked() if saga["flow"] == "pay"]
    assert {line.levelname for line in caplog.records if line.getMessage().startswith("PARKED pay")} == {"CRITICAL"}
    assert parked["result"]["details"] == {
        "subject": case.ids["order_id"],
        "price": "200.00",
        "buyer_id": str(case.people["buyer"]),
        "seat_id": str(case.seat),
        "order_id": case.ids["order_id"],
    }
    told = FLOWS["pay"].act(case, case.app)
    assert told.status == 503, "a parked saga keeps its subject"
    assert engine.world.admin().retry(parked["saga_id"])
    engine.settle()
    assert _balance(case, "buyer") == 1000
    _hold_invariants(engine, case)


def test_refund_that_died_unread_leaves_a_sale_whose_transfer_is_open(engine: Engine) -> None:
    """It had begun and read nothing: whoever adopts it may not cancel a sale that a transfer is waiting for."""
    case = engine.prepared(FLOWS["confirm"])
    assert engine.act(_again(case, "refund"), case, Fault("journal begin", Kind.DIES_AFTER)) is None
    engine.settle()
    assert case.world.seat(case.seat)["status"] == "SOLD"
    assert FLOWS["confirm"].act(case, case.app).status == 200, "the transfer goes on as if nothing had been"
    _hold_invariants(engine, case)
