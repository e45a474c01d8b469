"""The people, the seat, the order and the transfer of one crash test, and the state that must hold after recovery.

Every action goes through the public API. Each crash test has its own actors, so many tests can run at once and each
one's credits can be checked to the cent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from harness import invariants
from harness.api_client import ApiResponse
from tests.saga.crash.crash_system import CrashTestSystem, Person

HALL = "HALL-A"
AMOUNT = 150  # what a ticket of 200 is sold on for
CODES = 5  # that a phone may be sent in ten minutes

Credits = tuple[int, int]  # spendable, frozen


@dataclass(frozen=True)
class SystemState:
    """Seat, owner, order, transfer and credits, as the databases have them."""

    seat: str
    owner: str | None = None
    order: str | None = None
    transfer: str | None = None
    seller: Credits = (0, 0)
    buyer: Credits = (500, 0)


@dataclass
class Actors:
    """A seller with 200 credits, a buyer with 500, the staff, and a seat for 200."""

    system: CrashTestSystem
    flagged: bool = False
    order_id: str = ""
    transfer_id: str = ""
    key: str = field(default_factory=lambda: str(uuid4()))

    def __post_init__(self) -> None:
        self.seller = self.system.person(200, flagged=self.flagged)
        self.buyer = self.system.person(500)
        self.staff = self.system.person(0, role="staff")
        self.seats = [self.system.seat("CAT2"), self.system.seat("CAT3")]
        self._second_order = ""

    @property
    def seat(self) -> str:
        """The seat that it is all about; the other one costs 120."""
        return self.seats[0]

    # ── what leads up to a saga, at the rescuer's door

    def hold(self) -> None:
        """The seller holds the seat."""
        self.order_id = self._here(self.seller).reserve(self.seat).must(200)["order_id"]

    def buy(self) -> None:
        """The seller owns the seat and has nothing left."""
        self.hold()
        self._here(self.seller).pay(self.order_id).must(200)

    def offer(self) -> None:
        """Both have their codes for a transfer."""
        self.buy()
        self.transfer_id = self.ask_initiate(self.system.rescuer).must(201)["transfer_id"]

    def sell_on(self) -> None:
        """The buyer owns the seat, the seller has 150 and spends 120 of it."""
        self.offer()
        self.ask_confirm(self.system.rescuer).must(200)
        seller = self._here(self.seller)
        self._second_order = seller.reserve(self.seats[1]).must(200)["order_id"]
        seller.pay(self._second_order).must(200)

    def fall_out(self) -> None:
        """The buyer has disputed; the 30 that the seller had left are frozen."""
        self.sell_on()
        self.ask_dispute(self.system.rescuer).must(200)

    def make_up(self) -> None:
        """The seller has got 120 back since, so that the rest of the amount can be frozen."""
        self.fall_out()
        self._here(self.staff).post(f"/api/orders/{self._second_order}/refund").must(200)

    # ── what the sagas are asked by

    def ask_reserve(self, url: str) -> ApiResponse:
        return self.seller.at(url).reserve(self.seat, **{"Idempotency-Key": self.key})

    def ask_pay(self, url: str) -> ApiResponse:
        return self.seller.at(url).pay(self.order_id)

    def ask_refund(self, url: str) -> ApiResponse:
        return self.staff.at(url).post(f"/api/orders/{self.order_id}/refund")

    def ask_initiate(self, url: str) -> ApiResponse:
        body = {"seat_id": self.seat, "credits_amount": AMOUNT}
        parties = {"seller_user_id": self.seller.user_id, "buyer_user_id": self.buyer.user_id}
        return self.seller.at(url).post("/api/transfer/initiate", {**body, **parties}, **{"Idempotency-Key": self.key})

    def ask_confirm(self, url: str) -> ApiResponse:
        codes = {f"{party}_otp": self._code(getattr(self, party)) for party in ("seller", "buyer")}
        return self.buyer.at(url).confirm(self.transfer_id, **codes)

    def ask_dispute(self, url: str) -> ApiResponse:
        return self.buyer.at(url).transfer("dispute", self.transfer_id, reason="not what was promised")

    def ask_reverse(self, url: str) -> ApiResponse:
        return self.staff.at(url).transfer("reverse", self.transfer_id)

    def ask_dismiss(self, url: str) -> ApiResponse:
        return self.staff.at(url).transfer("dismiss", self.transfer_id)

    # ── what makes a participant refuse, so that what was done before has to be undone

    def use_up_codes(self) -> None:
        """The buyer's and the seller's phones have had all the codes that they may get."""
        sql = """INSERT INTO otp_sends (phone, sent_at) VALUES (%(phone)s, array_fill(app_now(), ARRAY[%(codes)s]))
            ON CONFLICT (phone) DO UPDATE SET sent_at = excluded.sent_at RETURNING 1"""
        for person in (self.buyer, self.seller):
            self.system.run("users_db", sql, phone=person.phone, codes=CODES)

    def let_hold_run_out(self) -> None:
        """The hold's time is over; the order's own clock has not noticed yet."""
        sql = "UPDATE seats SET held_until = app_now() - interval '1 second' WHERE seat_id = %(seat)s RETURNING 1"
        self.system.run("seats_db", sql, seat=self.seat)

    def let_seller_in(self) -> None:
        """The seller goes to the event on the ticket that is being sold."""
        self._let_in(self.seller)

    def let_buyer_in(self) -> None:
        """The buyer goes to the event on the ticket that is in dispute."""
        self._let_in(self.buyer)

    # ── how things stand

    def state(self) -> SystemState:
        """As the databases have it; the newest order and transfer of the seat."""
        seat = self.system.run("seats_db", "SELECT * FROM seats WHERE seat_id = %(seat)s", seat=self.seat)[0]
        names = {self.seller.user_id: "seller", self.buyer.user_id: "buyer"}
        return SystemState(
            seat=seat["status"],
            owner=names.get(str(seat["owner_user_id"])),
            order=self._status("orders"),
            transfer=self._status("transfers"),
            seller=self._credits(self.seller),
            buyer=self._credits(self.buyer),
        )

    def sagas(self, flow: str) -> list[Any]:
        """The journal's rows of one flow, oldest first."""
        sql = """SELECT *, status::text AS status FROM sagas WHERE flow = %(flow)s
            AND (subject::text = ANY(%(subjects)s) OR given ->> 'seat_id' = %(seat)s) ORDER BY created_at"""
        return self.system.run("sagas_db", sql, flow=flow, subjects=[self.order_id, self.transfer_id], seat=self.seat)

    def are_told(self, saga_id: Any) -> bool:
        """Whether everybody has got what the outbox has for them of this saga."""
        due = self.system.run("sagas_db", "SELECT * FROM outbox WHERE saga_id = %(saga)s", saga=saga_id)
        people = {person.user_id: person for person in (self.seller, self.buyer)}
        return all(row["sent_at"] and self.letters(people[str(row["user_id"])], row["message"]) for row in due)

    def letters(self, person: Person, message: str) -> int:
        """How many messages of one kind this person has got, by SMS or e-mail, about this order or transfer."""
        about = self.order_id if message in ("booking_confirmed", "order_refunded") else self.transfer_id
        return sum(about in letter for letter in self.system.letters(person))

    def movements(self) -> list[str]:
        """What moved the seller's credits, in order."""
        sql = "SELECT kind FROM credit_entries WHERE user_id = %(id)s AND kind <> 'OPENING' ORDER BY created_at"
        return [row["kind"] for row in self.system.run("users_db", sql, id=self.seller.user_id)]

    def violations(self) -> list[str]:
        """What the invariants find wrong among this actors's own rows: their money is conserved by itself."""
        snapshot = self._snapshot()
        checks = (*invariants.AT_ANY_TIME, *invariants.AT_QUIESCENCE)
        return [f"{check.__name__}: {line}" for check in checks for line in check(snapshot)]

    # ── inside

    def _here(self, person: Person) -> Any:
        return person.at(self.system.rescuer)

    def _code(self, person: Person) -> str:
        return self.system.inbox.newest_code(person.phone)

    def _let_in(self, person: Person) -> None:
        qr = self._here(person).qr(self.seat).must(200)["qr_payload"]
        assert self._here(self.staff).scan(qr, HALL).must(200)["result"] == "SUCCESS"

    def _status(self, table: str) -> str | None:
        sql = f"SELECT status FROM {table} WHERE seat_id = %(seat)s ORDER BY created_at DESC LIMIT 1"
        found = self.system.run("orders_db", sql, seat=self.seat)
        return str(found[0]["status"]) if found else None

    def _credits(self, person: Person) -> Credits:
        sql = "SELECT credit_balance, frozen_credits FROM users WHERE user_id = %(id)s"
        row = self.system.run("users_db", sql, id=person.user_id)[0]
        return row["credit_balance"], row["frozen_credits"]

    def _snapshot(self) -> invariants.Snapshot:
        users = [self.seller.user_id, self.buyer.user_id]
        by_user = ("user_id::text = ANY(%(keys)s)", users)
        by_seat = ("seat_id::text = ANY(%(keys)s)", self.seats)
        by_saga = ("saga_id::text = ANY(%(keys)s)", [str(saga) for saga in self._saga_ids()])
        of = {"seats": by_seat, "entry_logs": by_seat, "orders": by_seat, "transfers": by_seat}
        of |= dict.fromkeys(("users", "credit_entries", "credit_holds", "stripe_events"), by_user)
        of |= {"sagas": by_saga, "outbox": by_saga}
        snapshot = invariants.Snapshot()
        for database, tables in invariants.TABLES.items():
            snapshot.now[database] = self.system.run(database, "SELECT app_now() AS now")[0]["now"]
            for table in tables:
                where, keys = of[table]
                found = self.system.run(database, f"SELECT * FROM {table} WHERE {where}", keys=keys)
                snapshot.rows[table] = [dict(row) for row in found]
        return snapshot

    def _saga_ids(self) -> list[Any]:
        flows = ("reserve", "pay", "refund", "initiate", "transfer_confirm", "dispute", "reverse", "dismiss")
        return [saga["saga_id"] for flow in flows for saga in self.sagas(flow)]
