"""An attempt at a code whose end gets no answer: it is ended later, so that it does not stay taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.chassis.clean_ups import CleanUps
from services.chassis.errors import Unknown
from services.orchestrator.tickets import otp
from services.orchestrator.tickets.otp import OtpService

pytestmark = pytest.mark.unit


class Order:
    """The Order service, which takes attempts. It ends none while `error` is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.taken: set[str] = set()

    def take_attempt(self, _target: str, key: str) -> dict[str, Any]:
        self.taken.add(key)
        return {"verification_sid": "VE1"}

    def close_attempt(self, _target: str, key: str, _outcome: str) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.taken.discard(key)
        return {}


def test_attempt_is_ended_once_order_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otp, "CLOSING_SECONDS", 0.0)
    order, clean_ups = Order(), CleanUps()
    users = SimpleNamespace(verify_otp=lambda _sid, _code: "approved")
    service = OtpService(cast(Any, SimpleNamespace(users=users, orders=order)), 0.1, clean_ups)
    order.error = Unknown("Order does not answer")
    with pytest.raises(Unknown):
        service.verify("orders/1", "123456")
    clean_ups.tick()
    assert len(order.taken) == 1
    order.error = None
    clean_ups.tick()
    assert order.taken == set()
