"""Logins: rotation of refresh tokens, lists, the ends of logins, and locked accounts (D71)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from werkzeug.test import TestResponse

from services.user import passwords
from services.user.store import logins
from tests.support.concurrency import run_concurrently
from tests.support.service_settings import user_token
from tests.unit.user.test_auth import log_in, login, post_with_token, read_claims
from tests.unit.user.user_app import UserApp, error_code

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash at bcrypt's lowest cost."""
    monkeypatch.setattr(passwords, "ROUNDS", 4)


def refresh(users: UserApp, token: str) -> TestResponse:
    return post_with_token(users, "/api/auth/refresh", token)


def renew(users: UserApp, token: str) -> Any:
    """Refresh and return the new tokens."""
    answer = refresh(users, token)
    assert answer.status_code == 200, answer.text
    return answer.get_json()["data"]


def is_open(users: UserApp, access_token: str) -> bool:
    """Whether the login of an access token has not ended."""
    answer = users.call_public("GET", "/api/auth/logins", Authorization=f"Bearer {access_token}")
    return answer.status_code == 200


def call_as_staff(users: UserApp, path: str) -> TestResponse:
    staff = users.new_user()
    with users.db.transaction() as tx:
        tx.run("UPDATE users SET role = 'staff' WHERE user_id = %(user_id)s", user_id=staff)
    return post_with_token(users, path, user_token(staff, "staff"))


def move_rotation_back(users: UserApp, sid: str, seconds: float) -> None:
    with users.db.transaction() as tx:
        tx.run(
            "UPDATE logins SET rotated_at = rotated_at - make_interval(secs => %(s)s) WHERE sid = %(sid)s",
            s=seconds,
            sid=sid,
        )


def test_each_refresh_returns_the_next_refresh_token(users: UserApp) -> None:
    session = log_in(users)
    first = renew(users, session["refresh_token"])
    second = renew(users, first["refresh_token"])
    tokens = [read_claims(each["refresh_token"]) for each in (session, first, second)]
    assert len({claims["jti"] for claims in tokens}) == 3
    assert len({(claims["sid"], claims["exp"]) for claims in tokens}) == 1, "a login ends seven days after it began"


def test_tokens_of_a_login_end_in_the_second_of_its_end(users: UserApp) -> None:
    """A rounded end would differ from that of the first token, which is at most seven days old."""
    session = log_in(users)
    move = """UPDATE logins SET expires_at = date_trunc('second', expires_at) - interval '1 hour'
        + interval '0.9 seconds' WHERE sid = %(sid)s RETURNING floor(extract(epoch FROM expires_at))::float AS end"""
    with users.db.transaction() as tx:
        end = tx.only(move, sid=read_claims(session["refresh_token"])["sid"])["end"]
    assert read_claims(renew(users, session["refresh_token"])["refresh_token"])["exp"] == end


def test_each_login_deletes_some_that_have_ended(users: UserApp) -> None:
    """Also those of users who never return."""
    with users.db.transaction() as tx:
        tx.run("DELETE FROM logins")
    log_in(users)
    with users.db.transaction() as tx:
        tx.run("UPDATE logins SET expires_at = now() - interval '1 hour'")
    log_in(users)
    assert users.db.rows("SELECT sid FROM logins WHERE expires_at < now()") == []


def test_lock_revokes_a_login_that_has_just_ended(users: UserApp) -> None:
    """An access token is valid for 15 minutes, so it can outlive its login."""
    session = log_in(users)
    sid, user = (read_claims(session["access_token"])[claim] for claim in ("sid", "sub"))
    with users.db.transaction() as tx:
        tx.run("DELETE FROM logins WHERE sid <> %(sid)s", sid=sid)
        tx.run("UPDATE logins SET expires_at = now() - interval '1 minute'")
    log_in(users)
    assert call_as_staff(users, f"/api/auth/users/{user}/lock").status_code == 200
    assert len(users.db.rows("SELECT sid FROM revoked_logins WHERE sid = %(sid)s", sid=sid)) == 1


def test_reuse_of_a_refresh_token_ends_the_login(users: UserApp) -> None:
    session = log_in(users)
    renewed = renew(users, renew(users, session["refresh_token"])["refresh_token"])
    assert error_code(refresh(users, session["refresh_token"])) == "UNAUTHORIZED"
    assert refresh(users, renewed["refresh_token"]).status_code == 401
    assert not is_open(users, renewed["access_token"])


@pytest.mark.parametrize(("seconds", "is_valid"), [(45, True), (60, False)])
def test_repeat_of_a_refresh_is_answered_for_a_minute(users: UserApp, seconds: float, is_valid: bool) -> None:
    """The client did not get the answer, so it does not have the next token yet."""
    session = log_in(users)
    renewed = renew(users, session["refresh_token"])
    move_rotation_back(users, read_claims(session["refresh_token"])["sid"], seconds)
    repeated = refresh(users, session["refresh_token"])
    assert repeated.status_code == (200 if is_valid else 401)
    assert is_open(users, renewed["access_token"]) == is_valid
    if is_valid:
        again = repeated.get_json()["data"]
        assert read_claims(again["refresh_token"])["jti"] == read_claims(renewed["refresh_token"])["jti"]
        renew(users, again["refresh_token"])


