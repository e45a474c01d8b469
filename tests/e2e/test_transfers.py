"""Scenario 2 through the gateway: a transfer of a ticket, and every refusal of one."""

from __future__ import annotations

import pytest

from tests.e2e.test_otp import change_code
from tests.support.concurrency import outcomes
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]

TEN_MINUTES = 620
NOTHING = "00000000-0000-4000-8000-000000000000"


def make_parties(system: TestSystem, seller: str = "0.00", buyer: str = "500.00") -> tuple[Person, Person, str]:
    """Create a seller and a buyer with these credits, and a ticket of the seller."""
    owner = system.person(seller)
    return owner, system.person(buyer), system.insert_ticket(owner)


def read_owner(system: TestSystem, seat: str) -> str:
    """Read the owner of a seat."""
    return str(system.seat_row(seat)["owner_user_id"])


@pytest.mark.claim(
    "transfer/post-initiate",
    "transfer/becomes-pending-otp",
    "transfer/post-confirm",
    "transfer/smu-verifies-both-codes",
    "transfer/changes-all-or-nothing",
    "transfer/shows-sold-and-purchased",
    "layers/orchestrator-coordinates-flows",
    "testing/end-to-end",
    "transfer/sends-both-codes",
)
def test_one_call_with_both_codes_completes_the_transfer(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    made = seller.initiate(seat, seller.user_id, buyer.user_id, 120.50).must(201)
    assert (made["seat_id"], made["status"]) == (seat, "PENDING_OTP")
    assert (read_owner(system, seat), system.credits(buyer)) == (seller.user_id, (500, 0)), (
        "nothing moves before the codes"
    )
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
    done = buyer.confirm(made["transfer_id"], **codes).must(200)
    assert (done["status"], done["new_owner_user_id"]) == ("COMPLETED", buyer.user_id)
    assert float(done["credits_transferred"]) == 120.50
    assert read_owner(system, seat) == buyer.user_id
    assert (seller.balance(), buyer.balance()) == (120.50, 379.50)
    assert [t["transfer_id"] for t in seller.get("/api/transfers").must()] == [made["transfer_id"]]


@pytest.mark.claim("transfer/post-initiate", "transfer/smu-verifies-both-codes", "transfer/records-initiator")
def test_each_party_sends_its_code_and_the_buyer_may_initiate(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = buyer.initiate(seat, seller.user_id, buyer.user_id, 100).must(201)["transfer_id"]
    half = seller.confirm(transfer_id, seller_otp=system.code(seller)).must(200)
    assert (half["status"], half["seller_otp_verified"], half["buyer_otp_verified"]) == ("PENDING_OTP", True, False)
    assert read_owner(system, seat) == seller.user_id
    assert buyer.confirm(transfer_id, buyer_otp=system.code(buyer)).must(200)["status"] == "COMPLETED"
    again = buyer.confirm(transfer_id, buyer_otp="000000").must(200)
    assert again["status"] == "COMPLETED", "a retry gets the first answer"
    assert (seller.balance(), buyer.balance()) == (100, 400)


@pytest.mark.claim(
    "transfer/checks-preconditions",
    "transfer/needs-buyer-credits",
    "transfer/needs-seller-ownership",
    "transfer/refuses-oneself",
    "transfer/failed-validation-changes-nothing",
)
def test_invalid_transfers_are_refused_before_a_code_is_sent(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    held, _ = system.hold_seat(system.person())
    used = system.insert_ticket(seller)
    staff = system.staff()
    assert staff.scan(seller.qr(used).must()["qr_payload"], "HALL-B").must()["result"] == "SUCCESS"
    refused = {
        "403 NOT_SEAT_OWNER": buyer.initiate(seat, buyer.user_id, seller.user_id, 1),
        "400 SELF_TRANSFER": seller.initiate(seat, seller.user_id, seller.user_id, 1),
        "402 INSUFFICIENT_CREDITS": seller.initiate(seat, seller.user_id, buyer.user_id, 500.01),
        "409 SEAT_UNAVAILABLE": seller.initiate(used, seller.user_id, buyer.user_id, 1),
        "404 USER_NOT_FOUND": seller.initiate(seat, seller.user_id, NOTHING, 1),
        "404 SEAT_NOT_FOUND": seller.initiate(NOTHING, seller.user_id, buyer.user_id, 1),
        "403 FORBIDDEN": system.person().initiate(seat, seller.user_id, buyer.user_id, 1),
    }
    for expected, answer in refused.items():
        assert outcomes([answer]) == {expected: 1}
    assert outcomes([seller.initiate(held, seller.user_id, buyer.user_id, 1)]) == {"403 NOT_SEAT_OWNER": 1}
    assert system.inbox.messages(seller.phone) == system.inbox.messages(buyer.phone) == []
    assert buyer.get("/api/transfers").must() == []


@pytest.mark.claim("transfer/checks-preconditions", "transfer/one-open-per-seat", "lock/open-transfer-lookup")
def test_a_seat_has_one_open_transfer(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    another = seller.initiate(seat, seller.user_id, system.person().user_id, 10)
    assert outcomes([another]) == {"409 TRANSFER_IN_PROGRESS": 1}
    seller.transfer("cancel", transfer_id).must(200)
    assert seller.initiate(seat, seller.user_id, buyer.user_id, 10).status == 201


@pytest.mark.claim("transfer/retries-wrong-code", "transfer/three-tries-for-codes")
@pytest.mark.parametrize("party", ["seller", "buyer"])
def test_three_wrong_codes_in_total_fail_the_transfer(system: TestSystem, party: str) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    person = seller if party == "seller" else buyer
    guesses = [{f"{name}_otp": change_code(system.code(of))} for name, of in (("seller", seller), ("buyer", buyer))]
    answers = [person.confirm(transfer_id, **guess) for guess in (guesses[0], guesses[1], guesses[0])]
    assert outcomes(answers) == {"401 OTP_INVALID": 2, "429 OTP_MAX_RETRIES": 1}
    assert system.transfer_row(transfer_id)["status"] == "FAILED"
    late = seller.confirm(transfer_id, seller_otp=system.code(seller), buyer_otp=system.code(buyer))
    assert outcomes([late]) == {"429 OTP_MAX_RETRIES": 1}
    assert (read_owner(system, seat), system.credits(buyer)) == (seller.user_id, (500, 0))


@pytest.mark.claim("transfer/retries-wrong-code")
def test_an_expired_code_may_be_sent_again(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    with system.smu.advance_clock(601):
        assert outcomes([seller.confirm(transfer_id, seller_otp=system.code(seller))]) == {"410 OTP_EXPIRED": 1}
        for party in (seller, buyer):
            party.resend(transfer_id=transfer_id).must(200)
        codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
        assert seller.confirm(transfer_id, **codes).must(200)["status"] == "COMPLETED"


@pytest.mark.claim("transfer/fails-without-codes", "transfer/sends-both-codes")
def test_without_smu_a_transfer_fails_and_frees_its_seat(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    with system.smu.fault("status", "/SendOTP", status=500):
        assert seller.initiate(seat, seller.user_id, buyer.user_id, 10).status in (500, 503)
    assert [t["status"] for t in seller.get("/api/transfers").must()] == ["FAILED"]
    system.complete_transfer(seller, buyer, seat)


@pytest.mark.claim("transfer/fails-without-credits")
def test_a_buyer_who_spent_the_credits_gets_no_ticket(system: TestSystem) -> None:
    """The transfer fails at the confirmation, and the seller keeps the ticket."""
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat, 400)
    system.buy_seat(buyer)
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
    assert outcomes([buyer.confirm(transfer_id, **codes)]) == {"402 INSUFFICIENT_CREDITS": 1}
    assert system.transfer_row(transfer_id)["status"] == "FAILED"
    assert read_owner(system, seat) == seller.user_id
    assert system.credits(buyer)[1] == 0


@pytest.mark.claim("transfer/refunds-when-owner-refused")
def test_a_seat_scanned_before_the_confirm_keeps_its_owner(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    qr = seller.qr(seat).must()["qr_payload"]
    assert system.staff().scan(qr, "HALL-B").must()["result"] == "SUCCESS"
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
    assert outcomes([buyer.confirm(transfer_id, **codes)]) == {"409 SEAT_UNAVAILABLE": 1}
    assert (read_owner(system, seat), system.credits(buyer)) == (seller.user_id, (500, 0))
    assert system.transfer_row(transfer_id)["status"] == "FAILED"


@pytest.mark.parametrize("party", ["seller", "buyer"])
def test_either_party_cancels_and_a_later_confirm_is_refused(system: TestSystem, party: str) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    canceller = seller if party == "seller" else buyer
    assert canceller.transfer("cancel", transfer_id).must(200)["status"] == "FAILED"
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
    assert outcomes([buyer.confirm(transfer_id, **codes)]) == {"409 TRANSFER_INVALID_STATE": 1}
    assert read_owner(system, seat) == seller.user_id


def test_an_unconfirmed_transfer_fails_after_ten_minutes(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id = system.start_transfer(seller, buyer, seat)
    with system.clock("orders_db", TEN_MINUTES):
        late = seller.confirm(transfer_id, seller_otp=system.code(seller))
        assert outcomes([late]) == {"409 TRANSFER_INVALID_STATE": 1}
        system.wait_until(
            "the sweeper fails the transfer", lambda: system.transfer_row(transfer_id)["status"] == "FAILED"
        )
    system.complete_transfer(seller, buyer, seat)


def test_strangers_get_403_on_every_route_and_see_nothing(system: TestSystem) -> None:
    seller, buyer, seat = make_parties(system)
    transfer_id, stranger = system.start_transfer(seller, buyer, seat), system.person()
    answers = [
        stranger.confirm(transfer_id, seller_otp=system.code(seller), buyer_otp=system.code(buyer)),
        stranger.transfer("cancel", transfer_id),
        stranger.transfer("dispute", transfer_id, reason="envy"),
        stranger.transfer("reverse", transfer_id),
        stranger.transfer("dismiss", transfer_id),
        stranger.resend(transfer_id=transfer_id),
    ]
    assert outcomes(answers) == {"403 FORBIDDEN": 6}
    assert stranger.get("/api/transfers").must() == []
    assert system.transfer_row(transfer_id)["status"] == "PENDING_OTP"


def test_an_unknown_transfer_is_404_on_every_route(system: TestSystem) -> None:
    person, staff = system.person(), system.staff()
    answers = [
        person.confirm(NOTHING, seller_otp="123456"),
        person.transfer("cancel", NOTHING),
        person.transfer("dispute", NOTHING, reason="why not"),
        person.resend(transfer_id=NOTHING),
        staff.transfer("reverse", NOTHING),
        staff.transfer("dismiss", NOTHING),
    ]
    assert outcomes(answers) == {"404 TRANSFER_NOT_FOUND": 6}
