"""Races of two requests about one ticket: exactly one of them wins, and credits and owner agree."""

from __future__ import annotations

from functools import partial

import pytest

from harness.api_client import ApiResponse
from tests.e2e.test_transfers import make_parties, read_owner
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

repeat = pytest.mark.parametrize("nth", range(3))  # because the order of two requests varies


def get_codes(system: TestSystem, seller: Person, buyer: Person) -> dict[str, str]:
    """Get the codes of both parties."""
    return {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}


def read_status(system: TestSystem, transfer_id: str) -> str:
    """Read the status of a transfer."""
    return str(system.transfer_row(transfer_id)["status"])


def await_status(system: TestSystem, transfer_id: str) -> str:
    """Wait until no saga of a transfer runs, and return its status."""
    sql = "SELECT 1 FROM sagas WHERE subject = %s AND status = 'RUNNING'"
    system.wait_until("its sagas have ended", lambda: not system.rows("sagas_db", sql, transfer_id))
    return read_status(system, transfer_id)


@repeat
def test_confirm_against_confirm_moves_credits_once(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    codes = get_codes(system, seller, buyer)
    answers = run_concurrently([partial(w.confirm, transfer_id, **codes) for w in (seller, buyer)])
    assert await_status(system, transfer_id) == "COMPLETED", answers
    assert any(a.status == 200 and a.data["status"] == "COMPLETED" for a in answers)
    assert outcomes(answers).keys() <= {"200", "410 OTP_EXPIRED"}, answers  # because SMU accepts a code once
    assert (read_owner(system, seat), seller.balance(), buyer.balance()) == (buyer.user_id, 100, 400)


@pytest.mark.claim("transfer/changes-all-or-nothing")
@repeat
def test_confirms_of_both_parties_at_once_complete_once(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    codes = get_codes(system, seller, buyer)
    answers = run_concurrently(
        [
            lambda: seller.confirm(transfer_id, seller_otp=codes["seller_otp"]),
            lambda: buyer.confirm(transfer_id, buyer_otp=codes["buyer_otp"]),
        ]
    )
    assert outcomes(answers) == {"200": 2}
    system.wait_until("it is completed", lambda: read_status(system, transfer_id) == "COMPLETED")
    assert (read_owner(system, seat), seller.balance(), buyer.balance()) == (buyer.user_id, 100, 400)


@repeat
def test_reverse_against_reverse_refunds_once(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.dispute_transfer(seller, buyer, seat)
    answers = run_concurrently([lambda: system.staff().transfer("reverse", transfer_id)] * 4)
    assert outcomes(answers) == {"200": 4}
    assert (read_owner(system, seat), seller.balance(), buyer.balance()) == (seller.user_id, 0, 500)


@repeat
def test_reverse_against_dismiss_decides_once(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id, staff = system.dispute_transfer(seller, buyer, seat), system.staff()
    answers = run_concurrently([partial(staff.transfer, verb, transfer_id) for verb in ("reverse", "dismiss")])
    assert sorted(a.status for a in answers) == [200, 409], answers
    decided = await_status(system, transfer_id)
    owner = seller if decided == "REVERSED" else buyer
    credits = (0, 500) if decided == "REVERSED" else (100, 400)
    assert (read_owner(system, seat), (seller.balance(), buyer.balance())) == (owner.user_id, credits)


def test_dispute_against_dispute_freezes_once(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.complete_transfer(seller, buyer, seat)
    answers = run_concurrently([partial(w.transfer, "dispute", transfer_id, reason="odd") for w in [seller, buyer] * 2])
    assert outcomes(answers).keys() <= {"200", "409 TRANSFER_INVALID_STATE"}
    assert await_status(system, transfer_id) == "DISPUTED"
    assert system.credits(seller) == (0, 100)


@repeat
def test_refund_against_initiate_completes_only_one(system: TestSystem, nth: int) -> None:
    """A transfer of a refunded seat never completes."""
    seller, buyer, staff = system.person("1000.00"), system.person("500.00"), system.staff()
    seat, order_id = system.buy_seat(seller)
    before = seller.balance()
    refund, initiate = run_concurrently(
        [lambda: staff.refund(order_id), lambda: seller.initiate(seat, seller.user_id, buyer.user_id, 50)]
    )
    assert refund.status in (200, 409), refund
    if initiate.status == 201:
        codes = get_codes(system, seller, buyer)
        confirmed = seller.confirm(initiate.data["transfer_id"], **codes)
        assert (confirmed.status == 200) == (refund.status == 409), (refund, confirmed)
    assert system.order_status(order_id) == ("REFUNDED" if refund.status == 200 else "CONFIRMED")
    assert refund.status != 200 or (seller.balance() > before and buyer.balance() == 500)


@repeat
def test_confirm_against_cancel_has_one_winner(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    codes = get_codes(system, seller, buyer)
    confirm, cancel = run_concurrently(
        [lambda: seller.confirm(transfer_id, **codes), lambda: buyer.transfer("cancel", transfer_id)]
    )
    ended = await_status(system, transfer_id)
    assert (ended == "COMPLETED") == (confirm.status == 200) == (cancel.status != 200), (confirm, cancel)
    assert read_owner(system, seat) == (buyer if ended == "COMPLETED" else seller).user_id


@repeat
def test_confirm_against_scan_has_one_winner(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id, staff = system.start_transfer(seller, buyer, seat), system.staff()
    codes, qr = get_codes(system, seller, buyer), seller.qr(seat).must()["qr_payload"]
    confirm, scan = run_concurrently([lambda: seller.confirm(transfer_id, **codes), lambda: staff.scan(qr, "HALL-B")])
    is_admitted = scan.must()["result"] == "SUCCESS"
    assert is_admitted != (await_status(system, transfer_id) == "COMPLETED"), (confirm, scan)
    assert read_owner(system, seat) == (seller if is_admitted else buyer).user_id


@repeat
def test_dispute_against_onward_transfer_has_one_winner(system: TestSystem, nth: int) -> None:
    seller, buyer, seat = make_parties(system)
    first, third = system.complete_transfer(seller, buyer, seat), system.person("500.00")
    onward = system.start_transfer(buyer, third, seat, 50)
    codes = get_codes(system, buyer, third)
    dispute, confirm = run_concurrently(
        [
            lambda: seller.transfer("dispute", first, reason="second thoughts"),
            lambda: third.confirm(onward, **codes),
        ]
    )
    ended = (await_status(system, first), await_status(system, onward))
    assert ended in {("DISPUTED", "FAILED"), ("COMPLETED", "COMPLETED")}, (ended, dispute, confirm)


@repeat
def test_a_seller_cannot_spend_credits_before_they_arrive(system: TestSystem, nth: int) -> None:
    """A pay of the seller races with the transfer that brings them credits."""
    seller, buyer, seat = make_parties(system, seller="300.00")
    transfer_id = system.start_transfer(seller, buyer, seat, 100)
    codes = get_codes(system, seller, buyer)
    _, order_id = system.hold_seat(seller)
    confirm, paid = run_concurrently([lambda: buyer.confirm(transfer_id, **codes), lambda: seller.pay(order_id)])
    assert confirm.status == 200, confirm
    assert is_paid_or_short(paid), paid
    assert min(*system.credits(seller), *system.credits(buyer)) >= 0
    assert system.credits(seller)[1] == system.credits(buyer)[1] == 0


def is_paid_or_short(answer: ApiResponse) -> bool:
    """Return whether a pay succeeded or was refused for missing credits."""
    return answer.status == 200 or answer.error_code == "INSUFFICIENT_CREDITS"
