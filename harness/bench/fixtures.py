"""The data that the bench needs: buyers, events of any size, tickets, and a given number of old rows.

It is inserted by SQL. Each row equals what the services would have written.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg2
import psycopg2.extras

from harness.bench import sql_baseline
from harness.bench.signing import sign_access_token
from harness.bench.system import System
from services.orchestrator.tickets.qr import Seal

BUYERS = 64
HALL = "HALL-B"
VENUE = "a0a0a0a0-0000-0000-0000-000000000001"
PRICE = "10.00"
BASE_ROWS = 5_000  # per table at 1×

_USERS = """
WITH made AS (
    INSERT INTO users (user_id, email, phone, role, credit_balance, password_hash)
    SELECT id::uuid, id || '@bench.example', '+6590000000', %(role)s, %(credits)s, 'none' FROM unnest(%(ids)s) AS id
    RETURNING user_id)
INSERT INTO credit_entries (key, user_id, amount, kind)
SELECT 'bench:' || user_id || ':1:opening', user_id, %(credits)s, 'OPENING' FROM made"""
_EVENT = """
INSERT INTO events (event_id, name, venue_id, hall_id, event_date, total_seats, pricing_tiers)
SELECT id::uuid, 'Bench', %(venue)s, %(hall)s, app_now() + interval '30 days', %(seats)s, %(tiers)s
FROM unnest(%(ids)s) AS id"""
_SEATS = """
INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
SELECT gen_random_uuid(), id::uuid, 'R', n, 'CAT1' FROM unnest(%(ids)s) AS id, generate_series(1, %(seats)s) AS n
RETURNING seat_id::text"""
_HAS_LIMITS = "SELECT to_regclass('event_limits') IS NOT NULL"  # false in a system without limits for each buyer
_LIMITS = "INSERT INTO event_limits SELECT id::uuid, 0, 0 FROM unnest(%(ids)s) AS id"
_SELL = """
UPDATE seats SET status = 'SOLD', hold_id = sale.id, order_id = sale.id, owner_user_id = %(owner)s,
    price_paid = %(price)s, qr_code_hash = 'none', updated_at = statement_timestamp()
FROM unnest(%(orders)s::uuid[], %(seats)s::uuid[]) AS sale (id, seat) WHERE seat_id = sale.seat"""
_ORDERS = """
INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, charge_key, otp_required,
                    expires_at, confirmed_at)
SELECT id, %(owner)s::uuid, seat, %(event)s::uuid, 'CONFIRMED', %(price)s::numeric,
       'pay:' || id || ':1:deduct_credits', false, app_now(), app_now()
