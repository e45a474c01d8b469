"""An attacker with the tokens, the password or the demoted account of another user tries to keep the access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness.api_client import NEW_PASSWORD
from tests.abuse.addresses import from_address, new_addresses
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

NEXT_PASSWORD = "a much better one"


def log_in(system: TestSystem, email: str, password: str = NEW_PASSWORD) -> Person:
    """Log in from an address of its own."""
    return from_address(system.visitor(), new_addresses(1)[0]).login(email, password)


def register(system: TestSystem) -> Person:
    return from_address(system.visitor(), new_addresses(1)[0]).register()


def refresh(person: Person) -> Any:
    """Refresh as a client does, which stores both new tokens."""
    answer = person.call("POST", "/api/auth/refresh", token=person.refresh_token)
    if answer.status == 200:
        data = answer.must(200)
        person.token, person.refresh_token = data["access_token"], data["refresh_token"]
    return answer


def has_ended(system: TestSystem, person: Person) -> None:
    """Wait until every service refuses the access token, and check that the refresh token is refused too."""
    system.wait_until("the login has ended", lambda: person.get("/api/credits/balance").status == 401)
    assert person.get("/api/auth/logins").status == 401
    assert refresh(person).status == 401


def test_stolen_refresh_token_ends_the_login(system: TestSystem, honest_buyers: Callable[[], Any]) -> None:
    """The thief refreshes first, so the owner's next refresh reveals the theft. Both lose the login."""
    owner = register(system)
    thief = from_address(system.visitor(), new_addresses(1)[0])
    thief.refresh_token = owner.refresh_token
    with honest_buyers():
        assert refresh(thief).status == refresh(thief).status == 200
        assert refresh(owner).status == 401
        has_ended(system, thief)
        has_ended(system, owner)
    assert log_in(system, owner.email).balance() == 0


def test_lost_answer_of_a_refresh_ends_no_login(system: TestSystem) -> None:
    owner = register(system)
    for _ in range(3):  # the client got none of these answers
        assert owner.call("POST", "/api/auth/refresh", token=owner.refresh_token).status == 200
    assert refresh(owner).status == 200
    assert refresh(owner).status == 200
    assert owner.balance() == 0


def test_new_password_throws_an_intruder_out(system: TestSystem) -> None:
    owner = register(system)
    intruder = log_in(system, owner.email)
    assert len(owner.get("/api/auth/logins").must(200)) == 2
    body = {"current_password": NEW_PASSWORD, "new_password": NEXT_PASSWORD}
    assert owner.post("/api/auth/password", body).must(200) == {"ended": 1}
    has_ended(system, intruder)
    assert owner.balance() == 0
    assert owner.post("/api/auth/login", {"email": owner.email, "password": NEW_PASSWORD}).status == 401


def test_reset_needs_the_code_of_the_verified_phone(system: TestSystem) -> None:
    owner = register(system)
    attacker = from_address(system.visitor(), new_addresses(1)[0])
    verify = "UPDATE users SET phone_verified_at = now() WHERE email = %s RETURNING phone"
    owner.phone = system.rows("users_db", verify, owner.email)[0]["phone"]
    assert attacker.post("/api/auth/password/reset", {"email": owner.email}).must(200) == {}
    code = system.code(owner)
    body = {"email": owner.email, "new_password": NEXT_PASSWORD}
    for number in range(2):
        wrong = f"{(int(code) + 1 + number) % 1_000_000:06d}"
        assert attacker.post("/api/auth/password/reset/confirm", {**body, "otp_code": wrong}).status == 401
    assert owner.post("/api/auth/password/reset/confirm", {**body, "otp_code": code}).must(200) == {"ended": 1}
    has_ended(system, owner)
    assert log_in(system, owner.email, NEXT_PASSWORD).balance() == 0


def test_staff_lock_a_stolen_account(system: TestSystem) -> None:
    owner, staff = register(system), system.staff()
    assert owner.post(f"/api/auth/users/{owner.user_id}/unlock").status == 403
    assert staff.post(f"/api/auth/users/{owner.user_id}/lock").must(200) == {"is_locked": True, "ended": 1}
    has_ended(system, owner)
    assert owner.post("/api/auth/login", {"email": owner.email, "password": NEW_PASSWORD}).status == 403
    assert staff.post(f"/api/auth/users/{owner.user_id}/unlock").must(200) == {"is_locked": False, "ended": 0}
    assert log_in(system, owner.email).balance() == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("UPDATE users SET role = 'customer' WHERE user_id = %s", 403),
        ("UPDATE users SET locked_at = now() WHERE user_id = %s", 401),
        ("DELETE FROM users WHERE user_id = %s", 401),
    ],
)
def test_dismissed_staff_lose_their_rights_at_once(system: TestSystem, change: str, status: int) -> None:
    """The first call after the change is refused, although the access token is valid for 15 minutes."""
    staff, victim = system.staff(), system.person()
    paths = [f"/api/auth/users/{victim.user_id}/lock", "/api/verify"]
    bodies = [None, {"qr_payload": "x", "hall_id": "HALL-B"}]
    assert staff.post(paths[1], bodies[1]).status == 400
    system.rows("users_db", "DELETE FROM credit_entries WHERE user_id = %s RETURNING user_id", staff.user_id)
    system.rows("users_db", f"{change} RETURNING user_id", staff.user_id)
    assert [staff.post(path, body).status for path, body in zip(paths, bodies, strict=True)] == [status, status]
    assert victim.balance() == 1000
