"""The list of ended logins that the other services follow."""

from __future__ import annotations

from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from services.user.store import logins
from tests.support.waiting import wait_until
from tests.unit.user.user_app import UserApp, refusal

pytestmark = pytest.mark.unit

FOLLOWERS = ["orchestrator-service", "order-service", "inventory-service", "event-service"]


def news(users: UserApp, after: int = 0, caller: str = "order-service") -> dict[str, Any]:
    answer = users.call("GET", f"/auth/revocations?after={after}", caller=caller)
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.get_json()["data"]
    return data


def newest(users: UserApp) -> int:
    """The cursor at the end of the list."""
    cursor, more = 0, True
    while more:
        page = news(users, cursor)
        cursor, more = page["cursor"], page["more"]
    return cursor


def revoked(users: UserApp) -> str:
    sid = str(uuid4())
    logins.revoke(users.db, sid, uuid4())
    return sid


@pytest.mark.parametrize("caller", FOLLOWERS)
def test_each_follower_hears_of_an_ended_login(users: UserApp, caller: str) -> None:
    start = newest(users)
    sid = revoked(users)
    page = news(users, start, caller)
    assert [entry["sid"] for entry in page["revocations"]] == [sid]
    assert 900 < page["revocations"][0]["seconds_left"] <= logins.REMEMBERED_SECONDS
    assert (page["more"], page["cursor"] > start) == (False, True)


def test_nothing_new_keeps_the_cursor(users: UserApp) -> None:
    revoked(users)
    start = newest(users)
    assert news(users, start) == {"revocations": [], "cursor": start, "more": False}


def test_a_long_list_comes_in_pages_that_miss_nothing(users: UserApp, monkeypatch: pytest.MonkeyPatch) -> None:
    start = newest(users)
    monkeypatch.setattr(logins, "PAGE", 2)
    ended = [revoked(users) for _ in range(5)]
    heard, cursor, more = [], start, True
    while more:
        page = news(users, cursor)
        heard += [entry["sid"] for entry in page["revocations"]]
        cursor, more = page["cursor"], page["more"]
    assert heard == ended


def test_a_login_whose_tokens_ran_out_is_not_told_and_is_not_looked_at_again(users: UserApp) -> None:
    start = newest(users)
    sid = revoked(users)
    with users.db.transaction() as tx:
        tx.run("UPDATE revoked_logins SET revoked_at = now() - interval '17 minutes' WHERE sid = %(sid)s", sid=sid)
    page = news(users, start)
    assert (page["revocations"], page["cursor"] > start) == ([], True)


def test_a_login_is_remembered_as_long_as_its_refresh_token_lives(users: UserApp) -> None:
    young, old = revoked(users), revoked(users)
    with users.db.transaction() as tx:
        for sid, age in ((young, "6 days"), (old, "8 days")):
            tx.run(
                "UPDATE revoked_logins SET revoked_at = now() - %(age)s::interval WHERE sid = %(sid)s", sid=sid, age=age
            )
    revoked(users)
    stored = logins.StoredRevocations(users.db)
    assert (stored.is_revoked(young), stored.is_revoked(old)) == (True, False)


def test_a_row_that_commits_late_is_not_skipped(users: UserApp) -> None:
    """Two logouts overlap and a follower looks in between: both have to reach it, whichever ends first."""
    start = newest(users)
    early, late = str(uuid4()), str(uuid4())
    other = Thread(target=lambda: logins.revoke(users.db, late, uuid4()))
    with users.db.transaction() as tx:
        tx.run(logins._ONE_AT_A_TIME)
        tx.run(logins._REVOKE, sid=early, user_id=uuid4())
        other.start()
        wait_until(lambda: users.waiting() > 0 or not other.is_alive())
        seen = news(users, start)
    other.join()
    seen_then = news(users, seen["cursor"])
    heard = [entry["sid"] for page in (seen, seen_then) for entry in page["revocations"]]
    assert sorted(heard) == sorted([early, late])


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "9" * 19, "٣"])
def test_a_cursor_that_is_none_is_a_validation_error(users: UserApp, after: str) -> None:
    answer = users.call("GET", f"/auth/revocations?after={after}")
    assert (answer.status_code, refusal(answer)) == (400, "VALIDATION_ERROR")