FROM unnest(%(orders)s::uuid[], %(seats)s::uuid[]) AS sale (id, seat)"""
_CHARGES = """
INSERT INTO credit_entries (key, user_id, amount, kind)
SELECT 'bench:' || id || ':1:opening', %(owner)s::uuid, %(price)s::numeric, 'OPENING' FROM unnest(%(orders)s) AS id
UNION ALL
SELECT 'pay:' || id || ':1:deduct_credits', %(owner)s::uuid, -%(price)s::numeric, 'DEDUCT'
FROM unnest(%(orders)s) AS id"""

# Old rows by database, one statement for each table. Ids are hashes of the row number n, because
# gen_random_uuid() makes a system call for each row, which took most of the time.
_OLD_ROWS = {
    "seats_db": (
        """INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
           SELECT md5('seat' || n)::uuid, md5((n / 1000)::text)::uuid, 'R', n, 'CAT1'
           FROM generate_series(%s, %s) AS n""",
        """INSERT INTO effects (key, outcome) SELECT 'hold:' || md5('hold' || n)::uuid, 'DONE'
           FROM generate_series(%s, %s) AS n""",
        """INSERT INTO entry_logs (seat_id, scan_id, scanned_by_staff_id, result)
           SELECT md5('entry' || n)::uuid, n, md5('staff' || n)::uuid, 'EXPIRED' FROM generate_series(%s, %s) AS n""",
    ),
    "orders_db": (
        """INSERT INTO orders (order_id, user_id, seat_id, event_id, status, credits_charged, otp_required, expires_at)
           SELECT md5('order' || n)::uuid, md5('user' || n)::uuid, md5('seat' || n)::uuid, md5('event' || n)::uuid,
                  'FAILED', 10, false, (SELECT app_now()) - interval '1 day' FROM generate_series(%s, %s) AS n""",
        """INSERT INTO effects (key, outcome) SELECT 'reserve:' || md5('new' || n)::uuid || ':1:create_order', 'DONE'
           FROM generate_series(%s, %s) AS n""",
    ),
    "users_db": (
        """INSERT INTO credit_entries (key, user_id, amount, kind)
           SELECT 'bench:' || md5('opening' || n)::uuid, '00000000-0000-0000-0000-000000000001', 0, 'OPENING'
           FROM generate_series(%s, %s) AS n""",
        """INSERT INTO effects (key, outcome) SELECT 'pay:' || md5('charge' || n)::uuid || ':1:deduct_credits', 'DONE'
           FROM generate_series(%s, %s) AS n""",
    ),
    "sagas_db": (
        """INSERT INTO sagas (flow, subject, attempt, given, status, result, deadline, park_after, ended_at)
           SELECT 'reserve', md5('saga' || n)::uuid, 1, '{}', 'DONE', '{}', now(), now(), now()
           FROM generate_series(%s, %s) AS n""",
    ),
}


@dataclass
class Fixtures:
    """Creates the data of a measurement. No seat or ticket is handed out twice."""

    system: System
    rows: int = 0
    buyers: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    free_seats: dict[int, list[str]] = field(default_factory=dict)

    def create_buyers(self) -> None:
        """Create buyers with plenty of credits, and their tokens."""
        self.buyers = [str(uuid4()) for _ in range(BUYERS)]
        self._run("users_db", _USERS, role="customer", credits="9999999.00", ids=self.buyers)
        self.tokens = [sign_access_token(self.system, buyer, "customer") for buyer in self.buyers]

    def _create_staff(self) -> str:
        """Create a staff member and return their token."""
        user_id = str(uuid4())
        self._run("users_db", _USERS, role="staff", credits="0", ids=[user_id])
        return sign_access_token(self.system, user_id, "staff")

    def take_seats(self, number: int, event_size: int) -> list[str]:
        """Return `number` available seats, in events that have `event_size` seats each."""
        free = self.free_seats.setdefault(event_size, [])
        if (missing := number - len(free)) > 0:
            free += self.create_events([str(uuid4()) for _ in range(-(-missing // event_size))], event_size)
        taken, self.free_seats[event_size] = free[:number], free[number:]
        return taken

    def create_events(self, events: list[str], event_size: int) -> list[str]:
        """Create events with these ids and return their seats. They have no limits, because the buyers are few."""
        tiers = psycopg2.extras.Json({"CAT1": float(PRICE)})
        self._run("events_db", _EVENT, venue=VENUE, hall=HALL, seats=event_size, tiers=tiers, ids=events)
        if self._run("seats_db", _HAS_LIMITS)[0][0]:
            self._run("seats_db", _LIMITS, ids=events)
        return [row[0] for row in self._run("seats_db", _SEATS, ids=events, seats=event_size)]

    def create_purchases(self, number: int, event_size: int) -> list[list[str]]:
        """Return work items for a reserve or purchase: a buyer's token and a seat."""
        return [[self.tokens[n % BUYERS], seat] for n, seat in enumerate(self.take_seats(number, event_size))]

    def create_visits(self, number: int, event_size: int) -> list[list[str]]:
        """Return work items for visits of a sale: a buyer's token, a seat and its event."""
        events = [str(uuid4()) for _ in range(-(-number // event_size))]
        seats = [(seat, event) for event in events for seat in self.create_events([event], event_size)]
        return [[self.tokens[n % BUYERS], seat, event] for n, (seat, event) in enumerate(seats[:number])]

    def create_scans(self, number: int) -> list[list[str]]:
        """Return work items for a scan: a staff token, the QR payload of a sold ticket, and the hall."""
        event, owner, staff = str(uuid4()), self.buyers[0], self._create_staff()
        seats = self.create_events([event], number)
        sale = {"owner": owner, "price": PRICE, "orders": [str(uuid4()) for _ in seats], "seats": seats}
        self._run("users_db", _CHARGES, **sale)
        self._run("orders_db", _ORDERS, **sale, event=event)
        self._run("seats_db", _SELL, **sale)
        seal = Seal(self.system.env("orchestrator-service")["QR_ENCRYPTION_KEY"].encode())
        return [[staff, seal.seal(seat, owner, HALL).payload, HALL] for seat in seats]

    def grow(self, rows: int) -> None:
        """Add old rows until every table has `rows`, then update the statistics of PostgreSQL."""
        with ThreadPoolExecutor(len(_OLD_ROWS)) as pool:
            list(pool.map(lambda database: self._grow(database, rows), _OLD_ROWS))
        sql_baseline.create_table(self.system, rows)
        self._run("postgres", "CHECKPOINT")
        self.rows = rows

    def _grow(self, database: str, rows: int) -> None:
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in _OLD_ROWS[database]:
                cursor.execute(statement, (self.rows + 1, rows))
            cursor.execute("VACUUM ANALYZE")

    def connect(self, database: str) -> Any:
        """Return a superuser connection in autocommit mode."""
        connection = psycopg2.connect(self.system.admin_dsn(database))
        connection.autocommit = True
        return connection

    def _run(self, database: str, sql: str, **params: Any) -> list[Any]:
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall()) if cursor.description else []
