"""The users, the seat, the order and the transfer of one crash test, and their state in the databases.

Each crash test has its own actors, so that many tests run at once and the credits of each can be checked to the cent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

from harness import invariants
from harness.api_client import ApiResponse
from services.orchestrator.saga.flows import SAGAS
from tests.saga.crash.crash_system import CrashTestSystem
from tests.support.inserts import User
from tests.support.people import Person

HALL = "HALL-A"
AMOUNT = 150  # the price of the transfer (the ticket costs 200)
OTP_LIMIT = 5  # one-time passwords per phone in ten minutes

Credits = tuple[int, int]  # spendable, frozen


@dataclass(frozen=True)
class SystemState:
    """The state of one test in the databases."""

    seat: str
    owner: str | None = None
    order: str | None = None
    transfer: str | None = None
    seller: Credits = (0, 0)
    buyer: Credits = (500, 0)


@dataclass
class Actors:
    """A seller with 200 credits, a buyer with 500, a staff member, and a seat for 200."""

    system: CrashTestSystem
    is_flagged: bool = False
    order_id: str = ""
    transfer_id: str = ""
    key: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        self.seller, self.buyer, self.staff = self.system.people(
            User(credits=Decimal(200), is_flagged=self.is_flagged),
            User(credits=Decimal(500)),
            User("staff", Decimal(0)),
        )
        self.seats = [self.system.seat("CAT2"), self.system.seat("CAT3")]
        self._second_order = ""

    @property
    def seat(self) -> str:
        """The seat of the test. The other seat costs 120."""
        return self.seats[0]

    # ── preparation, by requests to the rescuer

    def hold_seat(self) -> None:
        """The seller holds the seat."""
        self.order_id = self.seller.reserve(self.seat).must(200)["order_id"]

    def buy_seat(self) -> None:
        """The seller owns the seat and has no credits left."""
        self.hold_seat()
        self.seller.pay(self.order_id).must(200)

    def start_transfer(self) -> None:
        """Both users have their one-time passwords for a transfer."""
        self.buy_seat()
        self.transfer_id = self.request_initiate(self.system.rescuer).must(201)["transfer_id"]

    def complete_transfer(self) -> None:
        """The buyer owns the seat. The seller has spent 120 of the 150 credits on another seat."""
        self.start_transfer()
        self.request_confirm(self.system.rescuer).must(200)
        self._second_order = self.seller.reserve(self.seats[1]).must(200)["order_id"]
        self.seller.pay(self._second_order).must(200)

    def dispute_transfer(self) -> None:
        """The buyer has disputed the transfer, so the last 30 credits of the seller are frozen."""
        self.complete_transfer()
        self.request_dispute(self.system.rescuer).must(200)

    def refund_second_seat(self) -> None:
        """The seller also has 120 spendable credits, so that a reversal can take the rest of the amount."""
        self.dispute_transfer()
        self.staff.refund(self._second_order).must(200)

    # ── requests that start the sagas

    def request_reserve(self, url: str) -> ApiResponse:
        return self.seller.at(url).reserve(self.seat, **{"Idempotency-Key": self.key})

    def request_pay(self, url: str) -> ApiResponse:
        return self.seller.at(url).pay(self.order_id)

    def request_refund(self, url: str) -> ApiResponse:
        return self.staff.at(url).refund(self.order_id)

    def request_initiate(self, url: str) -> ApiResponse:
        body = {"seat_id": self.seat, "credits_amount": AMOUNT}
        parties = {"seller_user_id": self.seller.user_id, "buyer_user_id": self.buyer.user_id}
        return self.seller.at(url).post("/api/transfer/initiate", {**body, **parties}, **{"Idempotency-Key": self.key})

    def request_confirm(self, url: str) -> ApiResponse:
        parties = {"seller_otp": self.seller, "buyer_otp": self.buyer}
        codes = {name: self.system.inbox.newest_code(person.phone) for name, person in parties.items()}
        return self.buyer.at(url).confirm(self.transfer_id, **codes)

    def request_dispute(self, url: str) -> ApiResponse:
        return self.buyer.at(url).transfer("dispute", self.transfer_id, reason="not what was promised")

    def request_reverse(self, url: str) -> ApiResponse:
        return self.staff.at(url).transfer("reverse", self.transfer_id)

    def request_dismiss(self, url: str) -> ApiResponse:
        return self.staff.at(url).transfer("dismiss", self.transfer_id)

    # ── causes of a refusal, so that the saga has to undo its earlier steps

    def exhaust_otp_limit(self) -> None:
        """Both phones have received as many one-time passwords as the limit allows."""
        sql = """INSERT INTO counted_events
            VALUES (%(key)s, array_fill(app_now(), ARRAY[%(limit)s]), app_now() + interval '10 minutes')
            ON CONFLICT (key) DO UPDATE SET times = excluded.times RETURNING 1"""
        for key in (f"code:{self.buyer.phone}", f"code:{self.seller.phone}"):
            self.system.run("users_db", sql, key=key, limit=OTP_LIMIT)

    def expire_hold(self) -> None:
        """The hold has expired in Inventory, but not yet in Order."""
        sql = "UPDATE seats SET held_until = app_now() - interval '1 second' WHERE seat_id = %(seat)s RETURNING 1"
        self.system.run("seats_db", sql, seat=self.seat)

    def admit_seller(self) -> None:
        """The seller enters with the ticket of the transfer."""
        self._admit(self.seller)

    def admit_buyer(self) -> None:
        """The buyer enters with the disputed ticket."""
        self._admit(self.buyer)

    def _admit(self, person: Person) -> None:
        qr = person.qr(self.seat).must(200)["qr_payload"]
        assert self.staff.scan(qr, HALL).must(200)["result"] == "SUCCESS"

    # ── state

    def read_state(self) -> SystemState:
        """Read the state, with the newest order and transfer of the seat."""
        seat = self.system.run("seats_db", "SELECT * FROM seats WHERE seat_id = %(seat)s", seat=self.seat)[0]
        names = {self.seller.user_id: "seller", self.buyer.user_id: "buyer"}
        return SystemState(
            seat=seat["status"],
            owner=names.get(str(seat["owner_user_id"])),
            order=self._newest_status("orders"),
            transfer=self._newest_status("transfers"),
            seller=self._credits(self.seller),
            buyer=self._credits(self.buyer),
        )

    def read_sagas(self, flow: str) -> list[Any]:
        """The journal's rows of one flow, oldest first."""
        sql = """SELECT *, status::text AS status FROM sagas WHERE flow = %(flow)s
            AND (subject::text = ANY(%(subjects)s) OR given ->> 'seat_id' = %(seat)s) ORDER BY created_at"""
        return self.system.run("sagas_db", sql, flow=flow, subjects=[self.order_id, self.transfer_id], seat=self.seat)

    def has_all_notices(self, saga_id: Any) -> bool:
        """Whether both users have received every notice that the outbox has for this saga."""
        due = self.system.run("sagas_db", "SELECT * FROM outbox WHERE saga_id = %(saga)s", saga=saga_id)
        people = {person.user_id: person for person in (self.seller, self.buyer)}
        return all(row["sent_at"] and self.count_notices(people[str(row["user_id"])], row["message"]) for row in due)

    def count_notices(self, person: Person, message: str) -> int:
        """The number of notices about this order or transfer that a user has received."""
        subject = self.order_id if message in ("booking_confirmed", "order_refunded") else self.transfer_id
        return sum(subject in notice for notice in self.system.notices(person))

    def list_credit_entries(self) -> list[str]:
        """The kinds of the seller's credit entries after the opening, in order."""
        sql = "SELECT kind FROM credit_entries WHERE user_id = %(id)s AND kind <> 'OPENING' ORDER BY created_at"
        return [row["kind"] for row in self.system.run("users_db", sql, id=self.seller.user_id)]

    def find_violations(self) -> list[str]:
        """Check the invariants over the rows of these actors. No credits leave or enter this group of users."""
        snapshot = self._read_snapshot()
        checks = (*invariants.AT_ANY_TIME, *invariants.AT_QUIESCENCE)
        return [f"{check.__name__}: {line}" for check in checks for line in check(snapshot)]

    def _newest_status(self, table: str) -> str | None:
        sql = f"SELECT status FROM {table} WHERE seat_id = %(seat)s ORDER BY created_at DESC LIMIT 1"
        found = self.system.run("orders_db", sql, seat=self.seat)
        return str(found[0]["status"]) if found else None

    def _credits(self, person: Person) -> Credits:
        sql = "SELECT credit_balance, frozen_credits FROM users WHERE user_id = %(id)s"
        row = self.system.run("users_db", sql, id=person.user_id)[0]
        return row["credit_balance"], row["frozen_credits"]

    def _read_snapshot(self) -> invariants.Snapshot:
        keys = {
            "seat_id": self.seats,
            "user_id": [self.seller.user_id, self.buyer.user_id],
            "saga_id": [str(saga["saga_id"]) for flow in SAGAS for saga in self.read_sagas(flow)],
        }
        snapshot = invariants.Snapshot()
        for database, tables in invariants.TABLES.items():
            snapshot.now[database] = self.system.run(database, "SELECT app_now() AS now")[0]["now"]
            for table, scoped_by in tables.items():
                column = scoped_by or "saga_id"
                sql = f"SELECT * FROM {table} WHERE {column}::text = ANY(%(keys)s)"
                snapshot.rows[table] = [dict(row) for row in self.system.run(database, sql, keys=keys[column])]
        return snapshot
