"""Credits: every movement once under its key, never below zero, and the ledger tells the same as the balance."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from functools import partial
from uuid import uuid4

import pytest

from services.chassis.db import Database
from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.unit.user.user_app import UserApp, codes, key, refusal

pytestmark = pytest.mark.unit


@pytest.mark.claim("pay/deducts-price", "layers/user-over-rest")
def test_deduct_takes_the_amount_and_says_what_is_left(users: UserApp) -> None:
    user = users.new_user("100.00")
    answer = users.done("/credits/deduct", key=key(), user_id=user, amount=Decimal("30.50"))
    assert answer == {"amount": Decimal("30.50"), "credit_balance": Decimal("69.50")}
    assert users.balance(user) == Decimal("69.50")


def test_money_is_a_number_with_two_decimals(users: UserApp) -> None:
    user = users.new_user("100.00")
    raw = users.call("POST", "/credits/deduct", {"key": key(), "user_id": user, "amount": 30}).data
    assert b'"amount":30.00' in raw
    assert b'"credit_balance":70.00' in raw


@pytest.mark.claim(
    "pay/deducts-price",
    "pay/keeps-hold-without-credits",
    "lock/deduct-in-one-transaction",
    "lock/failed-deduct-leaves-nothing",
)
def test_a_deduct_beyond_the_balance_is_402_and_takes_nothing(users: UserApp) -> None:
    user = users.new_user("10.00")
    answer = users.call("POST", "/credits/deduct", {"key": key(), "user_id": user, "amount": Decimal("10.01")})
    assert (answer.status_code, refusal(answer)) == (402, "INSUFFICIENT_CREDITS")
    assert users.balance(user) == 10


def test_the_last_cent_can_be_spent(users: UserApp) -> None:
    user = users.new_user("10.00")
    assert users.done("/credits/deduct", key=key(), user_id=user, amount=10)["credit_balance"] == 0


@pytest.mark.parametrize(
    ("path", "who"),
    [("/credits/deduct", "user_id"), ("/credits/freeze", "user_id"), ("/credits/transfer", "to_user_id")],
)
def test_an_unknown_user_is_404(users: UserApp, path: str, who: str) -> None:
    held = key("hold")
    users.done("/credits/freeze", key=held, user_id=users.new_user(), amount=1)
    rest = {"hold_keys": [held]} if who == "to_user_id" else {"amount": 1}
    assert users.refused(path, key=key(), **{who: uuid4()}, **rest) == "USER_NOT_FOUND"


def test_the_same_key_again_gets_the_first_answer_and_charges_once(users: UserApp) -> None:
    user, once = users.new_user("100.00"), key()
    first = users.done("/credits/deduct", key=once, user_id=user, amount=40)
    users.done("/credits/deduct", key=key(), user_id=user, amount=10)
    assert users.done("/credits/deduct", key=once, user_id=user, amount=40) == first
    assert users.balance(user) == 50


def test_the_same_deduct_many_times_at_once_charges_once(users: UserApp) -> None:
    user, once = users.new_user("100.00"), key()
    body = {"key": once, "user_id": user, "amount": 60}
    answers = users.queued(user, *[lambda: users.call("POST", "/credits/deduct", body)] * 5)
    assert codes(answers) == [200] * 5
    assert {answer.data for answer in answers} == {answers[0].data}
    assert users.balance(user) == 40


@pytest.mark.claim("lock/deduct-in-one-transaction", "lock/credits-are-spent-once")
def test_many_deducts_at_once_never_overdraw(users: UserApp) -> None:
    user = users.new_user("100.00")
    answers = users.queued(
        user, *[lambda: users.call("POST", "/credits/deduct", {"key": key(), "user_id": user, "amount": 30})] * 5
    )
    assert codes(answers) == [200] * 3 + [402] * 2
    assert users.balance(user) == 10


def test_a_refused_deduct_stays_refused_after_a_top_up(users: UserApp) -> None:
    user, once = users.new_user("10.00"), key()
    assert users.refused("/credits/deduct", key=once, user_id=user, amount=50) == "INSUFFICIENT_CREDITS"
    held = key("hold")
    users.done("/credits/freeze", key=held, user_id=users.new_user("100.00"), amount=100)
    users.done("/credits/transfer", key=key(), hold_keys=[held], to_user_id=user)
    assert users.refused("/credits/deduct", key=once, user_id=user, amount=50) == "INSUFFICIENT_CREDITS"
    assert users.balance(user) == 110


@pytest.mark.claim("pay/refunds-when-order-refused", "pay/refunds-when-seat-refused")
def test_refund_gives_back_what_was_taken_once(users: UserApp) -> None:
    user, charge = users.new_user("100.00"), key()
    users.done("/credits/deduct", key=charge, user_id=user, amount=40)
    assert users.done("/credits/refund", key=charge) == {}
    assert users.done("/credits/refund", key=charge) == {}
    assert users.balance(user) == 100


def test_many_refunds_at_once_give_back_once(users: UserApp) -> None:
    user, charge = users.new_user("100.00"), key()
    users.done("/credits/deduct", key=charge, user_id=user, amount=40)
    answers = users.queued(user, *[lambda: users.call("POST", "/credits/refund", {"key": charge})] * 5)
    assert codes(answers) == [200] * 5
    assert users.balance(user) == 100


def test_a_refund_that_overtakes_its_deduct_blocks_it(users: UserApp) -> None:
    user, charge = users.new_user("100.00"), key()
    users.done("/credits/refund", key=charge)
    assert users.refused("/credits/deduct", key=charge, user_id=user, amount=40) == "STEP_VOIDED"
    assert users.balance(user) == 100


def test_a_deduct_and_its_refund_at_once_leave_nothing_taken(users: UserApp) -> None:
    user = users.new_user("100.00")
    for _ in range(10):
        charge = key()
        run_concurrently(
            [
                partial(users.call, "POST", "/credits/deduct", {"key": charge, "user_id": user, "amount": 40}),
                partial(users.call, "POST", "/credits/refund", {"key": charge}),
            ]
        )
        assert users.balance(user) == 100


def test_a_refunded_deduct_cannot_be_made_again(users: UserApp) -> None:
    user, charge = users.new_user("100.00"), key()
    users.done("/credits/deduct", key=charge, user_id=user, amount=40)
    users.done("/credits/refund", key=charge)
    assert users.refused("/credits/deduct", key=charge, user_id=user, amount=40) == "STEP_VOIDED"
    assert users.balance(user) == 100


def test_refund_of_a_refused_deduct_gives_nothing(users: UserApp) -> None:
    user, charge = users.new_user("10.00"), key()
    users.refused("/credits/deduct", key=charge, user_id=user, amount=40)
    users.done("/credits/refund", key=charge)
    assert users.balance(user) == 10


def test_refund_refuses_the_key_of_a_freeze(users: UserApp) -> None:
    user, hold = users.new_user("100.00"), key("hold")
    users.done("/credits/freeze", key=hold, user_id=user, amount=40)
    assert users.refused("/credits/refund", key=hold) == "VALIDATION_ERROR"
    assert (users.balance(user), users.frozen(user)) == (60, 40)


BAD_AMOUNTS = [
    "0", "0.00", "-1", "-0.01", "0.001", "10.005", "1e-3", "100000000.00", "1e400", "1e-999999999999999999999",
    "99999999999999999999999999999", '"10.00"', '"NaN"', "NaN", "Infinity", "-Infinity", "null", "true", "[]", "{}",
    "1" * 5000, "0.1000000000000000055511151231257827",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/credits/deduct", "/credits/freeze", "/credits/topup"])
@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=lambda text: text[:24])
def test_a_bad_amount_is_a_validation_error(users: UserApp, path: str, amount: str) -> None:
    user = users.new_user("100.00")
    answer = users.call("POST", path, f'{{"key":"{key()}","user_id":"{user}","amount":{amount}}}'.encode())
    assert (answer.status_code, refusal(answer)) == (400, "VALIDATION_ERROR")
    assert users.balance(user) == 100


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "VALIDATION_ERROR"),
        (b"[]", "VALIDATION_ERROR"),
        (b"{", "VALIDATION_ERROR"),
        (b"\xff\xfe", "VALIDATION_ERROR"),
        (b'{"key":"","user_id":"00000000-0000-0000-0000-000000000001","amount":1}', "VALIDATION_ERROR"),
        (b'{"key":"a\\u0000b","user_id":"00000000-0000-0000-0000-000000000001","amount":1}', "VALIDATION_ERROR"),
        (b'{"key":"k","user_id":"00000000-0000-0000-0000-000000000001"}', "VALIDATION_ERROR"),
        (b'{"key":"k","user_id":"nobody","amount":1}', "INVALID_UUID"),
        (b'{"key":"k","user_id":"00000000-0000-0000-0000-000000000001","amount":1,"x":1}', "VALIDATION_ERROR"),
    ],
)
def test_a_malformed_body_has_its_code(users: UserApp, body: bytes, code: str) -> None:
    answer = users.call("POST", "/credits/deduct", body)
    assert (answer.status_code, refusal(answer)) == (400, code)


@pytest.mark.claim("schema/users.credit_balance")
@pytest.mark.parametrize("column", ["credit_balance", "frozen_credits"])
def test_the_database_itself_refuses_a_negative_balance(users: UserApp, databases: Databases, column: str) -> None:
    user = users.new_user("10.00")
    with closing(databases.superuser("user")) as connection, connection.cursor() as cursor:
        with pytest.raises(Exception, match="violates check constraint"):
            cursor.execute(f"UPDATE users SET {column} = -0.01 WHERE user_id = %s", (user,))


def test_the_database_itself_refuses_a_key_twice(users: UserApp) -> None:
    user, once = users.new_user("100.00"), key()
    users.done("/credits/deduct", key=once, user_id=user, amount=40)
    forget_effect(users.db, once)
    assert users.call("POST", "/credits/deduct", {"key": once, "user_id": user, "amount": 40}).status_code == 500
    assert users.balance(user) == 60


def forget_effect(db: Database, lost: str) -> None:
    """As if the record of effects were damaged: the ledger's own index still holds."""
    with db.transaction() as tx:
        assert tx.run("DELETE FROM effects WHERE key = %(key)s", key=lost) == 1
