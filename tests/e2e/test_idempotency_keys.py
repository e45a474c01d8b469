"""`Idempotency-Key` on reserve, top-up, initiate and verify: one key has one effect and one answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest

from harness.api_client import ApiResponse
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.people import Person
from tests.support.system import TestSystem

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("invariants")]


@dataclass
class KeyedCall:
    """A call under a key. `other_body` and `other_user` reuse the key, and `count_effects` counts the results."""

    send: Callable[[str], ApiResponse]
    other_body: Callable[[str], ApiResponse]
    count_effects: Callable[[], int]
    id_field: str  # the field of the answer that identifies the effect
    other_user: Callable[[str], ApiResponse]


def make_reserve(system: TestSystem) -> KeyedCall:
    person, seat, stranger = system.person("5000.00"), system.seat(), system.person()
    sql = "SELECT 1 FROM orders WHERE user_id = %s"
    return KeyedCall(
        send=lambda key: person.reserve(seat, **{"Idempotency-Key": key}),
        other_body=lambda key: person.reserve(system.seat(), **{"Idempotency-Key": key}),
        count_effects=lambda: len(system.rows("orders_db", sql, person.user_id)),
        id_field="order_id",
        other_user=lambda key: stranger.reserve(system.seat(), **{"Idempotency-Key": key}),
    )


def make_top_up(system: TestSystem) -> KeyedCall:
    person, stranger = system.person(), system.person()
    before = len(system.stripe.calls("/v1/payment_intents"))
    return KeyedCall(
        send=lambda key: person.top_up(25, **{"Idempotency-Key": key}),
        other_body=lambda key: person.top_up(26, **{"Idempotency-Key": key}),
        count_effects=lambda: len(system.stripe.calls("/v1/payment_intents")) - before,
        id_field="payment_intent_id",
        other_user=lambda key: stranger.top_up(25, **{"Idempotency-Key": key}),
    )


def make_initiate(system: TestSystem) -> KeyedCall:
    seller, buyer = system.person(), system.person()
    seat, another = system.insert_tickets(seller, 2)

    def start(user: Person, seat_id: str, key: str) -> ApiResponse:
        body = {
            "seat_id": seat_id,
            "seller_user_id": seller.user_id,
            "buyer_user_id": buyer.user_id,
            "credits_amount": 5,
        }
        return user.post("/api/transfer/initiate", body, **{"Idempotency-Key": key})

    sql = "SELECT 1 FROM transfers WHERE seat_id = %s"
    return KeyedCall(
        send=lambda key: start(seller, seat, key),
        other_body=lambda key: start(seller, another, key),
        count_effects=lambda: len(system.rows("orders_db", sql, seat)),
        id_field="transfer_id",
        other_user=lambda key: start(buyer, another, key),
    )


def make_verify(system: TestSystem) -> KeyedCall:
    owner, staff, colleague = system.person(), system.staff(), system.staff()
    seat, another = system.insert_tickets(owner, 2)
    qr, other_qr = (owner.qr(one).must()["qr_payload"] for one in (seat, another))
    sql = "SELECT 1 FROM entry_logs WHERE seat_id = %s AND result = 'SUCCESS'"
    return KeyedCall(
        send=lambda key: staff.scan(qr, "HALL-B", **{"Idempotency-Key": key}),
        other_body=lambda key: staff.scan(other_qr, "HALL-B", **{"Idempotency-Key": key}),
        count_effects=lambda: len(system.rows("seats_db", sql, seat)),
        id_field="result",
        other_user=lambda key: colleague.scan(other_qr, "HALL-B", **{"Idempotency-Key": key}),
    )


@pytest.fixture(params=[make_reserve, make_top_up, make_initiate, make_verify])
def call(system: TestSystem, request: pytest.FixtureRequest) -> KeyedCall:
    """Make each keyed call in turn."""
    make_call: Callable[[TestSystem], KeyedCall] = request.param
    return make_call(system)


def test_the_same_key_and_body_get_the_first_answer(call: KeyedCall) -> None:
    key = str(uuid4())
    first, again = call.send(key), call.send(key)
    assert first.status in (200, 201)
    assert (again.status, again.data) == (first.status, first.data)
    assert call.count_effects() == 1


def test_the_same_key_with_another_body_is_422(call: KeyedCall) -> None:
    key = str(uuid4())
    call.send(key).must()
    assert outcomes([call.other_body(key)]) == {"422 IDEMPOTENCY_KEY_REUSED": 1}
    assert call.count_effects() == 1


def test_ten_calls_at_once_under_one_key_have_one_effect(call: KeyedCall) -> None:
    key = str(uuid4())
    answers = run_concurrently([lambda: call.send(key)] * 10)
    seen = outcomes(answers)
    assert seen.keys() <= {"200", "201", "409 REQUEST_IN_PROGRESS"}, seen
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers if a.status == 409)
    done = {a.data[call.id_field] for a in answers if a.status < 300}
    assert done == {call.send(key).must()[call.id_field]}
    assert call.count_effects() == 1


def test_another_user_may_use_the_same_key(call: KeyedCall) -> None:
    key = str(uuid4())
    first = call.send(key).must()
    other = call.other_user(key)
    assert other.status < 300, other
    assert other.data != first


def test_a_refusal_is_stored_and_a_503_is_not(system: TestSystem) -> None:
    person, seat = system.person(), system.seat()
    holder, key = system.person(), {"Idempotency-Key": str(uuid4())}
    _, order_id = system.hold_seat(holder, seat)
    assert outcomes([person.reserve(seat, **key)]) == {"409 SEAT_UNAVAILABLE": 1}
    with system.clock("seats_db", 400):
        system.wait_until("the hold is over", lambda: system.seat_status(seat) == "AVAILABLE")
    assert outcomes([person.reserve(seat, **key)]) == {"409 SEAT_UNAVAILABLE": 1}
    assert person.reserve(seat).status == 200
    flagged, key = system.person(flagged=True), {"Idempotency-Key": str(uuid4())}
    wanted = system.seat()
    with system.smu.fault("status", "/SendOTP", status=500):
        assert outcomes([flagged.reserve(wanted, **key)]) == {"503 SERVICE_UNAVAILABLE": 1}
    assert system.order_status(order_id) in ("PENDING", "FAILED")
    assert flagged.reserve(wanted, **key).status == 200, "a 503 is not stored, so the same key may be used again"


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_of_the_wrong_length_is_a_validation_error(system: TestSystem, key: str) -> None:
    answer = system.person().reserve(system.seat(), **{"Idempotency-Key": key})
    assert outcomes([answer]) == {"400 VALIDATION_ERROR": 1}