def test_concurrent_refreshes_return_one_next_token(users: UserApp) -> None:
    session = log_in(users)
    answers = run_concurrently([lambda: renew(users, session["refresh_token"])] * 8)
    assert len({read_claims(answer["refresh_token"])["jti"] for answer in answers}) == 1
    assert is_open(users, session["access_token"])


def test_list_shows_the_logins_of_the_user(users: UserApp) -> None:
    session = log_in(users)
    email = session["user"]["email"]
    phone = users.call_public(
        "POST",
        "/api/auth/login",
        {"email": email, "password": "correct horse"},
        **{"User-Agent": "a phone" + "x" * 300},
    ).get_json()["data"]
    log_in(users)
    header = {"Authorization": f"Bearer {session['access_token']}"}
    found = users.call_public("GET", "/api/auth/logins", **header).get_json()["data"]
    assert [each["sid"] for each in found] == [read_claims(each["access_token"])["sid"] for each in (phone, session)]
    assert [each["is_current"] for each in found] == [False, True]
    assert found[0]["device"].startswith("a phone")
    assert len(found[0]["device"]) == 200
    assert found[0]["created_at"].endswith("Z")


def test_logout_everywhere_ends_all_logins_of_the_user(users: UserApp) -> None:
    session, stranger = log_in(users), log_in(users)
    other = login(users, session["user"]["email"]).get_json()["data"]
    answer = post_with_token(users, "/api/auth/logout-everywhere", session["access_token"])
    assert answer.get_json()["data"] == {"ended": 2}
    assert [is_open(users, each["access_token"]) for each in (session, other, stranger)] == [False, False, True]
    assert refresh(users, other["refresh_token"]).status_code == 401


@pytest.mark.parametrize("action", ["logout", "lock"])
def test_staff_end_the_logins_of_a_user(users: UserApp, action: str) -> None:
    session = log_in(users)
    answer = call_as_staff(users, f"/api/auth/users/{session['user']['user_id']}/{action}")
    assert answer.get_json()["data"]["ended"] == 1
    assert not is_open(users, session["access_token"])
    assert refresh(users, session["refresh_token"]).status_code == 401


def test_locked_account_cannot_log_in_until_it_is_unlocked(users: UserApp) -> None:
    session = log_in(users)
    email, user_id = session["user"]["email"], session["user"]["user_id"]
    call_as_staff(users, f"/api/auth/users/{user_id}/lock")
    assert error_code(login(users, email)) == "FORBIDDEN"
    assert error_code(login(users, email, "a wrong one")) == "UNAUTHORIZED", "the lock must not confirm a password"
    call_as_staff(users, f"/api/auth/users/{user_id}/unlock")
    assert login(users, email).status_code == 200


@pytest.mark.parametrize("action", ["logout", "lock", "unlock"])
def test_only_staff_command_the_logins_of_others(users: UserApp, action: str) -> None:
    session = log_in(users)
    answer = post_with_token(users, f"/api/auth/users/{uuid4()}/{action}", session["access_token"])
    assert error_code(answer) == "FORBIDDEN"
    assert error_code(call_as_staff(users, f"/api/auth/users/{uuid4()}/{action}")) == "USER_NOT_FOUND"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET role = 'customer' WHERE user_id = %(user_id)s",
        "UPDATE users SET locked_at = now() WHERE user_id = %(user_id)s",
        "DELETE FROM users WHERE user_id = %(user_id)s",
    ],
)
def test_role_of_a_user_is_the_current_one(users: UserApp, change: str) -> None:
    user_id = UUID(log_in(users)["user"]["user_id"])
    with users.db.transaction() as tx:
        tx.run("UPDATE users SET role = 'staff' WHERE user_id = %(user_id)s", user_id=user_id)
    path = f"/users/{user_id}/role?sid=a-login"
    assert users.call("GET", path).get_json()["data"] == {"role": "staff"}
    with users.db.transaction() as tx:
        tx.run(change, user_id=user_id)
    expected = "customer" if "role" in change else None
    assert users.call("GET", path, caller="event-service").get_json()["data"] == {"role": expected}


def test_ended_login_has_no_role(users: UserApp) -> None:
    session = log_in(users)
    path = f"/users/{session['user']['user_id']}/role?sid={read_claims(session['access_token'])['sid']}"
    assert users.call("GET", path).get_json()["data"] == {"role": "customer"}
    post_with_token(users, "/api/auth/logout", session["access_token"])
    assert users.call("GET", path).get_json()["data"] == {"role": None}


def test_invalid_sid_of_a_role_is_refused(users: UserApp) -> None:
    path = f"/users/{log_in(users)['user']['user_id']}/role?sid="
    assert users.call("GET", path + "s" * 200).status_code == 200
    for sid in ("s" * 201, "%00nonsense"):
        assert users.call("GET", path + sid).get_json()["error_code"] == "VALIDATION_ERROR"


def test_login_that_overlaps_a_change_of_the_password_fails(users: UserApp) -> None:
    """The old password was right when it was checked, but the change is over before the login opens."""
    account = users.db.statement(
        "SELECT user_id, password_hash FROM users WHERE email = %(email)s", email=log_in(users)["user"]["email"]
    )
    assert account is not None
    assert logins.open_login(users.db, account, "before", "")
    with users.db.transaction() as tx:
        tx.run("UPDATE users SET password_hash = 'another' WHERE user_id = %(user_id)s", user_id=account["user_id"])
    assert logins.open_login(users.db, account, "after", "") is None
