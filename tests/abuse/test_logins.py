"""Floods of logins and guesses at passwords, from many addresses. Owners log in, and customers buy, all the time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from threading import Event

import pytest

from harness.api_client import NEW_PASSWORD
from tests.abuse.addresses import from_address, new_addresses
from tests.abuse.honest_buyers import HonestBuyers
from tests.support.concurrency import run_concurrently
from tests.support.people import Person
from tests.support.running_stack import native_only
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

ATTACKERS = 24
MOST_SECONDS = 2.0  # for an honest purchase, also on a busy machine


def log_in(person: Person, email: str, password: str = NEW_PASSWORD) -> tuple[int, str]:
    """Log in. Returns the status and the header Retry-After."""
    answer = person.post("/api/auth/login", {"email": email, "password": password})
    return answer.status, answer.headers.get("Retry-After", "")


def test_flood_of_logins_leaves_balance_and_pay_to_buyers(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    has_ended = Event()
    attackers = [from_address(system.visitor(), address) for address in new_addresses(ATTACKERS)]

    def flood(attacker: Person) -> set[tuple[int, str]]:
        seen = set()
        for number in cycle(range(1000)):
            if has_ended.is_set():
                break
            seen.add(log_in(attacker, f"{id(attacker)}-{number}@example.com", "wrong password"))
        return seen

    def buy() -> set[tuple[int, str]]:
        try:
            with honest_buyers() as buyers:
                system.wait_until("three purchases", lambda: len(buyers.seconds) >= 3)
            assert max(buyers.seconds) < MOST_SECONDS
        finally:
            has_ended.set()
        return set()

    seen = run_concurrently([buy, *(lambda attacker=attacker: flood(attacker) for attacker in attackers)])
    assert set().union(*seen) == {(401, ""), (429, "1")}


@native_only("the proxy of the engine gives all clients one address")
def test_guesses_slow_down_their_address_and_not_the_owner(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    owner = system.visitor().register()
    attacker, *others = [from_address(system.visitor(), address) for address in new_addresses(22)]
    with honest_buyers():
        guesses = [log_in(attacker, owner.email, f"guess {number}")[0] for number in range(8)]
        assert guesses == [401] * 5 + [429] * 3
        for other in others:
            log_in(other, owner.email, "wrong password")
        assert [log_in(others[-1], owner.email, "wrong password")[0] for _ in range(2)] == [429, 429]
        assert log_in(from_address(system.visitor(), new_addresses(1)[0]), owner.email)[0] == 200
    lines = system.log_lines("user-service", f"Login failed: account {owner.user_id}")
    assert len(lines) == 5 + len(others)
    assert all("127." not in line["message"] for line in lines)
