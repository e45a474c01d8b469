"""Transfers: one open transfer per seat, by the partial unique index. The tests cover each change of status."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from services.order import transfer_store
from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.support.service_settings import new_id, new_key
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit


# ── initiating


@pytest.mark.claim("transfer/records-initiator")
def test_new_transfer_expires_after_ten_minutes(service: OrderService) -> None:
    reply = service.initiate()
    assert (reply.status, reply.data["status"], reply.data["is_expired"]) == (201, "INITIATED", False)
    assert b'"credits_amount":120.50' in reply.raw
    with service.db.transaction() as tx:
        sql = "SELECT extract(epoch FROM expires_at - created_at) AS life FROM transfers WHERE transfer_id = %(id)s"
        assert tx.only(sql, id=UUID(reply.data["transfer_id"]))["life"] == transfer_store.LIFE_SECONDS


@pytest.mark.claim(
    "schema/one-open-transfer-index",
    "transfer/one-open-per-seat",
    "lock/open-transfer-index",
    "lock/transfer-race-has-loser",
)
def test_one_of_twenty_concurrent_initiations_succeeds(service: OrderService) -> None:
    seat_id = new_id()
    replies = run_concurrently([lambda: service.initiate(seat_id=seat_id)] * 20)
    assert sorted(reply.code or "" for reply in replies) == [""] + ["TRANSFER_IN_PROGRESS"] * 19
    assert len(service.call("GET", f"/transfers?seat_id={seat_id}").data) == 1


@pytest.mark.claim("schema/one-open-transfer-index", "lock/open-transfer-index")
@pytest.mark.parametrize("stage", ["initiated", "awaiting", "verified", "disputed"])
def test_open_or_disputed_transfer_blocks_a_second_one(service: OrderService, stage: str) -> None:
    seat_id = new_id()
    if stage == "disputed":
        first = service.add_completed(seat_id=seat_id, order_id=service.add_confirmed(seat_id=seat_id))
        service.dispute(first)
    else:
        first = getattr(service, f"add_{stage}")(seat_id=seat_id)
    assert service.initiate(seat_id=seat_id).code == "TRANSFER_IN_PROGRESS"


def test_transfer_by_a_previous_owner_is_refused(service: OrderService) -> None:
    """The caller read the seat before another transfer completed."""
    sale = {"order_id": service.add_confirmed(), "seat_id": new_id()}
    completed = service.add_completed(**sale)
    seller, buyer = (service.transfer(completed)[f"{who}_user_id"] for who in ("seller", "buyer"))
    assert service.initiate(**sale, seller_user_id=seller).code == "TRANSFER_IN_PROGRESS"
    assert service.initiate(**sale, seller_user_id=buyer).status == 201


def test_sales_keep_their_order_after_the_clock_was_set_back(service: OrderService, databases: Databases) -> None:
    """A leader whose clock is behind has taken over, or the clock was corrected."""
    sale = {"order_id": service.add_confirmed(), "seat_id": new_id()}
    databases.shift_clock("order", 10)
    first = service.add_completed(**sale)
    databases.shift_clock("order", 0)
    second = service.add_completed(**sale)
    buyers = [service.transfer(transfer_id)["buyer_user_id"] for transfer_id in (first, second)]
    assert service.initiate(**sale, seller_user_id=buyers[0]).code == "TRANSFER_IN_PROGRESS"
    assert service.dispute(first).code == "TRANSFER_INVALID_STATE", "the ticket was sold on"
    assert service.dispute(second).status == 200


def test_refund_ends_and_prevents_transfers_of_its_order(service: OrderService) -> None:
    sale = {"order_id": service.add_confirmed(), "seat_id": new_id()}
    during = service.add_awaiting(**sale)
    assert service.refund(sale["order_id"]).status == 200
    assert service.transfer(during)["status"] == "FAILED"
    assert service.initiate(**sale).code == "TRANSFER_IN_PROGRESS"


def test_ended_transfer_allows_a_new_one(service: OrderService) -> None:
    seat_id = new_id()
    service.cancel(service.add_awaiting(seat_id=seat_id))
    service.add_completed(seat_id=seat_id)
    assert service.initiate(seat_id=seat_id).status == 201


def test_concurrent_initiations_with_one_key_make_one_transfer(service: OrderService) -> None:
    fields = {"transfer_id": new_id(), "seat_id": new_id(), "order_id": new_id(), "key": new_key("create")}
    replies = run_concurrently([lambda: service.initiate(**fields)] * 6)
    assert {reply.status for reply in replies} == {201}


def test_refused_initiation_stays_refused(service: OrderService) -> None:
    seat_id, key = new_id(), new_key("create")
    first = service.add_awaiting(seat_id=seat_id)
    assert service.initiate(key, seat_id=seat_id).code == "TRANSFER_IN_PROGRESS"
    service.cancel(first)
    assert service.initiate(key, seat_id=seat_id).code == "TRANSFER_IN_PROGRESS"


def test_initiation_after_its_undo_makes_no_transfer(service: OrderService) -> None:
    transfer_id, key = new_id(), new_key("create")
    undone = service.change_transfer(transfer_id, key, status="FAILED")
    assert undone.data == {"transfer_id": transfer_id, "status": None}
    assert service.initiate(key, transfer_id=transfer_id).code == "STEP_VOIDED"
    assert service.call("GET", f"/transfers/{transfer_id}").code == "TRANSFER_NOT_FOUND"


@pytest.mark.claim("transfer/refuses-oneself")
def test_transfer_to_oneself_is_refused(service: OrderService) -> None:
    user_id = new_id()
    assert service.initiate(seller_user_id=user_id, buyer_user_id=user_id).code == "SELF_TRANSFER"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"credits_amount": 0}, "VALIDATION_ERROR"),
        ({"credits_amount": -5}, "VALIDATION_ERROR"),
        ({"credits_amount": 0.005}, "VALIDATION_ERROR"),
        ({"credits_amount": 1e12}, "VALIDATION_ERROR"),
        ({"initiated_by": "THIEF"}, "VALIDATION_ERROR"),
        ({"seat_id": "seat"}, "INVALID_UUID"),
    ],
)
def test_invalid_initiation_is_refused(service: OrderService, fields: dict[str, Any], code: str) -> None:
    assert service.initiate(**fields).code == code


def test_existing_id_is_refused_under_another_key(service: OrderService) -> None:
    assert service.initiate(transfer_id=service.add_initiated()).code == "VALIDATION_ERROR"


# ── awaiting codes


def test_repeated_step_replaces_both_sids(service: OrderService) -> None:
    transfer_id = service.add_awaiting()
    sids = {"seller_verification_sid": "VEs2", "buyer_verification_sid": "VEb2"}
    assert service.change_transfer(transfer_id, status="PENDING_OTP", **sids).status == 200
    assert service.take(f"transfers/{transfer_id}", party="BUYER").data["verification_sid"] == "VEb2"


@pytest.mark.claim(
    "smu/stores-verification-sid", "schema/transfers.seller_verification_sid", "schema/transfers.buyer_verification_sid"
)
def test_resent_code_replaces_one_sid(service: OrderService) -> None:
    transfer_id = service.add_awaiting()
    assert service.change_transfer(transfer_id, seller_verification_sid="VEs2").status == 200
    assert service.take(f"transfers/{transfer_id}", party="SELLER").data["verification_sid"] == "VEs2"
    assert service.take(f"transfers/{transfer_id}", party="BUYER").data["verification_sid"] == "VEb"


@pytest.mark.claim(
    "schema/transfers.seller_verification_sid",
    "schema/transfers.buyer_verification_sid",
    "schema/transfers.seller_otp_verified",
    "schema/transfers.buyer_otp_verified",
)
def test_sid_of_each_party_is_deleted_after_its_verification(service: OrderService) -> None:
    transfer_id = service.add_half_verified()
    sids = "SELECT seller_verification_sid AS seller, buyer_verification_sid AS buyer FROM transfers"
    by_id = f"{sids} WHERE transfer_id = %(id)s::text::uuid"
    assert service.db.statement(by_id, id=transfer_id) == {"seller": None, "buyer": "VEb"}
    service.try_code(f"transfers/{transfer_id}", "approved", party="BUYER")
    assert service.db.statement(by_id, id=transfer_id) == {"seller": None, "buyer": None}


def test_only_a_transfer_awaiting_codes_stores_sids(service: OrderService) -> None:
    sids = {"seller_verification_sid": "1", "buyer_verification_sid": "2"}
    for transfer_id in (service.add_completed(), service.add_verified()):
        assert service.change_transfer(transfer_id, status="PENDING_OTP", **sids).code == "TRANSFER_INVALID_STATE"
    assert (
        service.change_transfer(service.add_initiated(), seller_verification_sid="1").code == "TRANSFER_INVALID_STATE"
    )
    assert service.change_transfer(new_id(), seller_verification_sid="1").code == "TRANSFER_NOT_FOUND"


# ── attempts


@pytest.mark.claim(
    "schema/transfers.seller_otp_verified", "schema/transfers.buyer_otp_verified", "transfer/smu-verifies-both-codes"
)
def test_each_party_verifies_their_own_code(service: OrderService) -> None:
    path = f"transfers/{service.add_awaiting()}"
    first = service.try_code(path, "approved", party="BUYER").data
    assert (first["verified"], first["seller_otp_verified"], first["buyer_otp_verified"]) == (True, False, True)
    both = service.try_code(path, "approved", party="SELLER").data
    assert (both["seller_otp_verified"], both["buyer_otp_verified"], both["status"]) == (True, True, "PENDING_OTP")
    assert service.take(path, party="SELLER").data["attempt"] is None


def test_right_code_uses_no_attempt(service: OrderService) -> None:
    path = f"transfers/{service.add_awaiting()}"
    service.try_code(path, "wrong", party="SELLER")
    assert service.try_code(path, "approved", party="SELLER").data["attempts_left"] == 2


@pytest.mark.claim("transfer/retries-wrong-code", "transfer/three-tries-for-codes")
def test_three_wrong_codes_of_one_caller_fail_the_transfer(service: OrderService) -> None:
    transfer_id, caller = add_awaiting_with_seller(service)
    path = f"transfers/{transfer_id}"
    for party in ("SELLER", "BUYER"):
        assert service.try_code(path, "wrong", party=party, caller_id=caller).data["failed"] is False
    assert service.try_code(path, "wrong", party="SELLER", caller_id=caller).data["failed"] is True
    assert service.take(path, party="BUYER").code == "OTP_MAX_RETRIES"


def add_awaiting_with_seller(service: OrderService, seller: str | None = None) -> tuple[str, str]:
    """Add a PENDING_OTP transfer. Returns its id and its seller."""
    transfer_id = service.add_awaiting(**({"seller_user_id": seller} if seller else {}))
    return transfer_id, service.transfer(transfer_id)["seller_user_id"]


def test_wrong_codes_of_another_use_up_none_of_their_attempts(service: OrderService) -> None:
    transfer_id, seller = add_awaiting_with_seller(service)
    path = f"transfers/{transfer_id}"
    for _ in range(2):
        service.try_code(path, "wrong", party="BUYER", caller_id=seller)
    assert service.try_code(path, "wrong", party="BUYER").data["attempts_left"] == 2
    assert service.try_code(path, "approved", party="BUYER").data["verified"] is True


def test_wrong_codes_of_others_count_over_all_transfers_for_a_day(service: OrderService, databases: Databases) -> None:
    first, seller = add_awaiting_with_seller(service)
    for _ in range(2):
        service.try_code(f"transfers/{first}", "wrong", party="BUYER", caller_id=seller)
    second, _ = add_awaiting_with_seller(service, seller)
    path, guess = f"transfers/{second}", {"party": "BUYER", "caller_id": seller}
    for uncounted in ("unknown", "expired", "approved", "wrong"):
        service.try_code(path, uncounted, **guess)
        third, _ = add_awaiting_with_seller(service, seller)
        path = f"transfers/{third}"
    refused = service.take(path, **guess)
    assert (refused.code, refused.body["details"]["retry_after"] > 86_000) == ("RATE_LIMITED", True)
    assert service.transfer(third)["otp_attempts"] == 0, "a refused attempt is not taken"
    assert service.try_code(path, "approved", party="SELLER", caller_id=seller).data["verified"] is True
    assert service.take(path, party="BUYER").data["attempt"] == 1
    databases.shift_clock("order", 86_401)
    try:
        later, _ = add_awaiting_with_seller(service, seller)
        assert service.take(f"transfers/{later}", **guess).status == 200
    finally:
        databases.shift_clock("order", 0)


def test_three_of_ten_concurrent_guesses_at_other_codes_are_checked(service: OrderService) -> None:
    seller = new_id()
    paths = [f"transfers/{add_awaiting_with_seller(service, seller)[0]}" for _ in range(10)]
    guess = {"party": "BUYER", "caller_id": seller}
    replies = run_concurrently([partial(service.take, path, **guess) for path in paths])
    assert sorted(reply.code or "" for reply in replies) == [""] * 3 + ["RATE_LIMITED"] * 7


def test_a_stranger_cannot_take_an_attempt(service: OrderService) -> None:
    path, stranger = f"transfers/{service.add_awaiting()}", {"party": "BUYER", "caller_id": new_id()}
    assert service.take(path, **stranger).code == "FORBIDDEN"
    assert service.end(path, new_key("take"), "expired", **stranger).data["attempts_left"] == 0


@pytest.mark.parametrize("party", ["SELLER", "BUYER"])
def test_three_of_twenty_concurrent_attempts_succeed(service: OrderService, party: str) -> None:
    path = f"transfers/{service.add_awaiting()}"
    replies = run_concurrently([partial(service.take, path, party=party)] * 20)
    assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 17


def test_wrong_code_after_both_verified_changes_nothing(service: OrderService) -> None:
    transfer_id, keys = service.add_half_verified(), [new_key("take") for _ in range(3)]
    path = f"transfers/{transfer_id}"
    for key in keys:
        service.take(path, key, party="BUYER")
    service.end(path, keys[0], "wrong", party="BUYER")
    with service.db.transaction() as tx:
        sql = "UPDATE transfers SET otp_failures = 2, buyer_otp_failures = 2 WHERE transfer_id = %(id)s"
        tx.run(sql, id=UUID(transfer_id))
    service.end(path, keys[1], "approved", party="BUYER")
    before = service.transfer(transfer_id)
    assert service.end(path, keys[2], "wrong", party="BUYER").data["failed"] is False
    assert service.transfer(transfer_id) == before
    assert before["status"] == "PENDING_OTP"


def test_attempt_without_a_verdict_is_given_back_once(service: OrderService) -> None:
    transfer_id, key = service.add_awaiting(), new_key("take")
    path = f"transfers/{transfer_id}"
    service.try_code(path, "wrong", party="SELLER")
    service.take(path, key, party="SELLER")
    for _ in range(2):
        assert service.end(path, key, "unknown", party="SELLER").data["attempts_left"] == 2
    assert service.end(path, key, "approved", party="SELLER").code == "STEP_VOIDED"


def test_right_code_for_an_ended_transfer_is_refused(service: OrderService) -> None:
    transfer_id, key = service.add_awaiting(), new_key("take")
    service.take(f"transfers/{transfer_id}", key, party="SELLER")
    service.cancel(transfer_id)
    refused = service.end(f"transfers/{transfer_id}", key, "approved", party="SELLER")
    assert refused.code == "TRANSFER_INVALID_STATE"


def test_expired_transfer_refuses_an_attempt(service: OrderService, expire_transfers: Callable[[], None]) -> None:
    path = f"transfers/{service.add_awaiting()}"
    expire_transfers()
    assert service.take(path, party="SELLER").code == "TRANSFER_INVALID_STATE"


def test_impossible_attempt_is_refused_with_the_reason(service: OrderService) -> None:
    assert service.take(f"transfers/{new_id()}", party="SELLER").code == "TRANSFER_NOT_FOUND"
    assert service.take(f"transfers/{service.add_initiated()}", party="SELLER").code == "TRANSFER_INVALID_STATE"
    assert service.take(f"transfers/{service.add_completed()}", party="SELLER").code == "TRANSFER_INVALID_STATE"
    assert service.take(f"transfers/{service.add_awaiting()}", party="THIEF").code == "VALIDATION_ERROR"


# ── ending


@pytest.mark.parametrize("stage", ["initiated", "awaiting"])
def test_open_transfer_can_be_cancelled(service: OrderService, stage: str) -> None:
    transfer_id = getattr(service, f"add_{stage}")()
    assert service.cancel(transfer_id).data["status"] == "FAILED"
    assert service.cancel(transfer_id).code == "TRANSFER_INVALID_STATE"


def test_cancel_is_refused_only_after_both_verified(service: OrderService) -> None:
    assert service.cancel(service.add_half_verified()).data["status"] == "FAILED"
    transfer_id = service.add_verified()
    assert service.cancel(transfer_id).code == "TRANSFER_INVALID_STATE"
    assert service.transfer(transfer_id)["status"] == "PENDING_OTP"


def test_concurrent_cancel_and_second_code_never_both_succeed(service: OrderService) -> None:
    for _ in range(10):
        transfer_id, key = service.add_half_verified(), new_key("take")
        path = f"transfers/{transfer_id}"
        service.take(path, key, party="BUYER")
        ended, cancelled = run_concurrently(
            [
                partial(service.end, path, key, "approved", party="BUYER"),
                partial(service.cancel, transfer_id),
            ]
        )
        assert (ended.status, cancelled.status) in [(200, 409), (409, 200)]


@pytest.mark.claim("schema/transfers.completed_at", "transfer/changes-all-or-nothing")
def test_verified_transfer_is_completed_once(service: OrderService) -> None:
    transfer_id, key = service.add_verified(), new_key("complete")
    replies = [service.change_transfer(transfer_id, key, status="COMPLETED") for _ in range(2)]
    assert [reply.data["status"] for reply in replies] == ["COMPLETED"] * 2
    assert replies[0].data["completed_at"] == replies[1].data["completed_at"]


@pytest.mark.parametrize("stage", ["initiated", "awaiting", "completed"])
def test_only_a_verified_transfer_can_be_completed(service: OrderService, stage: str) -> None:
    transfer_id = getattr(service, f"add_{stage}")()
    assert service.change_transfer(transfer_id, status="COMPLETED").code == "TRANSFER_INVALID_STATE"


def test_dismissal_does_not_complete_a_verified_transfer(service: OrderService) -> None:
    transfer_id = service.add_verified()
    refused = service.change_transfer(transfer_id, status="COMPLETED", expected="DISPUTED")
    assert refused.code == "TRANSFER_INVALID_STATE"


def test_undo_of_transfer_confirm_fails_the_transfer(service: OrderService) -> None:
    transfer_id, key = service.add_verified(), new_key("complete")
    assert service.change_transfer(transfer_id, key, status="FAILED").data["status"] == "FAILED"
    assert service.change_transfer(transfer_id, key, status="COMPLETED").code in (
        "STEP_VOIDED",
        "TRANSFER_INVALID_STATE",
    )
    assert service.transfer(transfer_id)["status"] == "FAILED"


def test_undo_of_initiate_fails_an_open_transfer(service: OrderService) -> None:
    key = new_key("create")
    transfer_id = service.add_initiated(key=key)
    for _ in range(2):
        assert service.change_transfer(transfer_id, key, status="FAILED").data["status"] == "FAILED"


def test_undo_keeps_an_ended_transfer(service: OrderService) -> None:
    create_key = new_key("create")
    transfer_id = service.add_completed(key=create_key)
    for key in (create_key, new_key()):
        assert service.change_transfer(transfer_id, key, status="FAILED").data["status"] == "COMPLETED"


# ── lists and invalid requests


def test_both_parties_list_their_transfers_newest_first(service: OrderService) -> None:
    user_id = new_id()
    added = [service.add_initiated(seller_user_id=user_id), service.add_initiated(buyer_user_id=user_id)]
    service.add_initiated()
    reply = service.call("GET", f"/transfers?user_id={user_id}")
    assert [transfer["transfer_id"] for transfer in reply.data] == added[::-1]
    assert reply.body["pagination"]["total"] == 2


def test_list_finds_transfers_that_both_verified(service: OrderService) -> None:
    seat_id = new_id()
    service.cancel(service.add_awaiting(seat_id=seat_id))
    ready = service.add_verified(seat_id=seat_id)
    found = service.call("GET", f"/transfers?seat_id={seat_id}&status=PENDING_OTP&both_verified=true").data
    assert [transfer["transfer_id"] for transfer in found] == [ready]
    other = service.add_awaiting()
    listed = service.call("GET", "/transfers?status=PENDING_OTP&both_verified=true&per_page=100").data
    assert other not in [transfer["transfer_id"] for transfer in listed]


@pytest.mark.parametrize(
    ("filters", "indexes"),
    [
        ({"seat_id": UUID(int=1)}, ["transfers_by_seat"]),
        ({"user_id": UUID(int=1)}, ["transfers_by_seller", "transfers_by_buyer"]),
        ({"status": "PENDING_OTP", "both_verified": True}, ["transfers_to_"]),  # either of two partial indexes
        ({}, ["transfers_newest"]),
    ],
)
def test_every_list_has_an_index(service: OrderService, filters: dict[str, Any], indexes: list[str]) -> None:
    parameters = {"seat_id": None, "user_id": None, "status": None, "both_verified": False, **filters}
    with service.db.transaction() as tx:
        tx.run("SET LOCAL enable_seqscan = off")
        tx.run("SET LOCAL enable_indexscan = on")
        if "user_id" in filters:  # the plan merges two indexes and sorts the few transfers of one user
            tx.run("SET LOCAL enable_indexscan = off")
        plan = "\n".join(
            row["QUERY PLAN"] for row in tx.all("EXPLAIN " + transfer_store._LIST, **parameters, limit=20, offset=0)
        )
    assert all(index in plan for index in indexes)


@pytest.mark.parametrize("query", ["status=OPEN", "both_verified=yes", "page=-1", "per_page=0"])
def test_invalid_query_is_refused(service: OrderService, query: str) -> None:
    assert service.call("GET", f"/transfers?{query}").code == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "DISPUTED"},
        {"status": "PENDING_OTP"},
        {"status": "PENDING_OTP", "seller_verification_sid": "1"},
        {"status": "COMPLETED", "seller_verification_sid": "1"},
        {"status": "FAILED", "credits_frozen": 1},
        {"status": "REVERSED", "expected": "DISPUTED"},
        {"credits_frozen": 1, "seller_verification_sid": "1"},
        {"credits_frozen": -1},
        {"credits_frozen": 0.001},
        {"freeze_key": "k"},
    ],
)
def test_invalid_change_is_refused(service: OrderService, fields: dict[str, Any]) -> None:
    assert service.change_transfer(service.add_initiated(), **fields).code == "VALIDATION_ERROR"
