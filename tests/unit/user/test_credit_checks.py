"""The check that a buyer can pay a transfer. Its refusals must not reveal the buyer's balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.support.stubs import Stubs
from tests.unit.user.user_app import SMU_URL, UserApp, error_code

pytestmark = pytest.mark.unit


def check(users: UserApp, seller: UUID, buyer: UUID, amount: Any, initiator: UUID | None = None) -> str:
    """Check the buyer's credits. Returns the error code, or "" if they are enough."""
    parties = {"seller_user_id": seller, "buyer_user_id": buyer, "initiator_id": initiator or seller}
    answer = users.call("POST", "/credits/check", {**parties, "amount": amount})
    return "" if answer.status_code == 200 else error_code(answer)


@pytest.fixture
def parties(users: UserApp) -> tuple[UUID, UUID]:
    """A seller and a buyer with 100 credits."""
    return users.new_user("0.00"), users.new_user("100.00")


@pytest.fixture
def smu() -> Iterator[None]:
    with Stubs() as stub:
        stub.respond("POST", f"{SMU_URL}/SendOTP", json={"VerificationSid": "VE1", "Success": True, "ErrorMessage": ""})
        yield


@pytest.mark.claim("transfer/needs-buyer-credits")
def test_credits_of_the_buyer_decide(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    assert check(users, *parties, Decimal("100.00")) == ""
    assert check(users, *parties, Decimal("100.01")) == "INSUFFICIENT_CREDITS"
    assert check(users, parties[0], uuid4(), 1) == "USER_NOT_FOUND"


def test_answer_names_the_parties_without_their_addresses(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    seller, buyer = parties
    named = users.post("/credits/check", seller_user_id=seller, buyer_user_id=buyer, initiator_id=seller, amount=1)
    shown = [f"{str(user)[0]}…{str(user)[-1]}@example.com" for user in parties]
    assert [named["seller"], named["buyer"]] == shown


def test_fourth_refusal_in_a_day_is_a_limit_for_every_amount(
    users: UserApp, parties: tuple[UUID, UUID], databases: Databases
) -> None:
    assert [check(users, *parties, 500) for _ in range(3)] == ["INSUFFICIENT_CREDITS"] * 3
    assert [check(users, *parties, amount) for amount in (1, 500)] == ["RATE_LIMITED"] * 2
    databases.shift_clock("user", 86_401)
    try:
        assert check(users, *parties, 1) == ""
    finally:
        databases.shift_clock("user", 0)


def test_refusals_count_for_one_initiator_and_one_buyer(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    seller, buyer = parties
    for _ in range(4):
        check(users, seller, buyer, 500)
    assert check(users, seller, users.new_user(), 1) == ""
    assert check(users, users.new_user(), buyer, 1) == ""


def test_own_balance_has_no_limit(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    codes = [check(users, *parties, 500, initiator=parties[1]) for _ in range(6)]
    assert codes == ["INSUFFICIENT_CREDITS"] * 6


def test_concurrent_checks_get_no_fourth_refusal(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    codes = Counter(run_concurrently([lambda: check(users, *parties, 500)] * 12))
    assert codes == {"INSUFFICIENT_CREDITS": 3, "RATE_LIMITED": 9}


def test_concurrent_transfers_that_can_be_paid_are_allowed(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    assert run_concurrently([lambda: check(users, *parties, 1)] * 8) == [""] * 8


def test_checks_without_a_message_are_limited_too(users: UserApp, parties: tuple[UUID, UUID]) -> None:
    """A transfer that ends before its codes reveals that the buyer has enough, and its buyer would not notice."""
    codes = [check(users, *parties, amount) for amount in range(1, 13)]
    assert codes == [""] * 10 + ["RATE_LIMITED"] * 2


def test_a_code_to_the_buyer_frees_its_check(users: UserApp, parties: tuple[UUID, UUID], smu: None) -> None:
    seller, buyer = parties
    for _ in range(10):
        check(users, seller, buyer, 1)
    users.post("/otp/send", user_id=buyer, initiator_id=seller)
    assert [check(users, seller, buyer, 1) for _ in range(2)] == ["", "RATE_LIMITED"]
