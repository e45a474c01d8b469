"""Each attack runs in parallel with honest purchases. This check must notice a purchase that failed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.abuse.honest_buyers import HonestBuyers
from tests.support.system import TestSystem

pytestmark = pytest.mark.abuse


def test_tickets_are_bought_during_the_block(system: TestSystem) -> None:
    with HonestBuyers(system) as buyers:
        system.wait_until("the first purchase", lambda: buyers.seconds)
    assert all(seconds > 0 for seconds in buyers.seconds)


@pytest.mark.negative_control
def test_refused_purchase_fails_the_block(system: TestSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def buy_nothing(*_: Any) -> None:
        """Return as if the purchase had succeeded, but leave the seat AVAILABLE."""

    monkeypatch.setattr(system, "buy_seat", buy_nothing)
    with pytest.raises(AssertionError, match="an honest purchase failed") as failed:
        with HonestBuyers(system):
            raise TimeoutError("no purchase came")
    assert "no purchase came" in failed.value.__notes__[0]
    assert isinstance(failed.value.__cause__, AssertionError)
