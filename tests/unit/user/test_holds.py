"""Frozen credits cannot be spent. A hold is transferred or unfrozen as a whole, once."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from functools import partial
from threading import Thread
from uuid import UUID, uuid4

import pytest

from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.support.service_settings import new_key
from tests.support.waiting import wait_until
from tests.unit.user.user_app import UserApp, status_codes

pytestmark = pytest.mark.unit


def freeze(users: UserApp, user: UUID, amount: int, **more: bool) -> str:
    held = new_key("hold")
    users.post("/credits/freeze", key=held, user_id=user, amount=amount, **more)
    return held


def test_frozen_credits_cannot_be_spent(users: UserApp) -> None:
    user = users.new_user("100.00")
    answer = users.post("/credits/freeze", key=new_key(), user_id=user, amount=60)
    assert answer == {"amount": Decimal("60.00"), "credit_balance": Decimal("40.00")}
    assert (users.balance(user), users.frozen_credits(user)) == (40, 60)
    assert users.expect_refusal("/credits/deduct", key=new_key(), user_id=user, amount=41) == "INSUFFICIENT_CREDITS"


def test_freeze_beyond_the_balance_takes_nothing(users: UserApp) -> None:
    user = users.new_user("10.00")
    assert users.expect_refusal("/credits/freeze", key=new_key(), user_id=user, amount=11) == "INSUFFICIENT_CREDITS"
    assert (users.balance(user), users.frozen_credits(user)) == (10, 0)


def test_freeze_at_most_takes_the_balance(users: UserApp) -> None:
    user = users.new_user("10.00")
    assert users.post("/credits/freeze", key=new_key(), user_id=user, amount=60, at_most=True)["amount"] == 10
    assert users.post("/credits/freeze", key=new_key(), user_id=user, amount=60, at_most=True)["amount"] == 0
    assert (users.balance(user), users.frozen_credits(user)) == (0, 10)


def test_freeze_at_most_takes_no_more_than_the_amount(users: UserApp) -> None:
    user = users.new_user("100.00")
    assert users.post("/credits/freeze", key=new_key(), user_id=user, amount=60, at_most=True)["amount"] == 60
    assert (users.balance(user), users.frozen_credits(user)) == (40, 60)


def test_freeze_at_most_of_an_unknown_user_is_404(users: UserApp) -> None:
    assert (
        users.expect_refusal("/credits/freeze", key=new_key(), user_id=uuid4(), amount=1, at_most=True)
        == "USER_NOT_FOUND"
    )


@pytest.mark.parametrize("at_most", [False, True])
def test_concurrent_freezes_with_one_key_freeze_once(users: UserApp, at_most: bool) -> None:
    user, once = users.new_user("100.00"), new_key()
    body = {"key": once, "user_id": user, "amount": 30, "at_most": at_most}
    assert (
        status_codes(users.run_at_locked_row(user, *[lambda: users.call("POST", "/credits/freeze", body)] * 5))
        == [200] * 5
    )
    assert (users.balance(user), users.frozen_credits(user)) == (70, 30)


def test_concurrent_freezes_at_most_share_the_balance(users: UserApp) -> None:
    user = users.new_user("100.00")
    body = {"user_id": user, "amount": 60, "at_most": True}
    answers = users.run_at_locked_row(
        user, *[lambda: users.post("/credits/freeze", key=new_key(), **body)["amount"]] * 3
    )
    assert sorted(answers) == [0, 40, 60]
    assert (users.balance(user), users.frozen_credits(user)) == (0, 100)


@pytest.mark.claim("transfer/refunds-when-owner-refused")
def test_unfreeze_gives_back_once(users: UserApp) -> None:
    user = users.new_user("100.00")
    held = freeze(users, user, 60)
    answers = users.run_at_locked_row(user, *[lambda: users.call("POST", "/credits/unfreeze", {"key": held})] * 5)
    assert status_codes(answers) == [200] * 5
    assert (users.balance(user), users.frozen_credits(user)) == (100, 0)


def test_unfreeze_before_its_freeze_blocks_it(users: UserApp) -> None:
    user, held = users.new_user("100.00"), new_key("hold")
    users.post("/credits/unfreeze", key=held)
    assert users.expect_refusal("/credits/freeze", key=held, user_id=user, amount=60) == "STEP_VOIDED"
    assert users.frozen_credits(user) == 0


def test_unfreeze_of_an_empty_freeze_gives_nothing(users: UserApp) -> None:
    user = users.new_user("0.00")
    users.post("/credits/unfreeze", key=freeze(users, user, 60, at_most=True))
    assert users.balance(user) == 0


@pytest.mark.claim("transfer/changes-all-or-nothing", "schema/transfers.credits_amount")
def test_concurrent_transfers_with_one_key_pay_once(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("5.00")
    body = {"key": new_key("transfer"), "hold_keys": [freeze(users, buyer, 60)], "to_user_id": seller}
    answers = users.run_at_locked_row(buyer, *[lambda: users.call("POST", "/credits/transfer", body)] * 5)
    assert status_codes(answers) == [200] * 5
    assert answers[0].get_json()["data"] == {"amount": 60.0, "credit_balance": 65.0}
    assert (users.balance(buyer), users.frozen_credits(buyer), users.balance(seller)) == (40, 0, 65)


def test_transfer_takes_several_holds_and_an_empty_one(users: UserApp) -> None:
    seller, buyer = users.new_user("100.00"), users.new_user("0.00")
    holds = [freeze(users, seller, 60), freeze(users, seller, 40)]
    holds.append(freeze(users, seller, 60, at_most=True))
    answer = users.post("/credits/transfer", key=new_key(), hold_keys=holds, to_user_id=buyer)
    assert answer == {"amount": Decimal("100.00"), "credit_balance": Decimal("100.00")}
    assert users.frozen_credits(seller) == 0


def test_transfer_of_an_empty_hold_alone_moves_nothing(users: UserApp) -> None:
    seller, buyer = users.new_user("0.00"), users.new_user("7.00")
    holds = [freeze(users, seller, 60, at_most=True)]
    answer = users.post("/credits/transfer", key=new_key(), hold_keys=holds, to_user_id=buyer)
    assert answer == {"amount": Decimal("0.00"), "credit_balance": Decimal("7.00")}


def test_transfer_with_an_unknown_hold_moves_nothing(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("0.00")
    holds = [freeze(users, buyer, 60), new_key("hold")]
    assert (
        users.expect_refusal("/credits/transfer", key=new_key(), hold_keys=holds, to_user_id=seller)
        == "CREDITS_UNAVAILABLE"
    )
    assert (users.frozen_credits(buyer), users.balance(seller)) == (60, 0)


def test_unfrozen_hold_cannot_be_transferred(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("0.00")
    held = freeze(users, buyer, 60)
    users.post("/credits/unfreeze", key=held)
    assert (
        users.expect_refusal("/credits/transfer", key=new_key(), hold_keys=[held], to_user_id=seller)
        == "CREDITS_UNAVAILABLE"
    )
    assert (users.balance(buyer), users.balance(seller)) == (100, 0)


def test_transferred_hold_cannot_be_unfrozen(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("0.00")
    held = freeze(users, buyer, 60)
    users.post("/credits/transfer", key=new_key(), hold_keys=[held], to_user_id=seller)
    for _ in range(2):
        assert users.expect_refusal("/credits/unfreeze", key=held) == "CREDITS_UNAVAILABLE"
    assert (users.balance(buyer), users.balance(seller)) == (40, 60)


def test_one_of_concurrent_unfreeze_and_transfer_succeeds(users: UserApp) -> None:
    for _ in range(5):
        buyer, seller = users.new_user("100.00"), users.new_user("0.00")
        held = freeze(users, buyer, 60)
        transfer = {"key": new_key("transfer"), "hold_keys": [held], "to_user_id": seller}
        answers = users.run_at_locked_row(
            buyer,
            partial(users.call, "POST", "/credits/unfreeze", {"key": held}),
            partial(users.call, "POST", "/credits/transfer", transfer),
        )
        assert status_codes(answers) == [200, 409]
        assert users.balance(buyer) + users.balance(seller) == 100
        assert users.frozen_credits(buyer) == 0


def test_concurrent_opposite_transfers_do_not_deadlock(users: UserApp) -> None:
    one, other = users.new_user("100.00"), users.new_user("100.00")
    transfers = []
    for giver, taker in [(one, other), (other, one)] * 4:
        body = {"key": new_key("transfer"), "hold_keys": [freeze(users, giver, 10)], "to_user_id": taker}
        transfers.append(partial(users.call, "POST", "/credits/transfer", body))
    assert status_codes(run_concurrently(transfers)) == [200] * 8
    assert (users.balance(one), users.balance(other)) == (100, 100)


def test_transfer_locks_the_lower_id_first(users: UserApp, databases: Databases) -> None:
    """The row with the lower id is inserted last, so the order of the table is the wrong one."""
    high = users.new_user("100.00", UUID(int=uuid4().int | 0xFF << 120))
    low = UUID(int=uuid4().int >> 8)
    body = {"key": new_key("transfer"), "hold_keys": [freeze(users, high, 60)], "to_user_id": low}
    users.new_user("0.00", low)
    transfer = Thread(target=lambda: users.call("POST", "/credits/transfer", body))
    with closing(databases.superuser("user")) as blocker, closing(databases.superuser("user")) as probe:
        blocker.autocommit = False
        blocker.cursor().execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE", (low,))
        transfer.start()
        wait_until(lambda: users.count_waiting() == 1)
        probe.cursor().execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE NOWAIT", (high,))
        blocker.rollback()
    transfer.join()
    assert users.balance(low) == 60
