"""A buyer guesses the code of a seller, in one transfer after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.abuse.honest_buyers import HonestBuyers
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

A_DAY = 86_401


def guess(buyer: Person, transfer_id: str, code: str) -> str:
    """Enter a code of the seller. Returns the error code."""
    return str(buyer.confirm(transfer_id, seller_otp=code).error_code)


def find_wrong_code(system: TestSystem, seller: Person) -> str:
    return f"{(int(system.code(seller)) + 1) % 1_000_000:06d}"


def test_a_buyer_has_three_guesses_in_a_day_over_all_transfers(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    buyer, (seller, other) = system.person(), system.people(2)
    with honest_buyers():
        first = start(system, buyer, seller)
        assert [guess(buyer, first, find_wrong_code(system, seller)) for _ in range(2)] == ["OTP_INVALID"] * 2
        second = start(system, buyer, other)
        assert guess(buyer, second, find_wrong_code(system, other)) == "OTP_INVALID"
        for transfer_id, victim in ((first, seller), (second, other)):
            assert guess(buyer, transfer_id, system.code(victim)) == "RATE_LIMITED", "not even the right one"
        wrong = seller.confirm(first, seller_otp=find_wrong_code(system, seller))
        assert wrong.envelope["details"]["attempts_left"] == 2, "the victim has all three attempts"
        assert seller.confirm(first, seller_otp=system.code(seller)).must(200)["seller_otp_verified"] is True
        buyer.resend(transfer_id=first).must(200)
        assert buyer.confirm(first, buyer_otp=system.code(buyer)).must(200)["status"] == "COMPLETED"
    with system.clock("orders_db", A_DAY):
        third = start(system, buyer, other)
        assert guess(buyer, third, find_wrong_code(system, other)) == "OTP_INVALID"


def start(system: TestSystem, buyer: Person, seller: Person) -> str:
    """Start a transfer for 0.01 credits as its buyer."""
    answer = buyer.initiate(system.insert_ticket(seller), seller.user_id, buyer.user_id, 0.01)
    return str(answer.must(201)["transfer_id"])


def test_the_message_of_a_code_names_event_amount_and_other_party(system: TestSystem) -> None:
    seller, buyer = system.people(2)
    system.start_transfer(seller, buyer, system.insert_ticket(seller), 12.5)
    for person, other in ((seller, buyer), (buyer, seller)):
        texts = system.wait_until("the notice", partial(find_texts, system, person))
        local, _, domain = other.email.partition("@")
        for part in ("12.50 credits", f"{local[0]}…{local[-1]}@{domain}", read_event_name(system, buyer)):
            assert part in texts[0]


def find_texts(system: TestSystem, person: Person) -> list[str]:
    """The messages to a phone that are not the code itself."""
    return [str(m["text"]) for m in system.inbox.messages(person.phone) if m["kind"] == "sms"]


def read_event_name(system: TestSystem, person: Person) -> str:
    """The name of event 2, to which the seats of tests belong."""
    return next(str(event["name"]) for event in person.get("/api/events").must() if event["hall_id"] == "HALL-B")
