"""The invariant checks report damaged rows, and never fail on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from harness.invariants import Snapshot, i6_owner_is_the_end_of_the_chain

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ORDER, SEAT, A, B, C = (uuid4() for _ in range(5))


def transfer(seller: Any, buyer: Any, completed: int | None, created: int = 0, status: str = "COMPLETED") -> Any:
    """A transfer that was created and completed at these minutes."""
    return {
        "transfer_id": uuid4(), "order_id": ORDER, "seller_user_id": seller, "buyer_user_id": buyer, "status": status,
        "created_at": NOW + timedelta(minutes=created),
        "completed_at": None if completed is None else NOW + timedelta(minutes=completed),
    }  # fmt: skip


def check(owner: Any, *transfers: Any) -> list[str]:
    seats = [{"seat_id": SEAT, "order_id": ORDER, "owner_user_id": owner}]
    orders = [{"order_id": ORDER, "user_id": A}]
    snapshot = Snapshot({"seats": seats, "orders": orders, "transfers": list(transfers)})
    return list(i6_owner_is_the_end_of_the_chain(snapshot))


def test_chain_of_transfers_ends_at_the_owner() -> None:
    assert check(C, transfer(B, C, 2), transfer(A, B, 1)) == []
    assert len(check(B, transfer(B, C, 2), transfer(A, B, 1))) == 1


@pytest.mark.parametrize("status", ["COMPLETED", "DISPUTED"])
def test_transfer_without_a_completion_time_is_reported(status: str) -> None:
    broken = transfer(B, C, None, created=5, status=status)
    assert check(C, broken, transfer(A, B, 1)) == [f"transfer {broken['transfer_id']} is {status} without completed_at"]


def test_two_transfers_without_a_completion_time_are_reported() -> None:
    assert len(check(C, transfer(B, C, None, created=2), transfer(A, B, None, created=1))) == 2
