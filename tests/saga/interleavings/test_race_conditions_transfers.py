"""Races of transfers, disputes and scans.

the race                                                test
the seller spends everything before UpdateOwner fails   test_refused_update_owner_returns_the_credits_to_the_buyer
UpdateOwner arrives after the reversal                  test_late_update_owner_after_the_reverse_changes_nothing
a dispute of a sale that was refunded and sold again    test_dispute_is_refused_after_refund_and_resale
the owner changes during an initiation                  test_initiation_by_the_previous_owner_is_refused
an initiation during a refund                           test_initiation_during_a_refund_leaves_no_open_transfer
a dismissal while a reversal is parked                  test_dismiss_waits_while_a_reverse_is_parked
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

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
def test_refused_update_owner_returns_the_credits_to_the_buyer(engine: Engine) -> None:
    """The credits of a transfer are not spendable before its pivot. So the seller spends their 800, but not the 150."""
    case = engine.prepare(FLOWS["confirm"])

    def spend_and_be_admitted() -> None:
        for _ in range(4):
            _buy(case, "seller")
        _admit(case, "seller")

    response = engine.request(FLOWS["confirm"], case, meanwhile={PIVOT: spend_and_be_admitted})
    assert _outcome(response) == (409, "SEAT_UNAVAILABLE")
    assert (case.balance("seller"), case.balance("buyer")) == (0, 1000)
    assert _transfer_status(case) == "FAILED"
    engine.recover()


def _buy(case: Case, who: str) -> None:
    other = Case(case.system, case.app, case.inbox, case.system.new_seat(), {"buyer": case.people[who]})
    other.run("reserve").must(200)
    other.run("pay").must(200)


def _admit(case: Case, who: str) -> None:
    case.issue_qr(who)
    assert case.run("verify").must(200)["result"] == "SUCCESS"


def test_late_update_owner_after_the_reverse_changes_nothing(engine: Engine) -> None:
    """The first UpdateOwner of the transfer arrives after the transfer, its dispute and its reversal."""
    case = engine.prepare(FLOWS["confirm"])
    engine.request(FLOWS["confirm"], case, Fault(PIVOT, Kind.LATE)).must(200)
    assert case.owner() == "buyer"
    case.run("dispute").must(200)
    case.run("reverse").must(200)
    assert case.owner() == "seller", "the reversal has its own fencing token, so the late call is refused"
    engine.recover()
    assert _read_state(case) == ("SOLD", "seller", 800, 1000, "REVERSED")
    engine.assert_invariants(case)


def test_dispute_is_refused_after_refund_and_resale(engine: Engine) -> None:
    """A ticket is transferred, returned, refunded and sold again. Its old transfers belong to the first sale."""
    case = engine.prepare(FLOWS["dispute"])
    back = db_builders.Handover(case.seat, case.ids["order_id"], case.people["buyer"], case.people["seller"], AMOUNT)
    second = db_builders.complete_transfer(case.system, back)
    case.run("refund").must(200)
    third = Case(case.system, case.app, case.inbox, case.seat, {"buyer": case.system.new_user()})
    third.run("reserve").must(200)
    third.run("pay").must(200)
    for transfer in (case.ids["transfer_id"], second):
        case.ids["transfer_id"] = transfer
        assert _outcome(engine.request(FLOWS["dispute"], case)) == (409, "TRANSFER_INVALID_STATE")
    engine.recover()
    assert (third.status(), third.owner()) == ("SOLD", "buyer")
    assert [case.balance(who) for who in ("seller", "buyer")] == [1000, 1000]
    engine.assert_invariants(case, third)


def test_initiation_by_the_previous_owner_is_refused(engine: Engine) -> None:
    """The transfer completes after the second initiation has read the owner (`confirm~initiate (transfer): b6 a`)."""
    case = engine.prepare(FLOWS["confirm"])
    meanwhile = {"order POST /transfers": lambda: case.run("confirm").must(200)}
    response = engine.request(FLOWS["initiate"], case, meanwhile=meanwhile)
    engine.recover()
    assert _outcome(response) == (409, "TRANSFER_IN_PROGRESS")
    assert _read_state(case) == ("SOLD", "buyer", 950, 850, "COMPLETED")
    engine.assert_invariants(case)


@pytest.mark.parametrize("edge", ["inventory CancelSale", "user POST /credits/refund"])
def test_initiation_during_a_refund_leaves_no_open_transfer(engine: Engine, edge: str) -> None:
    """The refund has found no open transfer, and the initiation has found the seat sold."""
    case = engine.prepare(FLOWS["initiate"])
    during = {edge: lambda: engine.healthy.participants.orders.create_transfer(**_new_transfer(case))}
    engine.request(FLOWS["refund"], case, meanwhile=during).must(200)
    engine.recover()
    assert (case.status(), _transfer_status(case)) == ("AVAILABLE", "FAILED")
    engine.assert_invariants(case)


def _new_transfer(case: Case) -> dict[str, Any]:
    case.ids["transfer_id"] = str(uuid4())
    parties = {f"{who}_user_id": case.people[who] for who in ("seller", "buyer")}
    sale = {"seat_id": case.seat, "order_id": case.ids["order_id"], "transfer_id": case.ids["transfer_id"]}
    return {"key": f"initiate:{uuid4()}", "initiated_by": "SELLER", "credits_amount": AMOUNT, **parties, **sale}


def test_dismiss_waits_while_a_reverse_is_parked(engine: Engine) -> None:
    case = engine.prepare(FLOWS["reverse"])
    transfer = UUID(case.ids["transfer_id"])
    journal = engine.healthy.journal
    entry, _ = journal.begin(
        REVERSE.flow, transfer, {"transfer_id": str(transfer)}, caller=None, dispute_number=1, one_attempt=False
    )
    journal.end(entry, Status.PARKED, {"code": "SERVICE_UNAVAILABLE", "message": "parked", "details": {}})
    assert _outcome(case.run("dismiss")) == (409, "REQUEST_IN_PROGRESS")
    engine.assert_invariants(case, parked=1)


def test_dismiss_of_a_verified_transfer_does_not_complete_it(engine: Engine) -> None:
    """Both users have verified, and the process died before the saga. COMPLETED would be wrong, as nothing moved."""
    case = engine.prepare(FLOWS["confirm"])
    engine.act(FLOWS["confirm"], case, Fault("journal begin", Kind.DIES_BEFORE))
    assert _outcome(case.run("dismiss")) == (409, "TRANSFER_INVALID_STATE")
    engine.recover()
    assert (case.balance("buyer"), case.balance("seller")) == (850, 950)
    engine.assert_invariants(case)


def _outcome(response: ApiResponse) -> tuple[int, str | None]:
    return response.status, response.error_code


def _transfer_status(case: Case) -> str:
    return str(case.system.transfer(case.ids["transfer_id"])["status"])


def _read_state(case: Case) -> tuple[str, str | None, int, int, str]:
    """Status and owner of the seat, balances of seller and buyer, status of the transfer."""
    return case.status(), case.owner(), int(case.balance("seller")), int(case.balance("buyer")), _transfer_status(case)
