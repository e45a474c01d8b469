"""A new password: by the current one, or by a code to the verified phone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from services.user import passwords
from services.user.store import password_resets
from tests.support.stubs import Stubs
from tests.unit.user.test_auth import PASSWORD, log_in, login, post_with_token
from tests.unit.user.test_logins import is_open, refresh
from tests.unit.user.test_otp import stub_send, stub_verify
from tests.unit.user.user_app import UserApp, error_code

pytestmark = pytest.mark.unit

NEW = "a much better one"


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash at bcrypt's lowest cost."""
    monkeypatch.setattr(passwords, "ROUNDS", 4)


@pytest.fixture
def smu() -> Iterator[Stubs]:
    with Stubs() as stub:
        yield stub


def change(users: UserApp, token: str, current: str, new: str = NEW) -> Any:
    body = {"current_password": current, "new_password": new}
    return users.call_public("POST", "/api/auth/password", body, Authorization=f"Bearer {token}")


def request_code(users: UserApp, email: str) -> Any:
    return users.call_public("POST", "/api/auth/password/reset", {"email": email})


def confirm(users: UserApp, email: str, new: str = NEW) -> Any:
    body = {"email": email, "otp_code": "123456", "new_password": new}
    return users.call_public("POST", "/api/auth/password/reset/confirm", body)


@pytest.fixture
def session(users: UserApp) -> dict[str, Any]:
    """A login of a customer who has verified their phone."""
    opened = log_in(users)
    with users.db.transaction() as tx:
        tx.run("UPDATE users SET phone_verified_at = now() WHERE email = %(email)s", email=opened["user"]["email"])
    return opened


def test_change_ends_all_other_logins(users: UserApp, session: dict[str, Any]) -> None:
    email = session["user"]["email"]
    other = login(users, email).get_json()["data"]
    assert change(users, session["access_token"], PASSWORD).get_json()["data"] == {"ended": 1}
    assert [is_open(users, each["access_token"]) for each in (session, other)] == [True, False]
    assert refresh(users, other["refresh_token"]).status_code == 401
    assert (login(users, email).status_code, login(users, email, NEW).status_code) == (401, 200)


def test_change_needs_the_current_password_and_a_good_one(users: UserApp, session: dict[str, Any]) -> None:
    token = session["access_token"]
    assert error_code(change(users, token, "a wrong one")) == "FORBIDDEN"
    for bad in ("password123", "seven77", "x" * 73):
        assert error_code(change(users, token, PASSWORD, bad)) == "VALIDATION_ERROR"
    assert login(users, session["user"]["email"]).status_code == 200


def test_code_to_the_verified_phone_resets_the_password(users: UserApp, smu: Stubs, session: dict[str, Any]) -> None:
    stub_send(smu)
    stub_verify(smu, Success=True, Status="approved", ErrorMessage="")
    email = session["user"]["email"]
    assert request_code(users, f" {email.upper()} ").status_code == 200
    assert confirm(users, email).get_json()["data"] == {"ended": 1}
    assert not is_open(users, session["access_token"])
    assert (login(users, email).status_code, login(users, email, NEW).status_code) == (401, 200)
    assert error_code(confirm(users, email, "another good one")) == "OTP_INVALID", "a code is for one reset"


def test_no_code_goes_to_an_unverified_or_unknown_account(users: UserApp, smu: Stubs) -> None:
    """The answer is the same, so that it does not show which accounts exist."""
    stub_send(smu)
    answers = [request_code(users, email) for email in (log_in(users)["user"]["email"], f"{uuid4()}@example.com")]
    assert [(answer.status_code, answer.get_json()["data"]) for answer in answers] == [(200, {})] * 2
    assert len(smu.calls) == 0


def test_an_account_gets_a_limited_number_of_codes(users: UserApp, smu: Stubs, session: dict[str, Any]) -> None:
    stub_send(smu)
    for _ in range(password_resets.CODES_A_DAY + 2):
        assert request_code(users, session["user"]["email"]).status_code == 200
    assert len(smu.calls) == password_resets.CODES_A_DAY


def test_a_code_has_three_attempts(users: UserApp, smu: Stubs, session: dict[str, Any]) -> None:
    stub_send(smu)
    stub_verify(smu, Success=True, Status="pending", ErrorMessage="")
    email = session["user"]["email"]
    request_code(users, email)
    for _ in range(password_resets.ATTEMPTS + 2):
        assert error_code(confirm(users, email)) == "OTP_INVALID"
    assert len(smu.calls) == 1 + password_resets.ATTEMPTS
    assert login(users, email).status_code == 200


def test_an_old_code_is_refused(users: UserApp, smu: Stubs, session: dict[str, Any]) -> None:
    stub_send(smu)
    stub_verify(smu, Success=True, Status="approved", ErrorMessage="")
    email = session["user"]["email"]
    request_code(users, email)
    with users.db.transaction() as tx:
        tx.run("UPDATE password_resets SET sent_at = ARRAY[app_now() - interval '11 minutes']")
    assert error_code(confirm(users, email)) == "OTP_INVALID"
    assert post_with_token(users, "/api/auth/logout", session["access_token"]).status_code == 200
