"""Limits on logins: few hashes at once, and wrong passwords that slow down an address but never lock out an owner."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from werkzeug.test import TestResponse

from services.user import passwords
from services.user.passwords import Hashing
from services.user.settings import Limits
from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.unit.user.user_app import UserApp, error_code, status_codes

pytestmark = pytest.mark.unit

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash at bcrypt's lowest cost, because most tests need several hashes and a production one takes 50 ms."""
    monkeypatch.setattr(passwords, "ROUNDS", 4)


@pytest.fixture
def email(users: UserApp) -> str:
    """The address of a new account."""
    person = {"email": f"{uuid4()}@example.com", "phone": "+6591234567", "password": PASSWORD}
    assert users.call_public("POST", "/api/auth/register", person).status_code == 201
    return str(person["email"])


def login(users: UserApp, email: str, password: str = PASSWORD, address: str = "192.0.2.1") -> TestResponse:
    body = {"email": email, "password": password}
    return users.call_public("POST", "/api/auth/login", body, **{"X-Real-IP": address})


def guess(users: UserApp, email: str, number: int, address: str = "192.0.2.1") -> list[int]:
    """Log in with wrong passwords. Returns the HTTP statuses."""
    return status_codes(login(users, email, f"wrong {n}", address) for n in range(number))


@pytest.fixture
def one_slot(users: UserApp, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Keep every slot of a hash in use until the event is set."""
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def hash_slowly(*_: Any) -> bool:
        begun.release()
        return go_on.wait(10)

    monkeypatch.setattr(passwords, "matches", hash_slowly)
    emails = [f"{n}@example.com" for n in range(Limits().passwords_at_once)]
    slow = [threading.Thread(target=guess, args=(users, email, 1)) for email in emails]
    for thread in slow:
        thread.start()
    for _ in slow:
        assert begun.acquire(timeout=10)
    yield go_on
    go_on.set()
    for thread in slow:
        thread.join()


@pytest.mark.parametrize("path", ["login", "register"])
def test_without_a_slot_for_a_hash_a_request_is_429_at_once(
    users: UserApp, one_slot: threading.Event, path: str
) -> None:
    body = {"email": "a@example.com", "password": PASSWORD} | ({"phone": "+6591234567"} if path == "register" else {})
    answer = users.call_public("POST", f"/api/auth/{path}", body)
    assert (answer.status_code, error_code(answer), answer.headers["Retry-After"]) == (429, "RATE_LIMITED", "1")
    assert not one_slot.is_set(), "the answer came while every hash still ran"


def test_slot_is_free_again_after_a_failed_hash() -> None:
    hashing = Hashing(1)
    for _ in range(3):
        with pytest.raises(AttributeError), hashing.slot():
            hashing.run(passwords.matches, None, None)


def test_sixth_wrong_password_of_an_address_must_wait(users: UserApp, email: str, databases: Databases) -> None:
    assert guess(users, email, 6) == [401] * 5 + [429]
    refused = login(users, email)
    assert (refused.status_code, error_code(refused)) == (429, "RATE_LIMITED")
    assert 290 <= int(refused.headers["Retry-After"]) <= 300
    databases.shift_clock("user", 301)
    try:
        assert login(users, email).status_code == 200
    finally:
        databases.shift_clock("user", 0)


def test_parallel_guesses_get_no_sixth_check(users: UserApp, email: str) -> None:
    answers = run_concurrently([lambda: login(users, email, "wrong")] * 8)
    assert status_codes(answers) == [401] * 5 + [429] * 3


def test_right_passwords_are_not_counted(users: UserApp, email: str) -> None:
    assert status_codes(login(users, email) for _ in range(7)) == [200] * 7
    assert guess(users, email, 5) == [401] * 5


@pytest.mark.parametrize("attackers", [1, 40])
def test_owner_logs_in_from_elsewhere_during_the_guesses(users: UserApp, email: str, attackers: int) -> None:
    for n in range(attackers):
        guess(users, email, 6, f"198.51.100.{n}")
    assert login(users, email, address="203.0.113.7").status_code == 200


def test_attacked_account_allows_one_guess_from_each_address(users: UserApp, email: str) -> None:
    for n in range(4):
        assert guess(users, email, 5, f"198.51.100.{n}") == [401] * 5
    assert guess(users, email, 3, "198.51.100.77") == [401, 429, 429]


def test_an_unknown_account_has_the_same_limits(users: UserApp) -> None:
    assert guess(users, f"{uuid4()}@example.com", 6) == [401] * 5 + [429]


def test_one_ipv6_network_is_one_address(users: UserApp, email: str) -> None:
    statuses = [guess(users, email, 1, f"2001:db8::{n}")[0] for n in range(6)]
    assert statuses == [401] * 5 + [429]
    assert guess(users, email, 1, "2001:db8:0:1::1") == [401]


def test_spellings_of_an_email_share_the_count(users: UserApp, email: str) -> None:
    assert guess(users, f" {email.upper()}", 3) + guess(users, email, 3) == [401] * 5 + [429]


def test_failed_login_logs_account_and_hash_of_the_address(
    users: UserApp, email: str, caplog: pytest.LogCaptureFixture
) -> None:
    user_id = login(users, email).get_json()["data"]["user"]["user_id"]
    caplog.set_level(logging.WARNING)
    guess(users, email, 2)
    guess(users, email, 1, "192.0.2.2")
    guess(users, "nobody@example.com", 1)
    lines = [record.getMessage() for record in caplog.records if "Login failed" in record.getMessage()]
    assert [line.startswith(f"Login failed: account {user_id}, address ") for line in lines] == [True] * 3 + [False]
    assert (lines[0] == lines[1], lines[1] == lines[2]) == (True, False)
    assert not any(secret in "".join(lines) for secret in ("192.0.2", "nobody@", email, PASSWORD))


def test_each_login_deletes_more_ended_counts_than_it_adds(users: UserApp, email: str, databases: Databases) -> None:
    for n in range(3):
        guess(users, f"{uuid4()}@example.com", 1, f"192.0.2.{n}")
    databases.shift_clock("user", 700)
    try:
        before = count_ended(users)
        assert before >= 6
        login(users, email)
        assert count_ended(users) == before - 4
    finally:
        databases.shift_clock("user", 0)


def count_ended(users: UserApp) -> int:
    """Count the rows whose window has ended."""
    found = users.db.statement("SELECT count(*) AS ended FROM counted_events WHERE ends_at <= app_now()")
    assert found is not None
    return int(found["ended"])
