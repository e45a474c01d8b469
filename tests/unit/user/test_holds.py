"""Frozen credits: nobody's to spend, handed on or given back, whole and once."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from functools import partial
from threading import Thread
from uuid import UUID, uuid4

import pytest

from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.support.waiting import wait_until
from tests.unit.user.user_app import UserApp, codes, key

pytestmark = pytest.mark.unit


def frozen_hold(users: UserApp, user: UUID, amount: int, **more: bool) -> str:
    held = key("hold")
    users.done("/credits/freeze", key=held, user_id=user, amount=amount, **more)
    return held


def test_freeze_moves_credits_out_of_reach(users: UserApp) -> None:
    user = users.new_user("100.00")
    answer = users.done("/credits/freeze", key=key(), user_id=user, amount=60)
    assert answer == {"amount": Decimal("60.00"), "credit_balance": Decimal("40.00")}
    assert (users.balance(user), users.frozen(user)) == (40, 60)
    assert users.refused("/credits/deduct", key=key(), user_id=user, amount=41) == "INSUFFICIENT_CREDITS"


def test_freeze_of_more_than_there_is_takes_nothing(users: UserApp) -> None:
    user = users.new_user("10.00")
    assert users.refused("/credits/freeze", key=key(), user_id=user, amount=11) == "INSUFFICIENT_CREDITS"
    assert (users.balance(user), users.frozen(user)) == (10, 0)


def test_freeze_at_most_takes_what_there_is(users: UserApp) -> None:
    user = users.new_user("10.00")
    assert users.done("/credits/freeze", key=key(), user_id=user, amount=60, at_most=True)["amount"] == 10
    assert users.done("/credits/freeze", key=key(), user_id=user, amount=60, at_most=True)["amount"] == 0
    assert (users.balance(user), users.frozen(user)) == (0, 10)


def test_freeze_at_most_takes_no_more_than_asked(users: UserApp) -> None:
    user = users.new_user("100.00")
    assert users.done("/credits/freeze", key=key(), user_id=user, amount=60, at_most=True)["amount"] == 60
    assert (users.balance(user), users.frozen(user)) == (40, 60)


def test_freeze_at_most_of_an_unknown_user_is_404(users: UserApp) -> None:
    assert users.refused("/credits/freeze", key=key(), user_id=uuid4(), amount=1, at_most=True) == "USER_NOT_FOUND"


@pytest.mark.parametrize("at_most", [False, True])
def test_the_same_freeze_many_times_at_once_freezes_once(users: UserApp, at_most: bool) -> None:
    user, once = users.new_user("100.00"), key()
    body = {"key": once, "user_id": user, "amount": 30, "at_most": at_most}
    assert codes(users.queued(user, *[lambda: users.call("POST", "/credits/freeze", body)] * 5)) == [200] * 5
    assert (users.balance(user), users.frozen(user)) == (70, 30)


def test_freezes_at_most_at_once_share_what_there_is(users: UserApp) -> None:
    user = users.new_user("100.00")
    freeze = {"user_id": user, "amount": 60, "at_most": True}
    answers = users.queued(user, *[lambda: users.done("/credits/freeze", key=key(), **freeze)["amount"]] * 3)
    assert sorted(answers) == [0, 40, 60]
    assert (users.balance(user), users.frozen(user)) == (0, 100)


@pytest.mark.claim("transfer/refunds-when-owner-refused")
def test_unfreeze_gives_back_once(users: UserApp) -> None:
    user = users.new_user("100.00")
    held = frozen_hold(users, user, 60)
    answers = users.queued(user, *[lambda: users.call("POST", "/credits/unfreeze", {"key": held})] * 5)
    assert codes(answers) == [200] * 5
    assert (users.balance(user), users.frozen(user)) == (100, 0)


def test_an_unfreeze_that_overtakes_its_freeze_blocks_it(users: UserApp) -> None:
    user, held = users.new_user("100.00"), key("hold")
    users.done("/credits/unfreeze", key=held)
    assert users.refused("/credits/freeze", key=held, user_id=user, amount=60) == "STEP_VOIDED"
    assert users.frozen(user) == 0


def test_unfreeze_of_an_empty_freeze_gives_nothing(users: UserApp) -> None:
    user = users.new_user("0.00")
    users.done("/credits/unfreeze", key=frozen_hold(users, user, 60, at_most=True))
    assert users.balance(user) == 0


@pytest.mark.claim("transfer/changes-all-or-nothing", "schema/transfers.credits_amount")
def test_transfer_hands_the_held_credits_on_once(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("5.00")
    body = {"key": key("transfer"), "hold_keys": [frozen_hold(users, buyer, 60)], "to_user_id": seller}
    answers = users.queued(buyer, *[lambda: users.call("POST", "/credits/transfer", body)] * 5)
    assert codes(answers) == [200] * 5
    assert answers[0].get_json()["data"] == {"amount": 60.0, "credit_balance": 65.0}
    assert (users.balance(buyer), users.frozen(buyer), users.balance(seller)) == (40, 0, 65)


def test_transfer_takes_several_holds_and_an_empty_one(users: UserApp) -> None:
    seller, buyer = users.new_user("100.00"), users.new_user("0.00")
    holds = [frozen_hold(users, seller, 60), frozen_hold(users, seller, 40)]
    holds.append(frozen_hold(users, seller, 60, at_most=True))
    answer = users.done("/credits/transfer", key=key(), hold_keys=holds, to_user_id=buyer)
    assert answer == {"amount": Decimal("100.00"), "credit_balance": Decimal("100.00")}
    assert users.frozen(seller) == 0


def test_transfer_of_an_empty_hold_alone_moves_nothing(users: UserApp) -> None:
    seller, buyer = users.new_user("0.00"), users.new_user("7.00")
    holds = [frozen_hold(users, seller, 60, at_most=True)]
    answer = users.done("/credits/transfer", key=key(), hold_keys=holds, to_user_id=buyer)
    assert answer == {"amount": Decimal("0.00"), "credit_balance": Decimal("7.00")}


def test_transfer_with_a_hold_that_is_not_there_moves_nothing(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("0.00")
    holds = [frozen_hold(users, buyer, 60), key("hold")]
    assert users.refused("/credits/transfer", key=key(), hold_keys=holds, to_user_id=seller) == "CREDITS_UNAVAILABLE"
    assert (users.frozen(buyer), users.balance(seller)) == (60, 0)


def test_a_hold_that_was_given_back_cannot_be_handed_on(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("0.00")
    held = frozen_hold(users, buyer, 60)
    users.done("/credits/unfreeze", key=held)
    assert users.refused("/credits/transfer", key=key(), hold_keys=[held], to_user_id=seller) == "CREDITS_UNAVAILABLE"
    assert (users.balance(buyer), users.balance(seller)) == (100, 0)


def test_a_hold_that_was_handed_on_cannot_be_given_back(users: UserApp) -> None:
    buyer, seller = users.new_user("100.00"), users.new_user("0.00")
    held = frozen_hold(users, buyer, 60)
    users.done("/credits/transfer", key=key(), hold_keys=[held], to_user_id=seller)
    for _ in range(2):
        assert users.refused("/credits/unfreeze", key=held) == "CREDITS_UNAVAILABLE"
    assert (users.balance(buyer), users.balance(seller)) == (40, 60)


def test_unfreeze_and_transfer_at_once_move_the_credits_one_way(users: UserApp) -> None:
    for _ in range(5):
        buyer, seller = users.new_user("100.00"), users.new_user("0.00")
        held = frozen_hold(users, buyer, 60)
        handover = {"key": key("transfer"), "hold_keys": [held], "to_user_id": seller}
        answers = users.queued(
            buyer,
            partial(users.call, "POST", "/credits/unfreeze", {"key": held}),
            partial(users.call, "POST", "/credits/transfer", handover),
        )
        assert codes(answers) == [200, 409]
        assert users.balance(buyer) + users.balance(seller) == 100
        assert users.frozen(buyer) == 0


def test_opposite_transfers_at_once_do_not_deadlock(users: UserApp) -> None:
    one, other = users.new_user("100.00"), users.new_user("100.00")
    works = []
    for giver, taker in [(one, other), (other, one)] * 4:
        body = {"key": key("transfer"), "hold_keys": [frozen_hold(users, giver, 10)], "to_user_id": taker}
        works.append(partial(users.call, "POST", "/credits/transfer", body))
    assert codes(run_concurrently(works)) == [200] * 8
    assert (users.balance(one), users.balance(other)) == (100, 100)


def test_transfer_locks_the_lower_id_first(users: UserApp, databases: Databases) -> None:
    """The row that was written last has the lower id, so that the order of the table is the wrong one."""
    high = users.new_user("100.00", UUID(int=uuid4().int | 0xFF << 120))
    low = UUID(int=uuid4().int >> 8)
    body = {"key": key("transfer"), "hold_keys": [frozen_hold(users, high, 60)], "to_user_id": low}
    users.new_user("0.00", low)
    transfer = Thread(target=lambda: users.call("POST", "/credits/transfer", body))
    with closing(databases.superuser("user")) as blocker, closing(databases.superuser("user")) as probe:
        blocker.autocommit = False
        blocker.cursor().execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE", (low,))
        transfer.start()
        wait_until(lambda: users.waiting() == 1)
        probe.cursor().execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE NOWAIT", (high,))
        blocker.rollback()
    transfer.join()
    assert users.balance(low) == 60
