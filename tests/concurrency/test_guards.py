"""The guards against double spending, each with a negative control: without the guard the same check must fail.

The checks call a copy of the service with its own database, so that a removed guard cannot damage other tests.
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

BALANCE, PRICE, ORDERS, PAYMENTS, GATES = Decimal(100), 30, 12, 12, 12
RESERVES, MAX_HOLDS = 64, 6
WAIT_SECONDS = 0.9  # below lock_timeout, so a call that waits for a row still waits then
NO_BROKER = {"RABBITMQ_PORT": "1"}  # because the messages of the stack are not for this copy's database

# Each guard is a patch that removes it from the code, and SQL that removes its constraint from the database.
NO_BALANCE_CHECK = (
    "from services.user.store import credits\n"
    "assert ' AND credit_balance >= %(amount)s' in credits._DEDUCT\n"
    "credits._DEDUCT = credits._DEDUCT.replace(' AND credit_balance >= %(amount)s', '')",
    "ALTER TABLE users DROP CONSTRAINT users_credit_balance_check",
)
NO_KEYS = (
    "",
    "ALTER TABLE effects DROP CONSTRAINT effects_pkey; ALTER TABLE credit_entries DROP CONSTRAINT credit_entries_pkey",
)
# It locks the payer's row first instead of both in one order. The pause lets the other transfer do the same.
NO_LOCK_ORDER = (
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
# The count then has the snapshot of the statement, which is older than the lock.
NO_SNAPSHOT_AFTER_LOCK = ("", "ALTER FUNCTION reached_limit(uuid, uuid, uuid, int, int) STABLE")
# The pause after the count lets the other reserves count before the first of them commits.
NO_LOCK_OF_USER = (
    "",
    """DO $$ BEGIN EXECUTE replace(replace(pg_get_functiondef('reached_limit'::regproc),
        'PERFORM pg_advisory_xact_lock(hashtextextended(for_user_id::text, 0))', 'NULL'),
        'RETURN CASE', 'PERFORM pg_sleep(0.1); RETURN CASE'); END $$""",
)
UNCHANGED = ("", "")


@dataclass(frozen=True)
class Copy:
    """A copy of a service, with its ports and its database."""

    system: TestSystem
    ports: dict[str, int]
    dsn: str

    def connect_user(self) -> Api:
        """Return a client of the User service with the orchestrator's credential."""
        token = make_credential(self.system.stack, "user-service").header().removeprefix("Bearer ")
        return Api(f"http://{HOST}:{self.ports['PORT']}", token=token)

    def create_user(self) -> str:
        """Create an account with `BALANCE` credits and return its id."""
        person = inserts.User(credits=BALANCE)
        with closing(psycopg2.connect(self.dsn)) as connection:
            inserts.users(connection, [person])
            connection.commit()
        return person.user_id

    def read_value(self, sql: str, *params: Any) -> Any:
        """Return the first value of the first row."""
        with closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            return (cursor.fetchone() or (None,))[0]

    def count_waiting(self) -> int:
        """Count the calls that wait for a lock."""
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(self.read_value(waiting))


@contextmanager
def run_without(system: TestSystem, service: str, guard: tuple[str, str]) -> Iterator[Copy]:
    """Run a copy of the service without a guard."""
    patch, sql = guard
    with (
        create_patched_database(system.stack, service, sql) as (name, dsn),
        run_patched(system.stack, service, patch, {"DB_NAME": name, **NO_BROKER}) as ports,
    ):
        yield Copy(system, ports, dsn)


@pytest.fixture(scope="module")
def user_copy(system: TestSystem) -> Iterator[Copy]:
    """A copy of the User service with all guards."""
    with run_without(system, "user-service", UNCHANGED) as copy:
        yield copy


# ── concurrent charges


