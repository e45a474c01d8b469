"""The cases that a reviewer asks for by name: what concerns transfers, disputes and the gate. See `test_named.py`.

A reviewer's words                                      the test
UpdateOwner refused after the seller spent everything   test_owner_change_refused_after_the_seller_spent_everything_…
dispute ∥ onward transfer                               test_dispute_before_the_second_code_…, …_during_the_swap_…
transfer ∥ scan                                         test_guest_admitted_…, test_ticket_handed_on_…
a scan between both OTPs and the swap                   test_scan_between_both_codes_and_the_swap_…
reverse ∥ dismiss                                       test_dismiss_during_a_reverse_…, test_reverse_during_a_dismiss_…
reverse after swap under one token                      test_late_swap_after_the_reverse_…
a dispute of a sale that was refunded and sold again    test_dispute_of_a_sale_that_was_refunded_and_sold_again_…
dismiss while a reverse is parked                       test_dismiss_waits_while_a_reverse_is_parked
"""

from __future__ import annotations

from uuid import UUID

import pytest

from harness.api_client import ApiResponse
from services.orchestrator.saga.flows import REVERSE
from services.orchestrator.saga.journal import Status
from tests.saga.in_process import db_builders
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.scenarios import AMOUNT, FLOWS, Case

pytestmark = pytest.mark.saga

PIVOT = "inventory UpdateOwner"


@pytest.mark.claim("transfer/refunds-when-owner-refused")
def test_owner_change_refused_after_the_seller_spent_everything_gives_the_buyer_all_back(engine: Engine) -> None:
    """No credit of a swap is spendable before its pivot: the seller's 800 are gone, the buyer's 150 are not."""
    case = engine.prepared(FLOWS["confirm"])

    def spend_and_enter() -> None:
        for _ in range(4):
            _buy(case, "seller")
        _enter(case, "seller")

    told = engine.act(FLOWS["confirm"], case, meanwhile={PIVOT: spend_and_enter})
    assert _said(told) == (409, "SEAT_UNAVAILABLE")
    assert (case.balance("seller"), case.balance("buyer")) == (0, 1000)
    assert _transfer(case) == "FAILED"
    engine.settle()


def _buy(case: Case, who: str) -> None:
    other = Case(case.system, case.app, case.inbox, case.system.new_seat(), {"buyer": case.people[who]})
    other.run("reserve").must(200)
    other.run("pay").must(200)


def _enter(case: Case, who: str) -> None:
    case.take_qr(who)
    assert case.run("verify").must(200)["result"] == "SUCCESS"


def test_dispute_before_the_second_code_fails_the_onward_transfer(engine: Engine) -> None:
    case = engine.prepared(FLOWS["dispute"])
    onward = _onward(case)
    second_code = "order POST /transfers/{id}/otp-attempts#2"
    told = engine.act(FLOWS["confirm"], onward, meanwhile={second_code: lambda: case.run("dispute").must(200)})
    engine.settle()
    assert _said(told) == (409, "TRANSFER_INVALID_STATE")
    assert [case.system.transfer(one.ids["transfer_id"])["status"] for one in (case, onward)] == ["DISPUTED", "FAILED"]
    assert (case.owner(), onward.balance("buyer")) == ("buyer", 1000)
    engine.hold_invariants(case, onward)


def test_dispute_during_the_swap_of_the_onward_transfer_comes_too_late(engine: Engine) -> None:
    case = engine.prepared(FLOWS["dispute"])
    onward, disputes = _onward(case), []
    engine.succeed(FLOWS["confirm"], onward, meanwhile={PIVOT: lambda: disputes.append(case.run("dispute"))})
    engine.settle()
    assert [_said(dispute) for dispute in disputes] == [(409, "TRANSFER_INVALID_STATE")]
    assert (onward.owner(), onward.balance("buyer"), onward.balance("seller")) == ("buyer", 850, 1000)
    engine.hold_invariants(case, onward)


def _onward(case: Case) -> Case:
    """The buyer of a completed transfer hands on to a third; both codes are out."""
    people = {"seller": case.people["buyer"], "buyer": case.system.new_user()}
    handover = db_builders.Handover(case.seat, case.ids["order_id"], people["seller"], people["buyer"], AMOUNT)
    sids, codes = zip(*(case.system.send_code(user) for user in people.values()), strict=True)
    ids = {"transfer_id": db_builders.initiate(case.system, handover, *sids)}
    ids |= {"seller_code": codes[0], "buyer_code": codes[1]}
    return Case(case.system, case.app, case.inbox, case.seat, people, ids)


@pytest.mark.parametrize("edge", [PIVOT, "user POST /credits/freeze"])
def test_guest_admitted_during_the_transfer_keeps_the_ticket_and_the_buyer_the_credits(
    engine: Engine, edge: str
) -> None:
    case = engine.prepared(FLOWS["confirm"])
    told = engine.act(FLOWS["confirm"], case, meanwhile={edge: lambda: _enter(case, "seller")})
    engine.settle()
    assert _said(told) == (409, "SEAT_UNAVAILABLE")
    assert _stands(case) == ("CHECKED_IN", "seller", 800, 1000, "FAILED")
    engine.hold_invariants(case)


def test_scan_between_both_codes_and_the_swap_wins(engine: Engine) -> None:
    """Both have verified, nothing is written of the swap: the seller is still the owner, and is let in."""
    case = engine.prepared(FLOWS["confirm"])
    told = engine.act(FLOWS["confirm"], case, meanwhile={"journal begin": lambda: _enter(case, "seller")})
    engine.settle()
    assert _said(told) == (409, "SEAT_UNAVAILABLE")
    assert _stands(case) == ("CHECKED_IN", "seller", 800, 1000, "FAILED")
    engine.hold_invariants(case)


