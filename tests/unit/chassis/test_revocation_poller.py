"""RevocationPoller with an example answer of User."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from services.chassis.clients import HttpPeer
from services.chassis.revocations import RevocationPoller
from services.chassis.tokens import Credential
from tests.support.stubs import check_response

pytestmark = pytest.mark.unit

ONE = b'{"success":true,"data":{"revocations":[{"sid":"ended","seconds_left":959.876}],"cursor":1,"more":false}}'


def respond(method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float) -> tuple[int, bytes]:
    return check_response("user", method, url, 200, ONE)


def test_one_poll_reads_the_revoked_sessions() -> None:
    peer = HttpPeer("User", "http://user", Credential("event-service", "s" * 32), respond)
    poller = RevocationPoller(peer)
    poller.poll()
    assert poller.is_revoked("ended")
    assert not poller.is_revoked("another")
    assert poller.age() < 5