def charge_concurrently(copy: Copy, user: str, keys: list[str]) -> Counter[str]:
    """Charge the user once for each key, all at the same time."""
    charge = {"user_id": user, "amount": PRICE}
    calls = [partial(copy.connect_user().post, "/credits/deduct", {**charge, "key": key}) for key in keys]
    return outcomes(run_concurrently(calls))


def assert_not_overspent(copy: Copy) -> None:
    """Assert that only as many charges succeed as the balance covers."""
    user, affordable = copy.create_user(), int(BALANCE // PRICE)
    made = charge_concurrently(copy, user, [f"pay:{uuid4()}:1:deduct_credits" for _ in range(ORDERS)])
    balance = copy.read_value("SELECT credit_balance FROM users WHERE user_id = %s", user)
    assert balance == BALANCE - affordable * PRICE, f"the balance is {balance}"
    assert made == {"200": affordable, "402 INSUFFICIENT_CREDITS": ORDERS - affordable}


def assert_charged_once(copy: Copy) -> None:
    """Assert that many charges with one key are one charge."""
    user = copy.create_user()
    made = charge_concurrently(copy, user, [f"pay:{uuid4()}:1:deduct_credits"] * PAYMENTS)
    charges = copy.read_value("SELECT count(*) FROM credit_entries WHERE user_id = %s AND kind = 'DEDUCT'", user)
    assert charges == 1, f"charged {charges} times"
    assert made == {"200": PAYMENTS}


def test_charges_beyond_the_balance_are_refused(user_copy: Copy) -> None:
    assert_not_overspent(user_copy)


def test_concurrent_charges_with_one_key_are_one(user_copy: Copy) -> None:
    assert_charged_once(user_copy)


@pytest.mark.negative_control
def test_balance_is_overspent_without_its_check(system: TestSystem) -> None:
    patched = run_without(system, "user-service", NO_BALANCE_CHECK)
    with patched as copy, pytest.raises(AssertionError, match="the balance is -"):
        assert_not_overspent(copy)


@pytest.mark.negative_control
def test_one_order_is_charged_again_without_keys(system: TestSystem) -> None:
    with run_without(system, "user-service", NO_KEYS) as copy, pytest.raises(AssertionError, match="charged 3 times"):
        assert_charged_once(copy)


# ── opposite transfers


def assert_no_deadlock(copy: Copy) -> None:
    """Assert that two users can pay each other at the same time."""
    one, other = copy.create_user(), copy.create_user()
    answers = run_concurrently([partial(transfer, copy, *pair) for pair in ((one, other), (other, one))])
    assert outcomes(answers) == {"200": 2}, f"deadlock: {outcomes(answers)}"
    assert copy.read_value("SELECT sum(credit_balance) FROM users WHERE user_id IN (%s, %s)", one, other) == 2 * BALANCE


def transfer(copy: Copy, payer: str, payee: str) -> ApiResponse:
    """Freeze credits of the payer, then transfer them to the payee."""
    saga = f"transfer_confirm:{uuid4()}:1"
    hold = {"key": f"{saga}:hold", "user_id": payer, "amount": PRICE}
    copy.connect_user().post("/credits/freeze", hold).must(200)
    payment = {"key": f"{saga}:pay_seller", "hold_keys": [hold["key"]], "to_user_id": payee}
    return copy.connect_user().post("/credits/transfer", payment)


def test_opposite_payments_wait_for_each_other(user_copy: Copy) -> None:
    assert_no_deadlock(user_copy)


@pytest.mark.negative_control
def test_opposite_payments_deadlock_without_a_lock_order(system: TestSystem) -> None:
    with run_without(system, "user-service", NO_LOCK_ORDER) as copy, pytest.raises(AssertionError, match="deadlock"):
        assert_no_deadlock(copy)


# ── many gates, one ticket


def assert_admitted_once(copy: Copy) -> None:
    """Assert that one gate admits, although several wait for the lock of the seat's row."""
    owner, order = str(uuid4()), str(uuid4())
    seat = create_ticket(copy, owner, order)
    with connect_inventory(copy.system.stack, f"{HOST}:{copy.ports['GRPC_PORT']}") as caller:
        with closing(psycopg2.connect(copy.dsn)) as holder, holder.cursor() as cursor:
            cursor.execute("SELECT FROM seats WHERE seat_id = %s FOR UPDATE", (seat,))
            scans = run_concurrently(
                [partial(scan, caller, seat, order, owner)] * GATES + [partial(unlock_for_waiting_gates, copy, holder)]
            )
    admitted = scans.count("SUCCESS")
    assert admitted == 1, f"admitted {admitted} times"
    assert scans.count("DUPLICATE") == GATES - 1


def create_ticket(copy: Copy, owner: str, order: str) -> str:
    """Create a sold seat and return its id."""
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
    """Scan the ticket with a new scan id."""
    facts = {"scan_id": str(uuid4()), "staff_id": str(uuid4())}
    return str(caller.call("MarkCheckedIn", seat_id=seat, order_id=order, expected_owner_id=owner, facts=facts).result)


def unlock_for_waiting_gates(copy: Copy, holder: Any) -> str:
    """Release the lock when two gates wait for it."""
    assert wait_for(lambda: copy.count_waiting() >= 2, WAIT_SECONDS)
    holder.rollback()
    return "unlocked"


def test_one_of_many_gates_admits(system: TestSystem) -> None:
    with run_without(system, "inventory-service", UNCHANGED) as copy:
        assert_admitted_once(copy)


@pytest.mark.negative_control
def test_several_gates_admit_without_the_lock(system: TestSystem) -> None:
    with (
        run_without(system, "inventory-service", NO_LOCK) as copy,
        pytest.raises(AssertionError, match=r"admitted [2-9] times"),
    ):
        assert_admitted_once(copy)


# ── many reserves of one user


def assert_holds_are_limited(copy: Copy) -> None:
    """Assert that 64 parallel reserves of one user hold as many seats as one user may hold."""
    user = str(uuid4())
    with closing(psycopg2.connect(copy.dsn)) as connection:
        seats = inserts.seats(connection, RESERVES, "CAT1", str(uuid4()))
        connection.commit()
    with connect_inventory(copy.system.stack, f"{HOST}:{copy.ports['GRPC_PORT']}") as caller:
        reserves = [partial(caller.reserve, seat, user) for seat in seats]
        with closing(psycopg2.connect(copy.dsn)) as holder, holder.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (user,))
            answers = Counter(run_concurrently([*reserves, partial(unlock_for_waiting_reserves, copy, holder)]))
    held = copy.read_value("SELECT count(*) FROM seats WHERE held_by_user_id = %s", user)
    assert held == MAX_HOLDS, f"{held} seats are held"
    assert answers == {"OK": MAX_HOLDS, "HOLD_LIMIT_REACHED": RESERVES - MAX_HOLDS, "unlocked": 1}


def unlock_for_waiting_reserves(copy: Copy, holder: Any) -> str:
    """Release the user's lock when more reserves wait than the limit allows. Without the lock, none waits."""
    wait_for(lambda: copy.count_waiting() > MAX_HOLDS, WAIT_SECONDS)
    holder.rollback()
    return "unlocked"


def test_parallel_reserves_of_one_user_stay_in_the_limit(system: TestSystem) -> None:
    with run_without(system, "inventory-service", UNCHANGED) as copy:
        assert_holds_are_limited(copy)


@pytest.mark.negative_control
@pytest.mark.parametrize("guard", [NO_SNAPSHOT_AFTER_LOCK, NO_LOCK_OF_USER], ids=["old snapshot", "no lock"])
def test_parallel_reserves_pass_the_limit_without(system: TestSystem, guard: tuple[str, str]) -> None:
    patched = run_without(system, "inventory-service", guard)
    with patched as copy, pytest.raises(AssertionError, match=r"\d+ seats are held"):
        assert_holds_are_limited(copy)
