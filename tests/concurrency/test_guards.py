"""What keeps credits and tickets from being spent twice, one guard at a time: with it the check passes, without it not.

Straight at a copy of the service on a database of its own, so that what goes wrong there goes wrong nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from harness.api_client import Api, ApiResponse
from harness.runtime.ports import HOST
from harness.runtime.process import wait_for
from tests.concurrency.callers import InventoryCaller, connect_inventory, make_credential
from tests.concurrency.patched_service import create_patched_database, run_patched
from tests.support import inserts
from tests.support.concurrency import outcomes, run_concurrently
from tests.support.system import TestSystem

pytestmark = pytest.mark.concurrency

BALANCE, PRICE, ORDERS, PAYS, GATES = Decimal(100), 30, 12, 12, 12
WAIT_SECONDS = 0.9  # below lock_timeout: who waits for a row is still waiting then
NO_BROKER = {"RABBITMQ_PORT": "1"}  # its database is another one: the stack's messages are not for it

# A guard in the code, taken out by a patch, and the database's own behind it, taken out in SQL.
NO_FLOOR = (
    "from services.user.store import credits\n"
    "assert ' AND credit_balance >= %(amount)s' in credits._DEDUCT\n"
    "credits._DEDUCT = credits._DEDUCT.replace(' AND credit_balance >= %(amount)s', '')",
    "ALTER TABLE users DROP CONSTRAINT users_credit_balance_check",
)
NO_KEYS = (
    "",
    "ALTER TABLE effects DROP CONSTRAINT effects_pkey; ALTER TABLE credit_entries DROP CONSTRAINT credit_entries_pkey",
)
# The giver's row first instead of both in one order; the pause lets the other get as far.
NO_ORDER = (
    "from services.user.store import credits\n"
    "both = 'user_id = %(to_user_id)s OR '\n"
    "assert both in credits._LOCK_PARTIES\n"
    "own = credits._LOCK_PARTIES.replace(both, '')\n"
    "credits._LOCK_PARTIES = f'WITH own AS MATERIALIZED ({own}) SELECT user_id, pg_sleep(0.3) FROM own'",
    "",
)
NO_LOCK = (
    "from services.inventory.store import entries\n"
    "assert ' FOR UPDATE' in entries._CHECK_IN\n"
    "entries._CHECK_IN = entries._CHECK_IN.replace(' FOR UPDATE', '')",
    "DROP INDEX idx_one_success_per_seat",
)
WHOLE = ("", "")


@dataclass(frozen=True)
class Copy:
    """A copy of a service: its ports, its database."""

    system: TestSystem
    ports: dict[str, int]
    dsn: str

    def user(self) -> Api:
        """User, called as the orchestrator calls it."""
        token = make_credential(self.system.stack).header().removeprefix("Bearer ")
        return Api(f"http://{HOST}:{self.ports['PORT']}", token=token)

    def person(self) -> str:
        """An account with `BALANCE` credits."""
        person = inserts.User(str(uuid4()), "+6590000000", "customer", BALANCE, is_flagged=False)
        with closing(psycopg2.connect(self.dsn)) as connection:
            inserts.users(connection, [person])
            connection.commit()
        return person.user_id

    def ask(self, sql: str, *params: Any) -> Any:
        """The first value of the first row."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            return (cursor.fetchone() or (None,))[0]


@contextmanager
def without(system: TestSystem, service: str, guard: tuple[str, str]) -> Iterator[Copy]:
    """A copy of the service that lacks a guard."""
    patch, sql = guard
    with (
        create_patched_database(system.stack, service, sql) as (name, dsn),
        run_patched(system.stack, service, patch, {"DB_NAME": name, **NO_BROKER}) as ports,
    ):
        yield Copy(system, ports, dsn)


@pytest.fixture(scope="module")
def whole(system: TestSystem) -> Iterator[Copy]:
    """A copy of User that lacks nothing."""
    with without(system, "user-service", WHOLE) as copy:
        yield copy


# ── orders on one balance, one order paid again and again


def deducted(copy: Copy, user: str, keys: list[str]) -> Counter[str]:
    """A charge under each key, all at once."""
    charge = {"user_id": user, "amount": PRICE}
    calls = [partial(copy.user().post, "/credits/deduct", {**charge, "key": key}) for key in keys]
    return outcomes(run_concurrently(calls))


