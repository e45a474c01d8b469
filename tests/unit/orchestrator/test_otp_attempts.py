"""An attempt at a code whose end gets no answer: it is ended later, so that it does not stay taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
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


@pytest.fixture
def order() -> Order:
    return Order()


@pytest.fixture
def service(order: Order, monkeypatch: pytest.MonkeyPatch) -> OtpService:
    monkeypatch.setattr(otp, "CLOSING_SECONDS", 0.0)
    users = SimpleNamespace(verify_otp=lambda _sid, _code: "approved")
    return OtpService(cast(Any, SimpleNamespace(users=users, orders=order)), 0.1)


def lose_end(service: OtpService, order: Order) -> None:
    """Take an attempt whose end gets no answer."""
    order.error = Unknown("Order does not answer")
    with pytest.raises(Unknown):
        service.verify("orders/1", "123456")
    assert len(order.taken) == 1


def test_attempt_is_ended_once_order_answers_again(service: OtpService, order: Order) -> None:
    lose_end(service, order)
    service.close_abandoned()
    assert len(order.taken) == 1
    order.error = None
    service.close_abandoned()
    assert order.taken == set()


def test_refused_end_is_not_repeated(service: OtpService, order: Order) -> None:
    lose_end(service, order)
    order.error = Refused(ErrorCode.STEP_VOIDED)
    service.close_abandoned()
    order.error = None
    service.close_abandoned()
    assert len(order.taken) == 1


def test_attempt_of_an_expired_order_is_forgotten(
    service: OtpService, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otp, "KEPT_SECONDS", 0.0)
    lose_end(service, order)
    service.close_abandoned()
    order.error = None
    service.close_abandoned()
    assert len(order.taken) == 1
