"""RevocationPoller with an example answer of User."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import pytest

from services.chassis.clients import HttpPeer
from services.chassis.revocations import RevocationPoller
from tests.support.service_settings import make_credential
from tests.support.stubs import check_response

pytestmark = pytest.mark.unit

ONE = (
    b'{"success":true,"data":{"revocations":[{"sid":"ended","seconds_left":959.876}],'
    b'"cursor":1,"cursor_sid":"ended","more":false}}'
)


def respond(method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float) -> tuple[int, bytes]:
    return check_response("user", method, url, 200, ONE)


def test_list_is_fresh_only_after_its_last_page() -> None:
    """After an outage, sessions of the next page would otherwise count as not revoked."""
    pages = [ONE.replace(b"false", b"true"), ONE, ONE.replace(b"false", b"true"), ONE]

    def respond_in_pages(
        method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        return check_response("user", method, url, 200, pages.pop(0))

    poller = RevocationPoller(
        HttpPeer("User", "http://user", make_credential("event-service", "user-service"), respond_in_pages)
    )
    assert poller.poll()
    assert poller.age() == float("inf")
    assert not poller.poll()
    first = poller._fresh_at
    assert poller.poll()
    assert poller._fresh_at == first, "another page follows, so the list is as old as before"
    assert not poller.poll()
    assert poller._fresh_at != first


def test_one_poll_reads_the_revoked_sessions() -> None:
    peer = HttpPeer("User", "http://user", make_credential("event-service", "user-service"), respond)
    poller = RevocationPoller(peer)
    poller.poll()
    assert poller.is_revoked("ended")
    assert not poller.is_revoked("another")
    assert poller.age() < 5


def test_next_poll_sends_the_cursor_with_its_session() -> None:
    """User compares the two, because a restored list has another session at the cursor."""
    urls = []

    def respond_and_record(
        method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        urls.append(url)
        return check_response("user", method, url, *respond(method, url, body, headers, timeout))

    peer = HttpPeer("User", "http://user", make_credential("event-service", "user-service"), respond_and_record)
    poller = RevocationPoller(peer)
    poller.poll()
    poller.poll()
    assert [url.partition("?")[2] for url in urls] == ["after=0", "after=1&after_sid=ended"]


def test_each_call_of_staff_reads_a_role_that_is_not_older() -> None:
    """A read that began before a call may show the role before a demotion, so the call must not use its result."""
    roles = iter(("staff", "customer"))

    def respond_in_turn(
        method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        page = b'{"success":true,"data":{"role":"%s"}}' % next(roles).encode()
        return check_response("user", method, url, 200, page)

    peer = HttpPeer("User", "http://user", make_credential("event-service", "user-service"), respond_in_turn)
    poller, user_id = RevocationPoller(peer), uuid4()
    assert [poller.find_role(user_id, "login") for _ in range(2)] == ["staff", "customer"]
