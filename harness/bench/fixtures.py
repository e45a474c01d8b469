"""What the load finds in the databases: buyers, events of any size, tickets, and as many old rows as are asked for.

Written straight to the databases; every row is what the services themselves would have left.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import jwt
import psycopg2
import psycopg2.extras

from harness.bench import sql_baseline
from harness.errors import StackError
from harness.runtime.process import wait_for
from harness.runtime.stack import Stack
from services.orchestrator.tickets.qr import Seal

BUYERS = 64
HALL = "HALL-B"
VENUE = "a0a0a0a0-0000-0000-0000-000000000001"
PRICE = "10.00"
TOLD_SECONDS = 60.0

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

_DUE = "SELECT EXISTS (SELECT FROM outbox WHERE sent_at IS NULL AND given_up_at IS NULL)"

# Database: what a table that has seen much use holds, one statement a table; n counts rows. Ids are hashes of it:
# gen_random_uuid() asks the kernel each time, which was most of the laying.
_OLD = {
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
class Ground:
    """Makes what a measurement needs; everything that it hands out is fresh."""

    stack: Stack
    rows: int = 0
    buyers: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    free: dict[int, list[str]] = field(default_factory=dict)

    def people(self) -> None:
        """The buyers, rich, with their tokens."""
        self.buyers = [str(uuid4()) for _ in range(BUYERS)]
        self._run("users_db", _USERS, role="customer", credits="9999999.00", ids=self.buyers)
        self.tokens = [self.token(buyer, "customer") for buyer in self.buyers]

    def staff(self) -> str:
        """The token of somebody at the gate."""
        who = str(uuid4())
        self._run("users_db", _USERS, role="staff", credits="0", ids=[who])
        return self.token(who, "staff")

    def token(self, user_id: str, role: str) -> str:
        """An access token as User issues it."""
        now = int(time.time())
        claims = {"sub": user_id, "role": role, "iat": now, "exp": now + 900, "type": "access", "iss": "ticketremaster"}
        secret = self.stack.env("user-service")["JWT_SECRET"]
        return jwt.encode({**claims, "jti": str(uuid4()), "sid": str(uuid4())}, secret, algorithm="HS256")

    def seats(self, number: int, an_event: int) -> list[str]:
        """`number` free seats of events that have `an_event` seats each."""
        free = self.free.setdefault(an_event, [])
        if (lacking := number - len(free)) > 0:
            free += self.event_seats([str(uuid4()) for _ in range(-(-lacking // an_event))], an_event)
        taken, self.free[an_event] = free[:number], free[number:]
        return taken

    def event_seats(self, events: list[str], an_event: int) -> list[str]:
        """The seats of these events, which are made."""
        tiers = psycopg2.extras.Json({"CAT1": float(PRICE)})
        self._run("events_db", _EVENT, venue=VENUE, hall=HALL, seats=an_event, tiers=tiers, ids=events)
        return [row[0] for row in self._run("seats_db", _SEATS, ids=events, seats=an_event)]

    def orders(self, number: int, an_event: int) -> list[list[str]]:
        """Pieces of work for buyers: a token and a seat."""
        return [[self.tokens[n % BUYERS], seat] for n, seat in enumerate(self.seats(number, an_event))]

    def scans(self, number: int) -> list[list[str]]:
        """Pieces of work for the gate: tickets that are sold, each with a fresh QR."""
        event, owner, staff = str(uuid4()), self.buyers[0], self.staff()
        seats = self.event_seats([event], number)
        sale = {"owner": owner, "price": PRICE, "orders": [str(uuid4()) for _ in seats], "seats": seats}
        self._run("users_db", _CHARGES, **sale)
        self._run("orders_db", _ORDERS, **sale, event=event)
        self._run("seats_db", _SELL, **sale)
        seal = Seal(self.stack.env("orchestrator-service")["QR_ENCRYPTION_KEY"].encode())
        return [[staff, seal.seal(seat, owner, HALL).payload, HALL] for seat in seats]

    def grow(self, rows: int) -> None:
        """Bring every table to `rows` old rows, all databases at once, and let PostgreSQL take note."""
        with ThreadPoolExecutor(len(_OLD)) as pool:
            list(pool.map(lambda database: self._grow(database, rows), _OLD))
        sql_baseline.lay(self.stack, rows)
        self._run("postgres", "CHECKPOINT")
        self.rows = rows

    def _grow(self, database: str, rows: int) -> None:
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in _OLD[database]:
                cursor.execute(statement, (self.rows + 1, rows))
            cursor.execute("VACUUM ANALYZE")

    def everybody_told(self) -> None:
        """Return when no notice of a saga is due any more. Raises StackError."""
        with closing(self.connect("sagas_db")) as connection, connection.cursor() as cursor:

            def nobody_is_due() -> bool:
                cursor.execute(_DUE)
                return not cursor.fetchone()[0]

            if not wait_for(nobody_is_due, TOLD_SECONDS):
                raise StackError("notices of sagas are still due")

    def connect(self, database: str) -> Any:
        """A superuser's connection in autocommit."""
        connection = psycopg2.connect(self.stack.admin_dsn(database))
        connection.autocommit = True
        return connection

    def _run(self, database: str, sql: str, **params: Any) -> list[Any]:
        with closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall()) if cursor.description else []
