"""The list of revoked sessions that the other services poll."""

from __future__ import annotations

from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from services.user.store import revocations
from tests.support.waiting import wait_until
from tests.unit.user.user_app import UserApp, error_code

pytestmark = pytest.mark.unit

POLLERS = ["orchestrator-service", "event-service"]


def read_page(users: UserApp, after: int = 0, caller: str = "event-service", sid: str = "") -> dict[str, Any]:
    answer = users.call("GET", f"/auth/revocations?after={after}&after_sid={sid}", caller=caller)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.get_json()["data"]
    return data


def read_last_cursor(users: UserApp) -> int:
    """Return the cursor at the end of the list."""
    cursor, more = 0, True
    while more:
        page = read_page(users, cursor)
        cursor, more = page["cursor"], page["more"]
    return cursor


def revoke_session(users: UserApp) -> str:
    sid = str(uuid4())
    revocations.revoke(users.db, sid, uuid4())
    return sid


@pytest.mark.parametrize("caller", POLLERS)
def test_each_service_lists_a_revoked_session(users: UserApp, caller: str) -> None:
    start = read_last_cursor(users)
    sid = revoke_session(users)
    page = read_page(users, start, caller)
    assert [entry["sid"] for entry in page["revocations"]] == [sid]
    assert 900 < page["revocations"][0]["seconds_left"] <= revocations.LISTED_SECONDS
    assert (page["more"], page["cursor"] > start) == (False, True)


def test_empty_page_keeps_the_cursor(users: UserApp) -> None:
    sid = revoke_session(users)
    start = read_last_cursor(users)
    assert read_page(users, start, sid=sid) == {"revocations": [], "cursor": start, "cursor_sid": sid, "more": False}


def test_pages_list_every_revoked_session(users: UserApp, monkeypatch: pytest.MonkeyPatch) -> None:
    start = read_last_cursor(users)
    monkeypatch.setattr(revocations, "PAGE", 2)
    revoked = [revoke_session(users) for _ in range(5)]
    listed, cursor, more = [], start, True
    while more:
        page = read_page(users, cursor)
        listed += [entry["sid"] for entry in page["revocations"]]
        cursor, more = page["cursor"], page["more"]
    assert listed == revoked


def test_session_with_expired_tokens_is_skipped(users: UserApp) -> None:
    start = read_last_cursor(users)
    sid = revoke_session(users)
    with users.db.transaction() as tx:
        tx.run("UPDATE revoked_logins SET revoked_at = now() - interval '17 minutes' WHERE sid = %(sid)s", sid=sid)
    page = read_page(users, start)
    assert (page["revocations"], page["cursor"] > start) == ([], True)


def test_revocation_is_stored_until_the_refresh_token_expires(users: UserApp) -> None:
    young, old = revoke_session(users), revoke_session(users)
    with users.db.transaction() as tx:
        for sid, age in ((young, "6 days"), (old, "8 days")):
            tx.run(
                "UPDATE revoked_logins SET revoked_at = now() - %(age)s::interval WHERE sid = %(sid)s", sid=sid, age=age
            )
    revoke_session(users)
    stored = revocations.StoredRevocations(users.db)
    assert (stored.is_revoked(young), stored.is_revoked(old)) == (True, False)


def test_cursor_never_skips_a_late_commit(users: UserApp) -> None:
    """A read between two overlapping logouts must not hide the one that commits last."""
    start = read_last_cursor(users)
    early, late = str(uuid4()), str(uuid4())
    other = Thread(target=lambda: revocations.revoke(users.db, late, uuid4()))
    with users.db.transaction() as tx:
        tx.run(revocations._LOCK_TABLE)
        tx.run(revocations._REVOKE, sids=[early], user_id=uuid4())
        other.start()
        wait_until(lambda: users.count_waiting() > 0 or not other.is_alive())
        first = read_page(users, start)
    other.join()
    second = read_page(users, first["cursor"])
    listed = [entry["sid"] for page in (first, second) for entry in page["revocations"]]
    assert sorted(listed) == sorted([early, late])


@pytest.mark.parametrize("sid", ["another", "0e8b5f0c-6a52-4f0e-9c43-2b0f6f6f1a11"])
def test_cursor_with_another_session_starts_again(users: UserApp, sid: str) -> None:
    """A restored list has another session at the cursor, or none."""
    revoked = [revoke_session(users) for _ in range(2)]
    page = read_page(users, read_last_cursor(users), sid=sid)
    assert [entry["sid"] for entry in page["revocations"]][-2:] == revoked


def test_cursor_beyond_the_end_starts_again(users: UserApp) -> None:
    """A poller of an older version sends no session with its cursor."""
    revoked = revoke_session(users)
    page = read_page(users, 10**15)
    assert page["revocations"][-1]["sid"] == revoked
    assert page["cursor"] < 10**15


def test_cursor_whose_entry_has_expired_skips_nothing(users: UserApp) -> None:
    old = revoke_session(users)
    cursor = read_last_cursor(users)
    with users.db.transaction() as tx:
        tx.run("UPDATE revoked_logins SET revoked_at = now() - interval '8 days' WHERE sid = %(sid)s", sid=old)
    new = revoke_session(users)
    page = read_page(users, cursor, sid=old)
    assert page["revocations"][-1]["sid"] == new
    assert page["cursor_sid"] == new


@pytest.mark.parametrize("sid", ["x" * 201, "%00", "%0a"])
def test_invalid_session_of_a_cursor_is_a_validation_error(users: UserApp, sid: str) -> None:
    answer = users.call("GET", f"/auth/revocations?after=1&after_sid={sid}")
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "9" * 19, "٣"])
def test_invalid_cursor_is_a_validation_error(users: UserApp, after: str) -> None:
    answer = users.call("GET", f"/auth/revocations?after={after}")
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")
