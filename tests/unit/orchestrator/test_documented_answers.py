"""Every error that a saga can return is documented at its route in specs/gateway.yaml.

The test reads the codes from the saga, from the checks and steps that raise them, and from the docstrings of the
participants' methods (`Raises Refused …`).
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from harness.dev.spec_bundle import bundle, operations, resolve
from services.contracts.errors import ERRORS, ErrorCode
from services.orchestrator import participants
from services.orchestrator.saga.definition import Saga
from services.orchestrator.saga.flows import SAGAS
from services.orchestrator.tickets.otp import OtpService

pytestmark = pytest.mark.unit

OPERATIONS = {
    "reserve": "reserve",
    "pay": "pay",
    "refund": "refundOrder",
    "initiate": "initiateTransfer",
    "transfer_confirm": "confirmTransfer",
    "dispute": "disputeTransfer",
    "reverse": "reverseTransfer",
    "dismiss": "dismissTransfer",
}
OTHER_OPERATIONS: dict[str, list[Callable[..., Any]]] = {
    "cancelTransfer": [participants.Orders.get_transfer, participants.Orders.cancel_transfer],
    "verifyOtp": [participants.Orders.get, OtpService.verify],
    "confirmTransfer": [participants.Orders.get_transfer, OtpService.verify],
    "resendOtp": [participants.Orders.get, participants.Orders.get_transfer, participants.Users.send_otp],
}
# Refusals that a call documents but that its caller can never return.
NEVER = {
    *((flow, ErrorCode.EVENT_NOT_FOUND) for flow in OPERATIONS),  # seats and orders name an event that exists
    *((flow, ErrorCode.ORDER_NOT_FOUND) for flow in OPERATIONS if SAGAS[flow].subject_name == "transfer_id"),
    ("reserve", ErrorCode.ORDER_NOT_FOUND),  # `replace_failed_hold` treats it as an order that has not failed
    ("refund", ErrorCode.NOT_SEAT_OWNER),  # `cancel_sale` replaces both by ORDER_NOT_REFUNDABLE
    ("refund", ErrorCode.SEAT_UNAVAILABLE),
    ("reverse", ErrorCode.INSUFFICIENT_CREDITS),  # `freeze_the_rest` replaces it by CREDITS_UNAVAILABLE
    ("dispute", ErrorCode.SEAT_NOT_FOUND),  # a transfer names a seat that exists
    ("reverse", ErrorCode.TICKET_LIMIT_REACHED),  # a return has no ticket limit
}
CLIENTS = {
    "users": participants.Users,
    "orders": participants.Orders,
    "events": participants.Events,
    "inventory": participants.Inventory,
}


def list_own_codes(saga: Saga) -> set[ErrorCode]:
    """The codes that the runner returns for the saga without regard to its steps."""
    codes = {ErrorCode.SERVICE_UNAVAILABLE, ErrorCode.REQUEST_IN_PROGRESS, saga.by_hand_code}
    return codes if saga.runs_forward_again else codes | {saga.undone_code}


def list_raised_codes(function: Callable[..., Any]) -> Iterator[ErrorCode]:
    """The codes that a step raises, by itself or in a function of its module, and those of the calls that it makes."""
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Call):
            yield from _list_codes_of_call(node, vars(inspect.getmodule(function)))


def _list_codes_of_call(call: ast.Call, module: dict[str, Any]) -> Iterator[ErrorCode]:
    text = ast.unparse(call)
    if raised := re.match(r"Refused\(ErrorCode\.(\w+)", text):
        yield ErrorCode[raised[1]]
    elif called := re.match(r"participants\.(\w+)\.(\w+)\(", text):
        yield from _list_refusals(called[1], called[2])
    elif isinstance(call.func, ast.Name) and inspect.isfunction(module.get(call.func.id)):
        yield from list_raised_codes(module[call.func.id])


def _list_refusals(client: str, method: str) -> Iterator[ErrorCode]:
    if client in CLIENTS:
        yield from _list_documented_refusals(getattr(CLIENTS[client], method))


def _list_documented_refusals(function: Callable[..., Any]) -> Iterator[ErrorCode]:
    documented = " ".join((inspect.getdoc(function) or "").split())
    for sentence in re.findall(r"Raises Refused ([^.]*)\.", documented):
        yield from (ErrorCode(word) for word in re.findall(r"[A-Z]+(?:_[A-Z]+)+", sentence))


def list_codes(saga: Saga) -> set[ErrorCode]:
    """Every code that the saga can return. A refusal past the pivot is retried and never returned."""
    steps = [step.do for step in saga.steps if step.do and not saga.is_past_pivot(step)]
    actions: list[Callable[..., Any]] = [saga.facts, saga.check, *steps]
    raised = {code for action in actions for code in list_raised_codes(action)}
    return list_own_codes(saga) | {code for code in raised if (saga.flow, code) not in NEVER}


@cache
def read_documented_codes(operation_id: str) -> dict[str, set[str]]:
    """The documented `error_code` values of an operation by status."""
    gateway = bundle("gateway")
    for _, _, operation in operations(gateway):
        if operation["operationId"] == operation_id:
            answers = operation["responses"].items()
            return {status: _find_codes(resolve(gateway, answer)) for status, answer in answers}
    raise LookupError(operation_id)


def _find_codes(answer: Any) -> set[str]:
    return set(re.findall(r"`([A-Z_]+)`", answer.get("description", "")))


def test_every_saga_has_a_route() -> None:
    assert OPERATIONS.keys() == SAGAS.keys()


@pytest.mark.parametrize("flow", SAGAS)
def test_route_documents_every_error_of_its_saga(flow: str) -> None:
    assert not find_undocumented(OPERATIONS[flow], list_codes(SAGAS[flow]))


@pytest.mark.parametrize("operation_id", OTHER_OPERATIONS)
def test_route_documents_every_refusal_of_its_calls(operation_id: str) -> None:
    calls = OTHER_OPERATIONS[operation_id]
    codes = {code for call in calls for code in _list_documented_refusals(call)}
    assert not find_undocumented(operation_id, codes | {ErrorCode.SERVICE_UNAVAILABLE})


def find_undocumented(operation_id: str, codes: set[ErrorCode]) -> set[str]:
    """The codes that the operation does not document at their status."""
    documented = read_documented_codes(operation_id)
    return {
        f"{ERRORS[code].http} {code}" for code in codes if code not in documented.get(str(ERRORS[code].http), set())
    }
