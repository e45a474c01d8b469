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

POLLERS = ["orchestrator-service", "order-service", "inventory-service", "event-service"]


def read_page(users: UserApp, after: int = 0, caller: str = "order-service") -> dict[str, Any]:
    answer = users.call("GET", f"/auth/revocations?after={after}", caller=caller)
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
    revoke_session(users)
    start = read_last_cursor(users)
    assert read_page(users, start) == {"revocations": [], "cursor": start, "more": False}


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
        tx.run(revocations._REVOKE, sid=early, user_id=uuid4())
        other.start()
        wait_until(lambda: users.count_waiting() > 0 or not other.is_alive())
        first = read_page(users, start)
    other.join()
    second = read_page(users, first["cursor"])
    listed = [entry["sid"] for page in (first, second) for entry in page["revocations"]]
    assert sorted(listed) == sorted([early, late])


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "9" * 19, "٣"])
def test_invalid_cursor_is_a_validation_error(users: UserApp, after: str) -> None:
    answer = users.call("GET", f"/auth/revocations?after={after}")
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")
