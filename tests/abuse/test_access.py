"""Every operation of the specs, called by each caller with each kind of token, and by the owner and a stranger."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from harness.api_client import ApiResponse
from tests.abuse import access_matrix
from tests.abuse.access_matrix import Cell, Counts, Tokens
from tests.contract.probes import Operation
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

ALL = access_matrix.list_all()
OWNED = [
    operation
    for server, operation in ALL
    if server == "gateway" and (rule := access_matrix.find_rule(server, operation)) and rule.of
]


@pytest.fixture(scope="module")
def tokens(system: TestSystem) -> Tokens:
    """The tokens of all callers."""
    return Tokens(system)


@pytest.fixture(scope="module")
def counts() -> Iterator[Counts]:
    """The counts of the report."""
    counts = Counts()
    yield counts
    counts.write()


def test_every_operation_has_a_rule_and_every_rule_an_operation() -> None:
    missing = [
        f"{server} {operation.id}" for server, operation in ALL if not access_matrix.find_rule(server, operation)
    ]
    assert not missing, "add its callers to tests/abuse/access.toml"
    known = {(server, operation.id) for server, operation in ALL}
    named = {(server, name) for server, table in access_matrix.read_table().items() for name in table}
    assert {(s, n) for s, n in named if s != "every"} <= known


@pytest.mark.claim(
    "gateway/customer-routes",
    "gateway/staff-routes",
    "token/role",
    "architecture/only-gateway-is-public",
    "architecture/one-orchestrator",
)
@pytest.mark.parametrize(("server", "operation"), ALL, ids=[f"{server}-{operation.id}" for server, operation in ALL])
def test_operation_admits_only_its_callers(
    system: TestSystem, tokens: Tokens, counts: Counts, server: str, operation: Operation
) -> None:
    rule = access_matrix.find_rule(server, operation)
    assert rule, "add its callers to tests/abuse/access.toml"
    called = "api-gateway" if server == "gateway" else f"{server}-service"
    client = system.visitor(system.stack.url(called))
    cells = list(access_matrix.list_cells(rule, tokens, called))
    target = operation.target(**{name: str(uuid4()) for name in operation.parameters("path") if name != "name"})
    for cell in cells:
        answer = client.call(operation.method, target, token=cell.token)
        assert_expected(cell, answer)
        assert_protected(answer)
    counts.add(server, [cell.refusal for cell in cells])


def assert_expected(cell: Cell, answer: ApiResponse) -> None:
    """Fail unless the call was admitted or refused as in the cell. An admitted call may fail for another reason."""
    got = answer.status if answer.status in (401, 403) else 0
    assert got == cell.refusal, (cell.caller, answer)
    assert answer.status < 500, (cell.caller, answer)


def assert_protected(answer: ApiResponse) -> None:
    """Fail unless the answer can be neither stored, nor framed, nor read as another type."""
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    stored = answer.headers["Cache-Control"]
    assert stored == "no-store" or b"<!DOCTYPE html>" in answer.body or "ETag" in answer.headers, stored


class Owned:
    """The things of one owner: a held order, a ticket, and a transfer of another ticket to a friend."""

    def __init__(self, system: TestSystem) -> None:
        self.owner, self.friend, self.stranger = system.people(3)
        _, order_id = system.hold_seat(self.owner)
        sold = system.insert_ticket(self.owner)
        self.ids = {
            "order_id": order_id,
            "seat_id": system.insert_ticket(self.owner),
            "transfer_id": system.start_transfer(self.owner, self.friend, sold),
            "seller_user_id": self.owner.user_id,
            "buyer_user_id": self.friend.user_id,
        }

    def call(self, operation: Operation, caller: Person) -> ApiResponse:
        """Call an operation with the ids of the owner, in its path or in its body."""
        body = copy.deepcopy(operation.content[1]) if operation.content else None
        if body is not None:
            body = {name: value for name, value in body.items() if name not in self.ids} | self._in_body(operation)
        return caller.call(operation.method, operation.target(**self.ids), body)

    def _in_body(self, operation: Operation) -> dict[str, Any]:
        rule = access_matrix.find_rule("gateway", operation)
        assert rule
        wanted = ("seat_id", "seller_user_id", "buyer_user_id") if rule.of == "seller_user_id" else (rule.of,)
        return {name: self.ids[name] for name in wanted}


@pytest.mark.parametrize("operation", OWNED, ids=[operation.id for operation in OWNED])
def test_stranger_is_refused_and_the_owner_admitted(system: TestSystem, operation: Operation, counts: Counts) -> None:
    things, rule = Owned(system), access_matrix.find_rule("gateway", operation)
    assert rule
    refused = things.call(operation, things.stranger)
    assert (refused.status, refused.error_code) == (403, rule.stranger)
    admitted = things.call(operation, things.owner)
    assert admitted.status != 404, admitted
    assert admitted.error_code not in ("UNAUTHORIZED", "VALIDATION_ERROR", rule.stranger), admitted
    counts.add("gateway", [0, 403])


@pytest.mark.negative_control
def test_operation_without_a_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {server: {**rules} for server, rules in access_matrix.read_table().items()}
    del table["gateway"]["pay"]
    monkeypatch.setattr(access_matrix, "read_table", lambda: table)
    with pytest.raises(AssertionError, match="add its callers"):
        test_every_operation_has_a_rule_and_every_rule_an_operation()
