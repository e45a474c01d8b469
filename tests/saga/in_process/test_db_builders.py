"""The states that the matrix starts from are those that the flows leave: row by row, but for ids and moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from harness import invariants
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.scenarios import FLOWS, Case

pytestmark = pytest.mark.saga

OWN = {"freeze_key", "dispute_reason", "qr_code_hash", "email", "phone", "row_number", "seat_number", "charge_key"}
TABLES = ("seats", "users", "credit_entries", "credit_holds", "orders", "transfers")


def _reserved(case: Case) -> None:
    case.run("reserve").must(200)


def _bought(case: Case) -> None:
    _reserved(case)
    case.run("pay").must(200)
    case.people["staff"] = case.system.new_user("0.00", role="staff")


def _offered(case: Case) -> None:
    _bought(case)
    case.people |= {"seller": case.people["buyer"], "buyer": case.system.new_user()}
    case.run("initiate").must(201)
    case.ids |= {"seller_code": case.code("seller"), "buyer_code": case.code("buyer")}


def _handed_over(case: Case) -> None:
    _offered(case)
    case.run("confirm").must(200)


def _disputed(case: Case) -> None:
    _handed_over(case)
    case.run("dispute").must(200)


@pytest.mark.parametrize(
    ("flow", "live", "flagged"),
    [
        ("pay", _reserved, False),
        ("verify-otp", _reserved, True),
        ("refund", _bought, False),
        ("confirm", _offered, False),
        ("dispute", _handed_over, False),
        ("dismiss", _disputed, False),
    ],
)
def test_written_state_is_the_one_that_the_flows_leave(
    engine: Engine, flow: str, live: Callable[[Case], None], flagged: bool
) -> None:
    written = engine.prepared(FLOWS[flow])
    lived = Case(written.system, written.app, written.inbox, written.system.new_seat())
    lived.people["buyer"] = lived.system.new_user(flagged=flagged)
    live(lived)
    assert _rows(written) == _rows(lived)


def _rows(case: Case) -> dict[str, list[dict[str, Any]]]:
    """The rows with people and moments as words, and other ids left out."""
    names = {user: who for who, user in reversed(case.people.items())}
    scope = invariants.Scope([case.seat], list(dict.fromkeys(case.people.values())))
    found = invariants.read(case.system.connect, scope)
    return {table: sorted((_row(row, names) for row in found[table]), key=repr) for table in TABLES}


def _row(row: dict[str, Any], names: dict[UUID, str]) -> dict[str, Any]:
    return {column: _word(column, value, names) for column, value in row.items() if not _is_own(column)}


def _is_own(column: str) -> bool:
    return column in OWN or column == "key" or column.endswith("_at")


def _word(column: str, value: Any, names: dict[UUID, str]) -> Any:
    if value is None or column.endswith(("_until", "_sid")):
        return value is not None
    if isinstance(value, UUID):
        return names.get(value, "an id")
    return value
