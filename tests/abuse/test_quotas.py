"""A stranger uses up the messages of a phone, or learns the balance of another user by refused transfers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from harness.api_client import NEW_PASSWORD
from tests.abuse.honest_buyers import HonestBuyers
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]


def start_and_cancel(stranger: Person, seat: str, victim: Person) -> int:
    """Start a transfer to the victim and cancel it at once. Returns the HTTP status of the start."""
    answer = stranger.initiate(seat, stranger.user_id, victim.user_id, 1)
    if answer.status == 201:
        stranger.transfer("cancel", answer.data["transfer_id"]).must(200)
    return answer.status


def test_messages_from_strangers_leave_a_phone_its_own_codes(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    victim, strangers = system.person(flagged=True), system.people(3)
    with honest_buyers():
        for stranger in strangers:
            seat = system.insert_ticket(stranger)
            assert 429 in [start_and_cancel(stranger, seat, victim) for _ in range(4)]
        codes = Counter(message["kind"] for message in system.inbox.messages(victim.phone))
        assert codes["otp"] == 6, "two strangers with three codes each, and none of the third"
        order_id = victim.reserve(system.seat()).must(200)["order_id"]
        assert [victim.resend(order_id=order_id).status for _ in range(4)] == [200] * 4
        victim.verify_otp(system.code(victim), order_id).must(200)
        victim.pay(order_id).must(200)


def test_an_account_with_the_same_number_uses_up_no_verified_phone(system: TestSystem) -> None:
    victim = system.person(flagged=True)
    order_id = victim.reserve(system.seat()).must(200)["order_id"]
    victim.verify_otp(system.code(victim), order_id).must(200)
    impostor = register_with(system, victim.phone)
    held = impostor.reserve(system.seat()).must(200)["order_id"]
    assert Counter(impostor.resend(order_id=held).status for _ in range(5)) == {200: 2, 429: 3}
    order_id = victim.reserve(system.seat()).must(200)["order_id"]
    assert [victim.resend(order_id=order_id).status for _ in range(3)] == [200] * 3


def register_with(system: TestSystem, phone: str) -> Person:
    """Register a flagged account with a number, as the reference allows for every number."""
    email = f"{uuid4()}@example.com"
    body = {"email": email, "phone": phone, "password": NEW_PASSWORD}
    person = system.visitor()
    person.post("/api/auth/register", body).must(201)
    system.rows("users_db", "UPDATE users SET is_flagged = true WHERE email = %s RETURNING 1", email)
    return replace(person.login(email, NEW_PASSWORD), phone=phone)


def test_refused_transfers_do_not_reveal_a_balance(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    victim, attacker = system.person("437.21"), system.person()
    seat = system.insert_ticket(attacker)
    low, high, answers = 0, 100_000, Counter[str]()
    with honest_buyers():
        for _ in range(20):  # a binary search, in cents
            amount = (low + high) // 2
            answer = attacker.initiate(seat, attacker.user_id, victim.user_id, amount / 100)
            answers[answer.error_code or "sent"] += 1
            if answer.error_code == "INSUFFICIENT_CREDITS":
                high = amount
            elif answer.status == 201:
                low = amount
                attacker.transfer("cancel", answer.data["transfer_id"]).must(200)
        messages = system.inbox.messages(victim.phone)
    assert answers["INSUFFICIENT_CREDITS"] <= 3
    assert answers["RATE_LIMITED"] >= 10
    assert sum(message["kind"] == "otp" for message in messages) == answers["sent"], "no look without a message"
    another = system.person("1.00")
    seen = [attacker.initiate(seat, attacker.user_id, another.user_id, amount).status for amount in (5, 4, 3, 2, 1)]
    assert seen == [402] * 3 + [429] * 2
    assert system.inbox.messages(another.phone) == []
