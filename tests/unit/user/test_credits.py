"""Credits: each movement happens once under its key, and no balance becomes negative."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from functools import partial
from uuid import uuid4

import pytest

from services.chassis.db import Database
from tests.support.concurrency import run_concurrently
from tests.support.databases import Databases
from tests.support.service_settings import new_key
from tests.unit.user.user_app import UserApp, error_code, status_codes

pytestmark = pytest.mark.unit


@pytest.mark.claim("pay/deducts-price", "layers/user-over-rest")
def test_deduct_returns_the_new_balance(users: UserApp) -> None:
    user = users.new_user("100.00")
    answer = users.post("/credits/deduct", key=new_key(), user_id=user, amount=Decimal("30.50"))
    assert answer == {"amount": Decimal("30.50"), "credit_balance": Decimal("69.50")}
    assert users.balance(user) == Decimal("69.50")


def test_money_is_a_number_with_two_decimals(users: UserApp) -> None:
    user = users.new_user("100.00")
    raw = users.call("POST", "/credits/deduct", {"key": new_key(), "user_id": user, "amount": 30}).data
    assert b'"amount":30.00' in raw
    assert b'"credit_balance":70.00' in raw


@pytest.mark.claim(
    "pay/deducts-price",
    "pay/keeps-hold-without-credits",
    "lock/deduct-in-one-transaction",
    "lock/failed-deduct-leaves-nothing",
)
def test_deduct_beyond_the_balance_is_402_and_takes_nothing(users: UserApp) -> None:
    user = users.new_user("10.00")
    answer = users.call("POST", "/credits/deduct", {"key": new_key(), "user_id": user, "amount": Decimal("10.01")})
    assert (answer.status_code, error_code(answer)) == (402, "INSUFFICIENT_CREDITS")
    assert users.balance(user) == 10


def test_last_cent_can_be_spent(users: UserApp) -> None:
    user = users.new_user("10.00")
    assert users.post("/credits/deduct", key=new_key(), user_id=user, amount=10)["credit_balance"] == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [("/credits/deduct", "user_id"), ("/credits/freeze", "user_id"), ("/credits/transfer", "to_user_id")],
)
def test_unknown_user_is_404(users: UserApp, path: str, field: str) -> None:
    held = new_key("hold")
    users.post("/credits/freeze", key=held, user_id=users.new_user(), amount=1)
    rest = {"hold_keys": [held]} if field == "to_user_id" else {"amount": 1}
    assert users.expect_refusal(path, key=new_key(), **{field: uuid4()}, **rest) == "USER_NOT_FOUND"


def test_repeated_deduct_returns_the_first_answer(users: UserApp) -> None:
    user, once = users.new_user("100.00"), new_key()
    first = users.post("/credits/deduct", key=once, user_id=user, amount=40)
    users.post("/credits/deduct", key=new_key(), user_id=user, amount=10)
    assert users.post("/credits/deduct", key=once, user_id=user, amount=40) == first
    assert users.balance(user) == 50


def test_concurrent_deducts_with_one_key_charge_once(users: UserApp) -> None:
    user, once = users.new_user("100.00"), new_key()
    body = {"key": once, "user_id": user, "amount": 60}
    answers = users.run_at_locked_row(user, *[lambda: users.call("POST", "/credits/deduct", body)] * 5)
    assert status_codes(answers) == [200] * 5
    assert {answer.data for answer in answers} == {answers[0].data}
    assert users.balance(user) == 40


@pytest.mark.claim("lock/deduct-in-one-transaction", "lock/credits-are-spent-once")
def test_concurrent_deducts_never_overdraw(users: UserApp) -> None:
    user = users.new_user("100.00")
    answers = users.run_at_locked_row(
        user, *[lambda: users.call("POST", "/credits/deduct", {"key": new_key(), "user_id": user, "amount": 30})] * 5
    )
    assert status_codes(answers) == [200] * 3 + [402] * 2
    assert users.balance(user) == 10


def test_refused_deduct_stays_refused_after_a_top_up(users: UserApp) -> None:
    user, once = users.new_user("10.00"), new_key()
    assert users.expect_refusal("/credits/deduct", key=once, user_id=user, amount=50) == "INSUFFICIENT_CREDITS"
    held = new_key("hold")
    users.post("/credits/freeze", key=held, user_id=users.new_user("100.00"), amount=100)
    users.post("/credits/transfer", key=new_key(), hold_keys=[held], to_user_id=user)
    assert users.expect_refusal("/credits/deduct", key=once, user_id=user, amount=50) == "INSUFFICIENT_CREDITS"
    assert users.balance(user) == 110


@pytest.mark.claim("pay/refunds-when-order-refused", "pay/refunds-when-seat-refused")
def test_refund_gives_back_the_deduct_once(users: UserApp) -> None:
    user, charge = users.new_user("100.00"), new_key()
    users.post("/credits/deduct", key=charge, user_id=user, amount=40)
    assert users.post("/credits/refund", key=charge) == {}
    assert users.post("/credits/refund", key=charge) == {}
    assert users.balance(user) == 100


def test_concurrent_refunds_give_back_once(users: UserApp) -> None:
    user, charge = users.new_user("100.00"), new_key()
    users.post("/credits/deduct", key=charge, user_id=user, amount=40)
    answers = users.run_at_locked_row(user, *[lambda: users.call("POST", "/credits/refund", {"key": charge})] * 5)
    assert status_codes(answers) == [200] * 5
    assert users.balance(user) == 100


@pytest.mark.parametrize("is_deducted", [True, False])
def test_refund_blocks_its_deduct(users: UserApp, is_deducted: bool) -> None:
    user, charge = users.new_user("100.00"), new_key()
    if is_deducted:
        users.post("/credits/deduct", key=charge, user_id=user, amount=40)
    users.post("/credits/refund", key=charge)
    assert users.expect_refusal("/credits/deduct", key=charge, user_id=user, amount=40) == "STEP_VOIDED"
    assert users.balance(user) == 100


def test_concurrent_deduct_and_refund_take_nothing(users: UserApp) -> None:
    user = users.new_user("100.00")
    for _ in range(10):
        charge = new_key()
        run_concurrently(
            [
                partial(users.call, "POST", "/credits/deduct", {"key": charge, "user_id": user, "amount": 40}),
                partial(users.call, "POST", "/credits/refund", {"key": charge}),
            ]
        )
        assert users.balance(user) == 100


def test_refund_of_a_refused_deduct_gives_nothing(users: UserApp) -> None:
    user, charge = users.new_user("10.00"), new_key()
    users.expect_refusal("/credits/deduct", key=charge, user_id=user, amount=40)
    users.post("/credits/refund", key=charge)
    assert users.balance(user) == 10


def test_refund_refuses_the_key_of_a_freeze(users: UserApp) -> None:
    user, hold = users.new_user("100.00"), new_key("hold")
    users.post("/credits/freeze", key=hold, user_id=user, amount=40)
    assert users.expect_refusal("/credits/refund", key=hold) == "VALIDATION_ERROR"
    assert (users.balance(user), users.frozen_credits(user)) == (60, 40)


BAD_AMOUNTS = [
    "0", "0.00", "-1", "-0.01", "0.001", "10.005", "1e-3", "100000000.00", "1e400", "1e-999999999999999999999",
    "99999999999999999999999999999", '"10.00"', '"NaN"', "NaN", "Infinity", "-Infinity", "null", "true", "[]", "{}",
    "1" * 5000, "0.1000000000000000055511151231257827",
]  # fmt: skip


@pytest.mark.parametrize("path", ["/credits/deduct", "/credits/freeze", "/credits/topup"])
@pytest.mark.parametrize("amount", BAD_AMOUNTS, ids=lambda text: text[:24])
def test_invalid_amount_is_a_validation_error(users: UserApp, path: str, amount: str) -> None:
    user = users.new_user("100.00")
    answer = users.call("POST", path, f'{{"key":"{new_key()}","user_id":"{user}","amount":{amount}}}'.encode())
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")
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
def test_malformed_body_has_its_code(users: UserApp, body: bytes, code: str) -> None:
    answer = users.call("POST", "/credits/deduct", body)
    assert (answer.status_code, error_code(answer)) == (400, code)


@pytest.mark.claim("schema/users.credit_balance")
@pytest.mark.parametrize("column", ["credit_balance", "frozen_credits"])
def test_database_refuses_a_negative_balance(users: UserApp, databases: Databases, column: str) -> None:
    user = users.new_user("10.00")
    with closing(databases.superuser("user")) as connection, connection.cursor() as cursor:
        with pytest.raises(Exception, match="violates check constraint"):
            cursor.execute(f"UPDATE users SET {column} = -0.01 WHERE user_id = %s", (user,))


def test_database_refuses_a_second_entry_per_key(users: UserApp) -> None:
    user, once = users.new_user("100.00"), new_key()
    users.post("/credits/deduct", key=once, user_id=user, amount=40)
    delete_effect(users.db, once)
    assert users.call("POST", "/credits/deduct", {"key": once, "user_id": user, "amount": 40}).status_code == 500
    assert users.balance(user) == 60


def delete_effect(db: Database, lost_key: str) -> None:
    """Simulate a lost record of an effect, so that only the ledger's index remains."""
    with db.transaction() as tx:
        assert tx.run("DELETE FROM effects WHERE key = %(key)s", key=lost_key) == 1