def assert_not_overspent(copy: Copy) -> None:
    """Of many charges on one balance as many are made as it covers."""
    user, affordable = copy.person(), int(BALANCE // PRICE)
    made = deducted(copy, user, [f"pay:{uuid4()}:1:deduct_credits" for _ in range(ORDERS)])
    balance = copy.ask("SELECT credit_balance FROM users WHERE user_id = %s", user)
    assert balance == BALANCE - affordable * PRICE, f"the balance is {balance}"
    assert made == {"200": affordable, "402 INSUFFICIENT_CREDITS": ORDERS - affordable}


def assert_charged_once(copy: Copy) -> None:
    """Many charges under one key are one charge."""
    user = copy.person()
    made = deducted(copy, user, [f"pay:{uuid4()}:1:deduct_credits"] * PAYS)
    charges = copy.ask("SELECT count(*) FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'", user)
    assert charges == 1, f"charged {charges} times"
    assert made == {"200": PAYS}


def test_charges_beyond_the_balance_are_refused(whole: Copy) -> None:
    assert_not_overspent(whole)


def test_charges_under_one_key_are_one(whole: Copy) -> None:
    assert_charged_once(whole)


@pytest.mark.negative_control
def test_control_without_the_floor_a_balance_is_overspent(system: TestSystem) -> None:
    with without(system, "user-service", NO_FLOOR) as copy, pytest.raises(AssertionError, match="the balance is -"):
        assert_not_overspent(copy)


@pytest.mark.negative_control
def test_control_without_keys_one_order_is_charged_again(system: TestSystem) -> None:
    with without(system, "user-service", NO_KEYS) as copy, pytest.raises(AssertionError, match="charged 3 times"):
        assert_charged_once(copy)


# ── opposite transfers


def assert_no_deadlock(copy: Copy) -> None:
    """Two people pay each other at the same moment."""
    one, other = copy.person(), copy.person()
    answers = run_concurrently(
        [partial(handed_over, copy, giver, taker) for giver, taker in ((one, other), (other, one))]
    )
    assert outcomes(answers) == {"200": 2}, f"deadlock: {outcomes(answers)}"
    assert copy.ask("SELECT sum(credit_balance) FROM users WHERE user_id IN (%s, %s)", one, other) == 2 * BALANCE


def handed_over(copy: Copy, giver: str, taker: str) -> ApiResponse:
    """Credits frozen, then handed on."""
    saga = f"transfer_confirm:{uuid4()}:1"
    frozen = {"key": f"{saga}:hold", "user_id": giver, "amount": PRICE}
    copy.user().post("/credits/freeze", frozen).must(200)
    handed = {"key": f"{saga}:pay_seller", "hold_keys": [frozen["key"]], "to_user_id": taker}
    return copy.user().post("/credits/transfer", handed)


def test_opposite_payments_wait_for_each_other(whole: Copy) -> None:
    assert_no_deadlock(whole)


@pytest.mark.negative_control
def test_control_without_one_order_of_locks_opposite_payments_deadlock(system: TestSystem) -> None:
    with without(system, "user-service", NO_ORDER) as copy, pytest.raises(AssertionError, match="deadlock"):
        assert_no_deadlock(copy)


# ── many gates, one ticket


def assert_admitted_once(copy: Copy) -> None:
    """All gates are at the seat's row before the first may have it; one of them admits."""
    owner, order = str(uuid4()), str(uuid4())
    seat = ticket(copy, owner, order)
    with connect_inventory(copy.system.stack, f"{HOST}:{copy.ports['GRPC_PORT']}") as caller:
        with closing(psycopg2.connect(copy.dsn)) as holder, holder.cursor() as cursor:
            cursor.execute("SELECT FROM seats WHERE seat_id = %s FOR UPDATE", (seat,))
            scans = run_concurrently(
                [partial(scan, caller, seat, order, owner)] * GATES + [partial(let_go, copy, holder)]
            )
    admitted = scans.count("SUCCESS")
    assert admitted == 1, f"admitted {admitted} times"
    assert scans.count("DUPLICATE") == GATES - 1


def ticket(copy: Copy, owner: str, order: str) -> str:
    """A seat that was sold."""
    sold = """
    INSERT INTO seats (seat_id, event_id, row_number, seat_number, category, status, owner_user_id, order_id, hold_id,
                       price_paid, qr_code_hash)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'A', 1, 'CAT1', 'SOLD', %s, %s, %s, 100, 'none')
    RETURNING seat_id::text"""
    with closing(psycopg2.connect(copy.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(sold, (owner, order, order))
        connection.commit()
        return str((cursor.fetchone() or ("",))[0])


def scan(caller: InventoryCaller, seat: str, order: str, owner: str) -> str:
    """A gate's own scan."""
    facts = {"scan_id": str(uuid4()), "staff_id": str(uuid4())}
    return str(caller.call("MarkCheckedIn", seat_id=seat, order_id=order, expected_owner_id=owner, facts=facts).result)


def let_go(copy: Copy, holder: Any) -> str:
    """Give the row up as soon as two gates wait for it."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    assert wait_for(lambda: copy.ask(waiting) >= 2, WAIT_SECONDS)
    holder.rollback()
    return "let go"


def test_one_of_many_gates_admits(system: TestSystem) -> None:
    with without(system, "inventory-service", WHOLE) as copy:
        assert_admitted_once(copy)


@pytest.mark.negative_control
def test_control_without_the_lock_gates_admit_again(system: TestSystem) -> None:
    with (
        without(system, "inventory-service", NO_LOCK) as copy,
        pytest.raises(AssertionError, match=r"admitted [2-9] times"),
    ):
        assert_admitted_once(copy)