def test_ticket_handed_on_during_the_scan_admits_nobody_with_the_old_qr(engine: Engine) -> None:
    """The gate has read the seller as owner; before it admits, the swap is done: checked again under the lock."""
    case = engine.prepared(FLOWS["confirm"])
    case.take_qr("seller")
    swap = {"inventory MarkCheckedIn": lambda: case.run("confirm").must(200)}
    told = engine.act(FLOWS["verify"], case, meanwhile=swap)
    engine.settle()
    assert told is not None
    assert told.must(200)["result"] == "NOT_OWNER"
    assert _stands(case) == ("SOLD", "buyer", 950, 850, "COMPLETED")
    engine.hold_invariants(case)


@pytest.mark.parametrize("edge", ["order GET /transfers/{id}#2", PIVOT, "journal end"])
def test_dismiss_during_a_reverse_is_told_to_wait(engine: Engine, edge: str) -> None:
    case, dismissals = engine.prepared(FLOWS["reverse"]), []
    engine.succeed(FLOWS["reverse"], case, meanwhile={edge: lambda: dismissals.append(case.run("dismiss"))})
    engine.settle()
    assert [_said(dismissal) for dismissal in dismissals] == [(409, "REQUEST_IN_PROGRESS")]
    assert _stands(case) == ("SOLD", "seller", 800, 1000, "REVERSED")
    engine.hold_invariants(case)


@pytest.mark.parametrize("edge", ["order PATCH /transfers/{id}", "user POST /credits/unfreeze", "journal end"])
def test_reverse_during_a_dismiss_is_told_to_wait(engine: Engine, edge: str) -> None:
    case, reversals = engine.prepared(FLOWS["dismiss"]), []
    engine.succeed(FLOWS["dismiss"], case, meanwhile={edge: lambda: reversals.append(case.run("reverse"))})
    engine.settle()
    assert [_said(reversal) for reversal in reversals] == [(409, "REQUEST_IN_PROGRESS")]
    assert _stands(case) == ("SOLD", "buyer", 950, 850, "COMPLETED")
    engine.hold_invariants(case)


def test_late_swap_after_the_reverse_moves_nothing(engine: Engine) -> None:
    """The swap's first UpdateOwner is held back by the network until swap, dispute and reverse are through."""
    case = engine.prepared(FLOWS["confirm"])
    engine.succeed(FLOWS["confirm"], case, Fault(PIVOT, Kind.LATE))
    assert case.owner() == "buyer"
    case.run("dispute").must(200)
    case.run("reverse").must(200)
    assert case.owner() == "seller", "the reverse has a token of its own: the swap's answer is not its own"
    engine.settle()
    assert _stands(case) == ("SOLD", "seller", 800, 1000, "REVERSED")
    engine.hold_invariants(case)


def test_dispute_of_a_sale_that_was_refunded_and_sold_again_is_refused(engine: Engine) -> None:
    """Handed on, handed back, refunded, and sold to a third: the old transfers are of a sale that is over."""
    case = engine.prepared(FLOWS["dispute"])
    back = db_builders.Handover(case.seat, case.ids["order_id"], case.people["buyer"], case.people["seller"], AMOUNT)
    second = db_builders.hand_over(case.system, back)
    case.run("refund").must(200)
    third = Case(case.system, case.app, case.inbox, case.seat, {"buyer": case.system.new_user()})
    third.run("reserve").must(200)
    third.run("pay").must(200)
    for transfer in (case.ids["transfer_id"], second):
        case.ids["transfer_id"] = transfer
        assert _said(engine.act(FLOWS["dispute"], case)) == (409, "TRANSFER_INVALID_STATE")
    engine.settle()
    assert (third.status(), third.owner()) == ("SOLD", "buyer")
    assert [case.balance(who) for who in ("seller", "buyer")] == [1000, 1000]
    engine.hold_invariants(case, third)


def test_dismiss_waits_while_a_reverse_is_parked(engine: Engine) -> None:
    case = engine.prepared(FLOWS["reverse"])
    transfer = UUID(case.ids["transfer_id"])
    journal = engine.preparer.journal
    entry, _ = journal.begin(
        REVERSE.flow, transfer, {"transfer_id": str(transfer)}, caller=None, dispute_number=1, one_attempt=False
    )
    journal.end(entry, Status.PARKED, {"code": "SERVICE_UNAVAILABLE", "message": "parked", "details": {}})
    assert _said(case.run("dismiss")) == (409, "REQUEST_IN_PROGRESS")
    engine.hold_invariants(case, parked=1)


def test_dismiss_of_a_verified_transfer_does_not_complete_it(engine: Engine) -> None:
    """Both have verified and the process died before the swap: COMPLETED now would be a swap that never ran."""
    case = engine.prepared(FLOWS["confirm"])
    engine.act(FLOWS["confirm"], case, Fault("journal begin", Kind.DIES_BEFORE))
    assert _said(case.run("dismiss")) == (409, "TRANSFER_INVALID_STATE")
    engine.settle()
    assert (case.balance("buyer"), case.balance("seller")) == (850, 950)
    engine.hold_invariants(case)


def _said(answer: ApiResponse | None) -> tuple[int, str | None]:
    assert answer is not None
    return answer.status, answer.error_code


def _transfer(case: Case) -> str:
    return str(case.system.transfer(case.ids["transfer_id"])["status"])


def _stands(case: Case) -> tuple[str, str | None, int, int, str]:
    """Seat, owner, the seller's and the buyer's balance, transfer."""
    return case.status(), case.owner(), int(case.balance("seller")), int(case.balance("buyer")), _transfer(case)
