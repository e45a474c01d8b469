"""Transfers: one open a seat by the partial unique index; who may end them, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from services.chassis.settings import DatabaseSettings
from services.order import transfer_store
from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.unit.order.order_service import OrderService, a_key, an_id

pytestmark = pytest.mark.unit
ELEVEN_MINUTES = 660


@pytest.fixture(scope="module")
def service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


@pytest.fixture
def later(databases: Databases) -> Iterator[Callable[[], None]]:
    """Moves the clock eleven minutes on, until the test is over."""
    yield lambda: databases.shift_clock("order", ELEVEN_MINUTES)
    databases.shift_clock("order", 0)


# ── initiating


@pytest.mark.claim("transfer/records-initiator")
def test_a_new_transfer_is_initiated_for_ten_minutes(service: OrderService) -> None:
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
def test_of_twenty_initiations_of_one_seat_one_wins(service: OrderService) -> None:
    seat_id = an_id()
    replies = run_concurrently([lambda: service.initiate(seat_id=seat_id)] * 20)
    assert sorted(reply.code or "" for reply in replies) == [""] + ["TRANSFER_IN_PROGRESS"] * 19
    assert len(service.ask("GET", f"/transfers?seat_id={seat_id}").data) == 1


@pytest.mark.claim("schema/one-open-transfer-index", "lock/open-transfer-index")
@pytest.mark.parametrize("stage", ["initiated", "awaiting", "verified", "disputed"])
def test_an_open_or_disputed_transfer_keeps_its_seat(service: OrderService, stage: str) -> None:
    seat_id = an_id()
    if stage == "disputed":
        first = service.completed(seat_id=seat_id, order_id=service.confirmed(seat_id=seat_id))
        service.dispute(first)
    else:
        first = getattr(service, stage)(seat_id=seat_id)
    assert service.initiate(seat_id=seat_id).code == "TRANSFER_IN_PROGRESS"


def test_an_ended_transfer_frees_its_seat(service: OrderService) -> None:
    seat_id = an_id()
    service.cancel(service.awaiting(seat_id=seat_id))
    service.completed(seat_id=seat_id)
    assert service.initiate(seat_id=seat_id).status == 201


def test_the_same_initiation_twice_is_one_transfer(service: OrderService) -> None:
    fields = {"transfer_id": an_id(), "seat_id": an_id(), "order_id": an_id(), "key": a_key("create")}
    replies = run_concurrently([lambda: service.initiate(**fields)] * 6)
    assert {reply.status for reply in replies} == {201}


def test_a_refused_initiation_stays_refused(service: OrderService) -> None:
    seat_id, key = an_id(), a_key("create")
    first = service.awaiting(seat_id=seat_id)
    assert service.initiate(key, seat_id=seat_id).code == "TRANSFER_IN_PROGRESS"
    service.cancel(first)
    assert service.initiate(key, seat_id=seat_id).code == "TRANSFER_IN_PROGRESS"


def test_an_initiation_that_comes_after_its_undo_makes_no_transfer(service: OrderService) -> None:
    transfer_id, key = an_id(), a_key("create")
    undone = service.change_transfer(transfer_id, key, status="FAILED")
    assert undone.data == {"transfer_id": transfer_id, "status": None}
    assert service.initiate(key, transfer_id=transfer_id).code == "STEP_VOIDED"
    assert service.ask("GET", f"/transfers/{transfer_id}").code == "TRANSFER_NOT_FOUND"


@pytest.mark.claim("transfer/refuses-oneself")
def test_nobody_sells_to_himself(service: OrderService) -> None:
    me = an_id()
    assert service.initiate(seller_user_id=me, buyer_user_id=me).code == "SELF_TRANSFER"


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
def test_a_bad_initiation_is_refused_with_its_code(service: OrderService, fields: dict[str, Any], code: str) -> None:
    assert service.initiate(**fields).code == code


def test_an_id_that_is_taken_is_refused_under_another_key(service: OrderService) -> None:
    assert service.initiate(transfer_id=service.initiated()).code == "VALIDATION_ERROR"


# ── awaiting codes


def test_codes_sent_again_by_a_repeated_step_count(service: OrderService) -> None:
    transfer_id = service.awaiting()
    sids = {"seller_verification_sid": "VEs2", "buyer_verification_sid": "VEb2"}
    assert service.change_transfer(transfer_id, status="PENDING_OTP", **sids).status == 200
    assert service.take(f"transfers/{transfer_id}", party="BUYER").data["verification_sid"] == "VEb2"


@pytest.mark.claim(
    "smu/stores-verification-sid", "schema/transfers.seller_verification_sid", "schema/transfers.buyer_verification_sid"
)
def test_a_resent_code_replaces_one_partys_sid(service: OrderService) -> None:
    transfer_id = service.awaiting()
    assert service.change_transfer(transfer_id, seller_verification_sid="VEs2").status == 200
    assert service.take(f"transfers/{transfer_id}", party="SELLER").data["verification_sid"] == "VEs2"
    assert service.take(f"transfers/{transfer_id}", party="BUYER").data["verification_sid"] == "VEb"


def test_codes_are_for_a_transfer_that_awaits_them(service: OrderService) -> None:
    sids = {"seller_verification_sid": "1", "buyer_verification_sid": "2"}
    for transfer_id in (service.completed(), service.verified()):
        assert service.change_transfer(transfer_id, status="PENDING_OTP", **sids).code == "TRANSFER_INVALID_STATE"
    assert service.change_transfer(service.initiated(), seller_verification_sid="1").code == "TRANSFER_INVALID_STATE"
    assert service.change_transfer(an_id(), seller_verification_sid="1").code == "TRANSFER_NOT_FOUND"


# ── attempts


@pytest.mark.claim(
    "schema/transfers.seller_otp_verified", "schema/transfers.buyer_otp_verified", "transfer/smu-verifies-both-codes"
)
def test_both_parties_verify_each_with_a_code_of_their_own(service: OrderService) -> None:
    of = f"transfers/{service.awaiting()}"
    first = service.try_code(of, "approved", party="BUYER").data
    assert (first["verified"], first["seller_otp_verified"], first["buyer_otp_verified"]) == (True, False, True)
    both = service.try_code(of, "approved", party="SELLER").data
    assert (both["seller_otp_verified"], both["buyer_otp_verified"], both["status"]) == (True, True, "PENDING_OTP")
    assert service.take(of, party="SELLER").data["attempt"] is None


def test_a_right_code_costs_no_attempt(service: OrderService) -> None:
    of = f"transfers/{service.awaiting()}"
    service.try_code(of, "wrong", party="SELLER")
    service.try_code(of, "wrong", party="BUYER")
    assert service.try_code(of, "approved", party="SELLER").data["attempts_left"] == 1
    assert service.try_code(of, "approved", party="BUYER").data["buyer_otp_verified"] is True


@pytest.mark.claim("transfer/retries-wrong-code", "transfer/three-tries-for-codes")
def test_three_wrong_codes_in_total_fail_the_transfer(service: OrderService) -> None:
    of = f"transfers/{service.awaiting()}"
    service.try_code(of, "wrong", party="SELLER")
    service.try_code(of, "wrong", party="BUYER")
    assert service.try_code(of, "wrong", party="SELLER").data["failed"] is True
    assert service.take(of, party="BUYER").code == "OTP_MAX_RETRIES"


def test_twenty_attempts_at_once_get_exactly_three(service: OrderService) -> None:
    of = f"transfers/{service.awaiting()}"
    parties = ["SELLER", "BUYER"] * 10
    replies = run_concurrently([partial(service.take, of, party=party) for party in parties])
    assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 17


def test_a_third_wrong_code_after_both_verified_changes_nothing(service: OrderService) -> None:
    transfer_id, keys = service.awaiting(), [a_key("take") for _ in range(3)]
    of = f"transfers/{transfer_id}"
    service.try_code(of, "approved", party="SELLER")
    for key in keys:
        service.take(of, key, party="BUYER")
    service.end(of, keys[0], "wrong", party="BUYER")
    with service.db.transaction() as tx:
        sql = "UPDATE transfers SET otp_failures = 2 WHERE transfer_id = %(id)s"
        tx.run(sql, id=UUID(transfer_id))
    service.end(of, keys[1], "approved", party="BUYER")
    before = service.transfer(transfer_id)
    assert service.end(of, keys[2], "wrong", party="BUYER").data["failed"] is False
    assert service.transfer(transfer_id) == before
    assert before["status"] == "PENDING_OTP"


def test_an_attempt_that_nobody_could_judge_is_given_back_once(service: OrderService) -> None:
    transfer_id, key = service.awaiting(), a_key("take")
    of = f"transfers/{transfer_id}"
    service.try_code(of, "wrong", party="SELLER")
    service.take(of, key, party="SELLER")
    for _ in range(2):
        assert service.end(of, key, "unknown", party="SELLER").data["attempts_left"] == 2
    assert service.end(of, key, "approved", party="SELLER").code == "STEP_VOIDED"


def test_a_right_code_after_the_transfer_ended_is_refused(service: OrderService) -> None:
    transfer_id, key = service.awaiting(), a_key("take")
    service.take(f"transfers/{transfer_id}", key, party="SELLER")
    service.cancel(transfer_id)
    refused = service.end(f"transfers/{transfer_id}", key, "approved", party="SELLER")
    assert refused.code == "TRANSFER_INVALID_STATE"


def test_no_attempt_at_a_transfer_whose_time_is_up(service: OrderService, later: Callable[[], None]) -> None:
    of = f"transfers/{service.awaiting()}"
    later()
    assert service.take(of, party="SELLER").code == "TRANSFER_INVALID_STATE"


def test_what_cannot_be_verified_says_why(service: OrderService) -> None:
    assert service.take(f"transfers/{an_id()}", party="SELLER").code == "TRANSFER_NOT_FOUND"
    assert service.take(f"transfers/{service.initiated()}", party="SELLER").code == "TRANSFER_INVALID_STATE"
    assert service.take(f"transfers/{service.completed()}", party="SELLER").code == "TRANSFER_INVALID_STATE"
    assert service.take(f"transfers/{service.awaiting()}", party="THIEF").code == "VALIDATION_ERROR"


# ── ending


@pytest.mark.parametrize("stage", ["initiated", "awaiting"])
def test_a_transfer_that_nobody_has_completed_can_be_cancelled(service: OrderService, stage: str) -> None:
    transfer_id = getattr(service, stage)()
    assert service.cancel(transfer_id).data["status"] == "FAILED"
    assert service.cancel(transfer_id).code == "TRANSFER_INVALID_STATE"


def test_one_verified_party_does_not_stop_a_cancel_but_two_do(service: OrderService) -> None:
    half = service.awaiting()
    service.try_code(f"transfers/{half}", "approved", party="SELLER")
    assert service.cancel(half).data["status"] == "FAILED"
    whole = service.verified()
    assert service.cancel(whole).code == "TRANSFER_INVALID_STATE"
    assert service.transfer(whole)["status"] == "PENDING_OTP"


def test_cancel_and_the_second_code_at_once_never_both_succeed(service: OrderService) -> None:
    for _ in range(10):
        transfer_id, key = service.awaiting(), a_key("take")
        of = f"transfers/{transfer_id}"
        service.try_code(of, "approved", party="SELLER")
        service.take(of, key, party="BUYER")
        ended, cancelled = run_concurrently(
            [
                partial(service.end, of, key, "approved", party="BUYER"),
                partial(service.cancel, transfer_id),
            ]
        )
        assert (ended.status, cancelled.status) in [(200, 409), (409, 200)]


@pytest.mark.claim("schema/transfers.completed_at", "transfer/changes-all-or-nothing")
def test_a_swap_completes_what_both_have_verified(service: OrderService) -> None:
    transfer_id, key = service.verified(), a_key("complete")
    replies = [service.change_transfer(transfer_id, key, status="COMPLETED") for _ in range(2)]
    assert [reply.data["status"] for reply in replies] == ["COMPLETED"] * 2
    assert replies[0].data["completed_at"] == replies[1].data["completed_at"]


@pytest.mark.parametrize("stage", ["initiated", "awaiting", "completed"])
def test_nothing_else_can_be_completed(service: OrderService, stage: str) -> None:
    transfer_id = getattr(service, stage)()
    assert service.change_transfer(transfer_id, status="COMPLETED").code == "TRANSFER_INVALID_STATE"


def test_a_dismissal_does_not_complete_what_waits_for_its_swap(service: OrderService) -> None:
    transfer_id = service.verified()
    refused = service.change_transfer(transfer_id, status="COMPLETED", expected="DISPUTED")
    assert refused.code == "TRANSFER_INVALID_STATE"


def test_a_swap_that_was_undone_fails_the_transfer(service: OrderService) -> None:
    transfer_id, key = service.verified(), a_key("complete")
    assert service.change_transfer(transfer_id, key, status="FAILED").data["status"] == "FAILED"
    assert service.change_transfer(transfer_id, key, status="COMPLETED").code in (
        "STEP_VOIDED",
        "TRANSFER_INVALID_STATE",
    )
    assert service.transfer(transfer_id)["status"] == "FAILED"


def test_an_undo_of_the_creation_fails_an_open_transfer(service: OrderService) -> None:
    key = a_key("create")
    transfer_id = service.initiated(key=key)
    for _ in range(2):
        assert service.change_transfer(transfer_id, key, status="FAILED").data["status"] == "FAILED"


def test_an_undo_never_touches_a_transfer_that_has_ended(service: OrderService) -> None:
    create_key = a_key("create")
    transfer_id = service.completed(key=create_key)
    for key in (create_key, a_key()):
        assert service.change_transfer(transfer_id, key, status="FAILED").data["status"] == "COMPLETED"


# ── lists and bodies


def test_both_parties_find_their_transfers_newest_first(service: OrderService) -> None:
    me = an_id()
    made = [service.initiated(seller_user_id=me), service.initiated(buyer_user_id=me)]
    service.initiated()
    reply = service.ask("GET", f"/transfers?user_id={me}")
    assert [transfer["transfer_id"] for transfer in reply.data] == made[::-1]
    assert reply.body["pagination"]["total"] == 2


def test_what_waits_for_its_swap_can_be_found(service: OrderService) -> None:
    seat_id = an_id()
    service.cancel(service.awaiting(seat_id=seat_id))
    ready = service.verified(seat_id=seat_id)
    found = service.ask("GET", f"/transfers?seat_id={seat_id}&status=PENDING_OTP&both_verified=true").data
    assert [transfer["transfer_id"] for transfer in found] == [ready]
    other = service.awaiting()
    listed = service.ask("GET", "/transfers?status=PENDING_OTP&both_verified=true&per_page=100").data
    assert other not in [transfer["transfer_id"] for transfer in listed]


@pytest.mark.parametrize(
    ("filters", "indexes"),
    [
        ({"seat_id": UUID(int=1)}, ["transfers_by_seat"]),
        ({"user_id": UUID(int=1)}, ["transfers_by_seller", "transfers_by_buyer"]),
        ({"status": "PENDING_OTP", "both_verified": True}, ["transfers_to_"]),  # either index of those that wait
        ({}, ["transfers_newest"]),
    ],
)
def test_every_list_has_an_index(service: OrderService, filters: dict[str, Any], indexes: list[str]) -> None:
    given = {"seat_id": None, "user_id": None, "status": None, "both_verified": False, **filters}
    with service.db.transaction() as tx:
        tx.run("SET LOCAL enable_seqscan = off")
        tx.run("SET LOCAL enable_indexscan = on")
        if "user_id" in filters:  # two indexes are joined and sorted; one user's transfers are few
            tx.run("SET LOCAL enable_indexscan = off")
        plan = "\n".join(
            row["QUERY PLAN"] for row in tx.all("EXPLAIN " + transfer_store._LIST, **given, limit=20, offset=0)
        )
    assert all(index in plan for index in indexes)


@pytest.mark.parametrize("query", ["status=OPEN", "both_verified=yes", "page=-1", "per_page=0"])
def test_a_bad_query_is_refused(service: OrderService, query: str) -> None:
    assert service.ask("GET", f"/transfers?{query}").code == "VALIDATION_ERROR"


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
def test_a_change_that_makes_no_sense_is_refused(service: OrderService, fields: dict[str, Any]) -> None:
    assert service.change_transfer(service.initiated(), **fields).code == "VALIDATION_ERROR"
