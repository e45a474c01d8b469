"""`running` waits until the fake answers, also if the machine is busy."""

from __future__ import annotations

import socket

import pytest

from tests.support.fake_servers import is_healthy

pytestmark = pytest.mark.unit


def test_fake_that_does_not_answer_yet_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not is_healthy(f"http://127.0.0.1:{silent.getsockname()[1]}")
