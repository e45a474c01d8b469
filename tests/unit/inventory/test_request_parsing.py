"""Invalid gRPC requests and forbidden callers of Inventory."""

from __future__ import annotations

from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.chassis.errors import ConfigurationError, Unknown
from services.contracts.pb import inventory_pb2 as pb
from services.inventory.grpc_server import require_callers
from tests.support.service_settings import new_id, new_key
from tests.unit.inventory.inventory_service import HASH, expect_refusal

pytestmark = pytest.mark.unit

SERVICE = pb.DESCRIPTOR.services_by_name["Inventory"]
VERBS = [method.name for method in SERVICE.methods]
A = "00000000-0000-0000-0000-00000000000a"
SALE = {"seat_id": A, "order_id": A, "expected_owner_id": A}
FACTS = {"scan_id": "s", "staff_id": A}
GOOD: dict[str, dict[str, Any]] = {
    "ReserveSeat": {"seat_id": A, "user_id": A, "hold_id": A, "ttl_seconds": 300},
    "ReleaseSeat": {"seat_id": A, "hold_id": A},
    "ConfirmSeat": {
        "key": "k",
        "seat_id": A,
        "hold_id": A,
        "order_id": A,
        "user_id": A,
        "price": "1.00",
        "qr_code_hash": HASH,
    },
    "UpdateOwner": {"key": "k", **SALE, "new_owner_id": A, "qr_code_hash": HASH},
    "CancelSale": {"key": "k", **SALE},
    "Settle": {"key": "k"},
    "VerifyTicket": {"seat_id": A},
    "GetSeatOwner": {"seat_id": A},
    "MarkCheckedIn": {**SALE, "facts": FACTS},
    "LogEntry": {"seat_id": A, "result": "EXPIRED", "facts": FACTS},
    "ListTickets": {"owner_user_id": A},
    "ListEffects": {"keys": ["k"], "max_age": 60},
}
IDS = [(verb, name) for verb, fields in GOOD.items() for name in fields if name.endswith("_id")]
NOT_IDS = ["", "x", "5ea70001", "\0" * 36, "5ea70001-0000-0000-0000-00000000000g", "é" * 32]
NOT_AMOUNTS = ["", "0", "0.00", "-1", "1.005", "NaN", "Infinity", "1e999999999", "100000000.00", "ten", "1,00", "\0"]


def test_every_verb_has_a_valid_request_here():
    assert set(GOOD) == set(VERBS)


@pytest.mark.parametrize(("verb", "name"), IDS)
@pytest.mark.parametrize("text", NOT_IDS)
def test_id_that_is_no_uuid_is_refused(inventory, verb, name, text):
    if verb == "LogEntry" and text == "":
        return  # an unreadable QR names no seat
    with expect_refusal("INVALID_UUID"):
        inventory.call(verb, **{**GOOD[verb], name: text})


@pytest.mark.parametrize("ttl", [0, -1, 301, 2**31 - 1])
def test_ttl_outside_1_to_300_is_not_valid(inventory, ttl):
    with expect_refusal("VALIDATION_ERROR"):
        inventory.reserve(inventory.new_seat(), ttl=ttl)


@pytest.mark.parametrize("price", NOT_AMOUNTS)
def test_invalid_price_is_refused_and_the_hold_stays(inventory, price):
    seat_id, hold_id, user_id = inventory.held_seat()
    key = new_key()
    with expect_refusal("VALIDATION_ERROR"):
        inventory.confirm(seat_id, hold_id, user_id, key, price=price)
    assert inventory.confirm(seat_id, hold_id, user_id, key).owner_user_id == user_id


@pytest.mark.parametrize(
    ("verb", "wrong"),
    [
        ("ConfirmSeat", {"key": ""}),
        ("ConfirmSeat", {"key": "k" * 201}),
        ("Settle", {"key": "a\0b"}),
        ("ConfirmSeat", {"qr_code_hash": "short"}),
        ("UpdateOwner", {"qr_code_hash": HASH.upper()}),
        ("LogEntry", {"result": "SUCCESS"}),
        ("LogEntry", {"result": "FINE"}),
        ("LogEntry", {"facts": {**FACTS, "hall_id_staff": "H" * 21}}),
        ("LogEntry", {"facts": {**FACTS, "hall_id_presented": "a\0b"}}),
        ("MarkCheckedIn", {"facts": {**FACTS, "scan_id": ""}}),
        ("ListEffects", {"keys": ["k"] * 51}),
        ("ListEffects", {"min_age": -1}),
        ("ListEffects", {"max_age": float("nan")}),
        ("ListEffects", {"after": "a\0b"}),
    ],
)
def test_invalid_field_is_refused(inventory, verb, wrong):
    with expect_refusal("VALIDATION_ERROR"):
        inventory.call(verb, **{**GOOD[verb], **wrong})


@pytest.mark.parametrize("verb", ["MarkCheckedIn", "LogEntry"])
def test_scan_without_a_staff_member_is_refused(inventory, verb):
    with expect_refusal("INVALID_UUID"):
        inventory.call(verb, **{**GOOD[verb], "facts": {"scan_id": "s"}})


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("caller", ["order-service", "event-service", "inventory-service"])
def test_only_the_orchestrator_may_call(inventory, verb, caller):
    with pytest.raises(Unknown, match="PERMISSION_DENIED"):  # an error of the call, so Unknown
        inventory.call_as(inventory.peer_for(caller), verb, **GOOD[verb])


@pytest.mark.parametrize("verb", VERBS)
def test_credential_of_another_key_or_service_is_refused(inventory, verb):
    orchestrator = "orchestrator-service"
    for peer in (
        inventory.peer_for(orchestrator, signer="event-service"),
        inventory.peer_for(orchestrator, signer="user-service"),
        inventory.peer_for(orchestrator, called="order-service"),
    ):
        with pytest.raises(Unknown, match="UNAUTHENTICATED"):
            inventory.call_as(peer, verb, **GOOD[verb])


def test_upper_case_id_is_the_same_seat(inventory):
    seat_id = inventory.new_seat()
    hold_id = new_id()
    assert inventory.reserve(seat_id.upper(), hold_id=hold_id.upper()).hold_id == hold_id
    assert inventory.release(seat_id, hold_id) is True


def test_health_and_reflection_answer_without_a_credential(inventory):
    health = health_pb2_grpc.HealthStub(inventory.channel)
    for name in ("", SERVICE.full_name):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(inventory.channel).ServerReflectionInfo(
        iter([listing]), timeout=5
    )
    (answer,) = list(answers)
    assert SERVICE.full_name in {service.name for service in answer.list_services_response.service}


def test_method_without_callers_prevents_the_start():
    class Bare:
        pass

    with pytest.raises(ConfigurationError, match="ReserveSeat"):
        require_callers(Bare(), SERVICE)
