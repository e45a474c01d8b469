"""What each guard of the orchestrator is for, in the system of one process: every test here fails without its guard."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from harness import invariants
from services.orchestrator.app import Seams
from services.orchestrator.saga.definition import Saga
from tests.saga.in_process import db_builders
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.faults import Fault, Kind
from tests.saga.in_process.in_process_system import NeverRevoked, Published
from tests.saga.in_process.scenarios import FLOWS, Case, read_state

pytestmark = pytest.mark.saga


def _scope(case: Case) -> invariants.Scope:
    return invariants.Scope([case.seat], list(case.people.values()))


def _standing(case: Case) -> dict[str, Any]:
    return read_state(case, invariants.read(case.system.connect, _scope(case)))


def _hold_invariants(case: Case) -> None:
    assert not invariants.find_violations(case.system.connect, scope=_scope(case))


def _refusal(answer: Any) -> tuple[int, str]:
    return answer.status, answer.error_code


def test_buyer_who_has_spent_the_credits_gets_no_ticket(engine: Engine) -> None:
    case = engine.prepared(FLOWS["confirm"])
    db_builders.give(case.system, case.people["buyer"], Decimal(-900))
    assert _refusal(FLOWS["confirm"].act(case, case.app)) == (402, "INSUFFICIENT_CREDITS")
    after = _standing(case)
    assert (after["owner"], after["transfer"], after["buyer"]) == ("seller", "FAILED", (100, 0))


def test_undos_run_last_step_first(engine: Engine) -> None:
    case = engine.prepared(FLOWS["confirm"])
    turns: list[str] = []

    def observer(turn: str, _saga: Saga, step: str) -> None:
        if turn == "undoing":
            turns.append(step)

    with case.system.dbs["inventory"].transaction() as tx:  # the pivot is refused: a guest has gone in
        tx.run("UPDATE seats SET status = 'CHECKED_IN' WHERE seat_id = %(id)s", id=case.seat)
    watched = case.system.orchestrator(Seams(publisher=Published(), observer=observer))
    watched.journal.beat()
    assert _refusal(FLOWS["confirm"].act(case, watched.create_app(NeverRevoked()))) == (409, "SEAT_UNAVAILABLE")
    assert turns == ["hold_buyers_credits", "fail_transfer"]


def test_dispute_freezes_what_the_seller_has_of_the_amount(engine: Engine) -> None:
    case = engine.prepared(FLOWS["dispute"])
    assert FLOWS["dispute"].act(case, case.app).must(200)["credits_frozen"] == 150
    assert _standing(case)["seller"] == (800, 150)
    _hold_invariants(case)


def test_dismissed_dispute_gives_the_seller_the_frozen_credits_back(engine: Engine) -> None:
    case = engine.prepared(FLOWS["dismiss"])
    FLOWS["dismiss"].act(case, case.app).must(200)
    assert _standing(case)["seller"] == (950, 0)
    _hold_invariants(case)


def test_refund_returns_the_charge_once_and_only_while_no_transfer_is_open(engine: Engine) -> None:
    case = engine.prepared(FLOWS["confirm"])
    assert _refusal(FLOWS["refund"].act(case, case.app)) == (409, "ORDER_NOT_REFUNDABLE")
    case = engine.prepared(FLOWS["refund"])
    for _ in range(2):
        FLOWS["refund"].act(case, case.app).must(200)
    assert _standing(case) == {
        "seat": "AVAILABLE",
        "owner": None,
        "order": "REFUNDED",
        "transfer": None,
        "buyer": (1000, 0),
    }


def test_flagged_buyer_pays_after_the_code_and_not_before(engine: Engine) -> None:
    case = engine.prepared(FLOWS["verify-otp"])
    assert _refusal(FLOWS["pay"].act(case, case.app)) == (428, "OTP_REQUIRED")
    FLOWS["verify-otp"].act(case, case.app).must(200)
    FLOWS["pay"].act(case, case.app).must(200)


def test_stranger_sees_and_verifies_nothing_of_anothers_order(engine: Engine) -> None:
    case = engine.prepared(FLOWS["verify-otp"])
    case.people["stranger"] = case.system.new_user()
    asked = case.caller("stranger")
    body = {"order_id": case.ids["order_id"], "otp_code": case.ids["code"]}
    assert _refusal(asked.get(f"/api/orders/{case.ids['order_id']}")) == (403, "FORBIDDEN")
    assert _refusal(asked.post("/api/verify-otp", body)) == (403, "FORBIDDEN")
    named = {"seat_id": case.seat, "user_id": case.people["buyer"]}
    assert _refusal(asked.post("/api/reserve", named)) == (403, "FORBIDDEN")


def test_stranger_has_no_part_in_anothers_transfer(engine: Engine) -> None:
    case = engine.prepared(FLOWS["confirm"])
    case.people["stranger"] = case.system.new_user()
    transfer = {"transfer_id": case.ids["transfer_id"]}
    for verb, more in (("confirm", {"seller_otp": case.ids["seller_code"]}), ("cancel", {})):
        assert _refusal(case.caller("stranger").post(f"/api/transfer/{verb}", transfer | more)) == (403, "FORBIDDEN")


def test_ticket_is_shown_to_its_owner_alone(engine: Engine) -> None:
    case = engine.prepared(FLOWS["verify"])
    case.people["stranger"] = case.system.new_user()
    assert _refusal(case.caller("stranger").get(f"/api/tickets/{case.seat}/qr")) == (403, "NOT_SEAT_OWNER")


def test_pay_that_cannot_tell_whether_it_sold_leaves_that_to_recovery(engine: Engine) -> None:
    """The pivot happened, its reply and the settlement's stay out: no undo may run, and the client is told to look."""
    case = engine.prepared(FLOWS["pay"])
    lost = Fault("inventory ConfirmSeat", Kind.MUTE)
    told = engine.act(FLOWS["pay"], case, lost, Fault("inventory Settle", Kind.DOWN))
    assert told is not None
    assert told.status == 503
    assert case.system.credits(case.people["buyer"])[0] == 800
    engine.settle()
    assert _standing(case)["seat"] == "SOLD"
    _hold_invariants(case)
