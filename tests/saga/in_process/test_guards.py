"""One test for each guard of the orchestrator: every test here fails without its guard (see tests/mutants)."""

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
from tests.saga.in_process.in_process_system import NoRevocations, RecordedMessages
from tests.saga.in_process.scenarios import FLOWS, Case, read_state

pytestmark = pytest.mark.saga


def _read_state(case: Case) -> dict[str, Any]:
    scope = invariants.Scope([case.seat], list(case.people.values()))
    return read_state(case, invariants.read(case.system.connect, scope))


def _refusal(answer: Any) -> tuple[int, str]:
    return answer.status, answer.error_code


def test_buyer_who_has_spent_the_credits_gets_no_ticket(engine: Engine) -> None:
    case = engine.prepare(FLOWS["confirm"])
    db_builders.add_credits(case.system, case.people["buyer"], Decimal(-900))
    assert _refusal(FLOWS["confirm"].act(case, case.app)) == (402, "INSUFFICIENT_CREDITS")
    after = _read_state(case)
    assert (after["owner"], after["transfer"], after["buyer"]) == ("seller", "FAILED", (100, 0))


def test_undos_run_last_step_first(engine: Engine) -> None:
    case = engine.prepare(FLOWS["confirm"])
    undone: list[str] = []

    def observer(turn: str, _saga: Saga, step: str) -> None:
        if turn == "undoing":
            undone.append(step)

    with case.system.dbs["inventory"].transaction() as tx:  # the pivot will be refused
        tx.run("UPDATE seats SET status = 'CHECKED_IN' WHERE seat_id = %(id)s", id=case.seat)
    observed = case.system.orchestrator(Seams(publisher=RecordedMessages(), observer=observer))
    observed.journal.beat()
    assert _refusal(FLOWS["confirm"].act(case, observed.create_app(NoRevocations()))) == (409, "SEAT_UNAVAILABLE")
    assert undone == ["hold_buyers_credits", "fail_transfer"]


def test_dispute_freezes_what_the_seller_has_of_the_amount(engine: Engine) -> None:
    case = engine.prepare(FLOWS["dispute"])
    assert FLOWS["dispute"].act(case, case.app).must(200)["credits_frozen"] == 150
    assert _read_state(case)["seller"] == (800, 150)
    engine.assert_invariants(case)


def test_dismissed_dispute_gives_the_seller_the_frozen_credits_back(engine: Engine) -> None:
    case = engine.prepare(FLOWS["dismiss"])
    FLOWS["dismiss"].act(case, case.app).must(200)
    assert _read_state(case)["seller"] == (950, 0)
    engine.assert_invariants(case)


def test_refund_returns_the_charge_once_unless_a_transfer_is_open(engine: Engine) -> None:
    case = engine.prepare(FLOWS["confirm"])
    assert _refusal(FLOWS["refund"].act(case, case.app)) == (409, "ORDER_NOT_REFUNDABLE")
    case = engine.prepare(FLOWS["refund"])
    for _ in range(2):
        FLOWS["refund"].act(case, case.app).must(200)
    assert _read_state(case) == {
        "seat": "AVAILABLE",
        "owner": None,
        "order": "REFUNDED",
        "transfer": None,
        "buyer": (1000, 0),
    }


def test_refund_names_the_staff_member_in_the_journal(engine: Engine) -> None:
    case = engine.prepare(FLOWS["refund"])
    FLOWS["refund"].act(case, case.app).must(200)
    sql = "SELECT given, audit.staff_id::text AS by FROM sagas JOIN audit USING (saga_id) WHERE flow = 'refund'"
    [begun] = case.system.dbs["orchestrator"].read(lambda tx: tx.all(sql))
    assert begun["by"] == begun["given"]["staff_id"] == str(case.people["staff"])


def test_flagged_buyer_pays_after_the_code_and_not_before(engine: Engine) -> None:
    case = engine.prepare(FLOWS["verify-otp"])
    assert _refusal(FLOWS["pay"].act(case, case.app)) == (428, "OTP_REQUIRED")
    FLOWS["verify-otp"].act(case, case.app).must(200)
    FLOWS["pay"].act(case, case.app).must(200)


def test_stranger_sees_and_verifies_nothing_of_anothers_order(engine: Engine) -> None:
    case = engine.prepare(FLOWS["verify-otp"])
    case.people["stranger"] = case.system.new_user()
    stranger = case.caller("stranger")
    body = {"order_id": case.ids["order_id"], "otp_code": case.ids["code"]}
    assert _refusal(stranger.get(f"/api/orders/{case.ids['order_id']}")) == (403, "FORBIDDEN")
    assert _refusal(stranger.post("/api/verify-otp", body)) == (403, "FORBIDDEN")
    for_other = {"seat_id": case.seat, "user_id": case.people["buyer"]}
    assert _refusal(stranger.post("/api/reserve", for_other)) == (403, "FORBIDDEN")


def test_stranger_has_no_part_in_anothers_transfer(engine: Engine) -> None:
    case = engine.prepare(FLOWS["confirm"])
    case.people["stranger"] = case.system.new_user()
    transfer = {"transfer_id": case.ids["transfer_id"]}
    for verb, more in (("confirm", {"seller_otp": case.ids["seller_code"]}), ("cancel", {})):
        assert _refusal(case.caller("stranger").post(f"/api/transfer/{verb}", transfer | more)) == (403, "FORBIDDEN")


def test_ticket_is_shown_to_its_owner_alone(engine: Engine) -> None:
    case = engine.prepare(FLOWS["verify"])
    case.people["stranger"] = case.system.new_user()
    assert _refusal(case.caller("stranger").get(f"/api/tickets/{case.seat}/qr")) == (403, "NOT_SEAT_OWNER")


def test_pay_with_an_unknown_pivot_is_left_to_recovery(engine: Engine) -> None:
    """The pivot succeeds, but its reply is lost and Settle fails. No undo may run, and the client gets a 503."""
    case = engine.prepare(FLOWS["pay"])
    lost = Fault("inventory ConfirmSeat", Kind.MUTE)
    assert engine.request(FLOWS["pay"], case, lost, Fault("inventory Settle", Kind.DOWN)).status == 503
    assert case.system.credits(case.people["buyer"])[0] == 800
    engine.recover()
    assert _read_state(case)["seat"] == "SOLD"
    engine.assert_invariants(case)
