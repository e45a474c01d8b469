"""The inserted states equal the states after real flows, row by row, except for ids and times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from harness import invariants
from tests.saga.in_process.engine import Engine
from tests.saga.in_process.scenarios import FLOWS, Case

pytestmark = pytest.mark.saga

UNIQUE_COLUMNS = {
    "freeze_key",
    "dispute_reason",
    "qr_code_hash",
    "email",
    "phone",
    "row_number",
    "seat_number",
    "charge_key",
}
TABLES = ("seats", "users", "credit_entries", "credit_holds", "orders", "transfers")


def _reserve(case: Case) -> None:
    case.run("reserve").must(200)


def _buy(case: Case) -> None:
    _reserve(case)
    case.run("pay").must(200)
    case.people["staff"] = case.system.new_user("0.00", role="staff")


def _start_transfer(case: Case) -> None:
    _buy(case)
    case.people |= {"seller": case.people["buyer"], "buyer": case.system.new_user()}
    case.run("initiate").must(201)
    case.ids |= {"seller_code": case.code("seller"), "buyer_code": case.code("buyer")}


def _complete_transfer(case: Case) -> None:
    _start_transfer(case)
    case.run("confirm").must(200)


def _dispute_transfer(case: Case) -> None:
    _complete_transfer(case)
    case.run("dispute").must(200)


@pytest.mark.parametrize(
    ("flow", "run_flows", "flagged"),
    [
        ("pay", _reserve, False),
        ("verify-otp", _reserve, True),
        ("refund", _buy, False),
        ("confirm", _start_transfer, False),
        ("dispute", _complete_transfer, False),
        ("dismiss", _dispute_transfer, False),
    ],
)
def test_inserted_rows_equal_the_rows_of_real_flows(
    engine: Engine, flow: str, run_flows: Callable[[Case], None], flagged: bool
) -> None:
    inserted = engine.prepare(FLOWS[flow])
    real = Case(inserted.system, inserted.app, inserted.inbox, inserted.system.new_seat())
    real.people["buyer"] = real.system.new_user(flagged=flagged)
    run_flows(real)
    assert _read_rows(inserted) == _read_rows(real)


def _read_rows(case: Case) -> dict[str, list[dict[str, Any]]]:
    """Read all rows of a case, with users as names and without unique values and times."""
    names = {user: who for who, user in reversed(case.people.items())}
    scope = invariants.Scope([case.seat], list(dict.fromkeys(case.people.values())))
    found = invariants.read(case.system.connect, scope)
    return {table: sorted((_normalize_row(row, names) for row in found[table]), key=repr) for table in TABLES}


def _normalize_row(row: dict[str, Any], names: dict[UUID, str]) -> dict[str, Any]:
    return {column: _normalize(column, value, names) for column, value in row.items() if not _is_unique(column)}


def _is_unique(column: str) -> bool:
    return column in UNIQUE_COLUMNS or column == "key" or column.endswith("_at")


def _normalize(column: str, value: Any, names: dict[UUID, str]) -> Any:
    if value is None or column.endswith(("_until", "_sid")):
        return value is not None
    if isinstance(value, UUID):
        return names.get(value, "an id")
    return value
