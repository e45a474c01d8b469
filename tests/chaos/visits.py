"""The visits of customers, each a scenario of the public API. A visit records acknowledged facts in the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from queue import Queue
from random import Random
from typing import Any
from uuid import UUID

from tests.chaos.accounts import AccountVisit
from tests.chaos.client import BUSY, LOST, Client, Final
from tests.chaos.ledger import Admission, Ledger, Resale, Sale
from tests.support.people import token
from tests.support.system import TestSystem

HALL = "HALL-B"
SEED_EVENT = "e0e0e0e0-0000-0000-0000-000000000001"
GATES = 3
ENDED_HOLD = frozenset(("HOLD_EXPIRED", "SEAT_NOT_HELD", "ORDER_FAILED"))
GIVING_UP = 0.2  # the share of customers who do not repeat a pay whose answer is lost
RESENDING, RESET = 0.2, 0.1  # the shares of those who request another code, and who reset their password
EARLY_SECONDS = 12.0  # more than the nemesis shifts a clock


@dataclass
class Town:
    """The people and seats of a run. A person is borrowed by one visit at a time."""

    system: TestSystem
    ledger: Ledger
    staff: Client
    seats: Queue[str]
    hot_seats: Sequence[str]
    customers: Queue[Client] = field(default_factory=Queue)
    open_sales: list[tuple[Client, Sale]] = field(default_factory=list)  # of customers who gave up
    open_resales: list[tuple[Client, Resale]] = field(default_factory=list)  # verified, but not yet completed
    ended_tokens: list[str] = field(default_factory=list)  # of people who have logged out

    def take_seat(self) -> str:
        """Return a seat that no other visit uses."""
        return self.seats.get_nowait()

    @contextmanager
    def borrow(self, number: int) -> Iterator[list[Client]]:
        """Lend customers with fresh access tokens."""
        people = [self.customers.get() for _ in range(number)]
        try:
            for person in (*people, self.staff):
                self.renew(person)
            yield people
        finally:
            for person in people:
                self.customers.put(person)

    def renew(self, person: Client) -> None:
        """Issue an access token as a login would, because each login costs a bcrypt hash."""
        key = self.system.env("user-service")["PRIVATE_KEY"]
        person.token = token(key, person.user_id, person.user["role"])


class Visit:
    """One visit. `rng` decides everything that the answers do not."""

    def __init__(self, town: Town, rng: Random) -> None:
        self._town, self._ledger, self._rng = town, town.ledger, rng

    def run(self) -> None:
        """Choose a scenario and play it."""
        chosen = self._rng.choices(list(SCENARIOS), list(SCENARIOS.values()))[0]
        chosen(self)

    # ── scenarios

    def buy(self) -> None:
        """Buy a ticket, and perhaps refund it or go to the event."""
        with self._town.borrow(1) as (customer,):
            sale = self._buy(customer, self._town.take_seat())
            end = self._rng.random()
            if sale and end < 0.2:
                self._refund(customer, sale)
            elif sale and end < 0.5:
                self._enter(customer, sale.seat)

    def contend(self) -> None:
        """Reserve a seat that many clients try, buy it if it is free, and get a refund."""
        with self._town.borrow(1) as (customer,):
            if sale := self._buy(customer, self._rng.choice(self._town.hot_seats)):
                self._refund(customer, sale)

    def abandon(self) -> None:
        """Hold a seat, read the order, and never pay."""
        with self._town.borrow(1) as (customer,):
            if sale := self._reserve(customer, self._town.take_seat()):
                customer.order(sale.order_id)

    def resell(self) -> None:
        """Buy a ticket and transfer it. The transfer is cancelled, completed, or disputed and decided."""
        with self._town.borrow(2) as (seller, buyer):
            sale = self._buy(seller, self._town.take_seat())
            resale = self._initiate(seller, buyer, sale.seat) if sale else None
            if resale is None:
                return
            buyer.get(f"/api/transfers/{resale.transfer_id}")
            if self._rng.random() < 0.2:
                final = seller.insist("cancel", lambda: seller.transfer("cancel", resale.transfer_id))
                self._learn(seller, resale, final)
                return
            self._confirm(seller, buyer, resale)
            if resale.status == "COMPLETED":
                self._use_transferred(buyer, resale)

    def top_up(self) -> None:
        """Buy credits by card. The webhook credits them."""
        with self._town.borrow(1) as (customer,):
            amount, key = Decimal(self._rng.randrange(5, 50)), self._key()
            final = customer.insist(
                "top-up", lambda: customer.post("/api/credits/topup", {"amount": amount}, **{"Idempotency-Key": key})
            )
            if final.is_done:
                intent = final.answer.data["payment_intent_id"]
                status = customer.ask("pay by card", lambda: self._town.system.pay_by_card(intent))
                assert status in (200, 400), status  # 400 if a try without an answer has paid
                self._ledger.payments[intent] = (customer.user_id, amount)

    def open_account(self) -> None:
        """Open an account and use every call about it."""
        AccountVisit(self._town, self._rng).run()

    def browse(self) -> None:
        """Read everything that customers and staff can read."""
        with self._town.borrow(1) as (customer,):
            for path in BROWSED:
                customer.get(path)
            self._town.staff.get("/api/audit")

    # ── parts of a purchase

    def _buy(self, customer: Client, seat: str) -> Sale | None:
        sale = self._reserve(customer, seat)
        if sale is None:
            return None
        if self._rng.random() < GIVING_UP:
            final = Final(customer.pay(sale.order_id), 1)
            if final.answer.status in LOST or final.answer.error_code == BUSY:
                self._town.open_sales.append((customer, sale))
                return None
        else:
            final = customer.insist("pay", lambda: customer.pay(sale.order_id))
        if final.answer.status == 200:
            self._ledger.sell(sale)
            self._repeat("pay", final, lambda: customer.pay(sale.order_id))
            return sale
        if final.is_doubtful:
            return sale if read_sale(self._ledger, customer, sale) == "CONFIRMED" else None
        if final.answer.error_code in ENDED_HOLD:
            sale.status = "FAILED"
            if (left := sale.held_until - time.time()) > EARLY_SECONDS:
                self._ledger.early_ends.append(f"order {sale.order_id}: {left:.0f} s before the end of its hold")
        return None

    def _reserve(self, customer: Client, seat: str) -> Sale | None:
        key = self._key()

        def send() -> Any:
            return customer.reserve(seat, **{"Idempotency-Key": key})

        final = customer.insist("reserve", send)
        if not final.is_done:
            return None
        data = final.answer.data
        until = datetime.fromisoformat(data["held_until"]).timestamp()
        sale = Sale(data["order_id"], customer.user_id, seat, Decimal(data["price"]), held_until=until)
        self._ledger.sales[sale.order_id] = sale
        self._repeat("reserve", final, send)
        if data["otp_required"]:
            self._resend(customer, order_id=sale.order_id)
            code = self._read_code(customer)
            customer.insist("verify-otp", lambda: customer.verify_otp(code, sale.order_id))
        return sale

    def _refund(self, customer: Client, sale: Sale) -> None:
        self._ledger.free(sale)
        staff = self._town.staff
        final = staff.insist("refund", lambda: staff.post(f"/api/orders/{sale.order_id}/refund"))
        if final.is_done:
            sale.status = "REFUNDED"
            self._ledger.commands.append(("refund", sale.order_id))
        elif final.is_doubtful:
            read = customer.insist("order", lambda: customer.order(sale.order_id))
            sale.status = read.answer.data["status"]

    def _enter(self, customer: Client, seat: str) -> None:
        """Show one ticket at several gates at once."""
        final = customer.insist("qr", lambda: customer.qr(seat))
        if not final.is_done:
            return
        staff, payload = self._town.staff, final.answer.data["qr_payload"]
        keys = [self._key() for _ in range(GATES)]

        def scan(key: str) -> Final:
            return staff.insist("scan", lambda: staff.scan(payload, HALL, **{"Idempotency-Key": key}))

        with ThreadPoolExecutor(GATES) as gates:
            for key, scanned in zip(keys, gates.map(scan, keys), strict=True):
                if scanned.is_done and scanned.answer.data["result"] == "SUCCESS":
                    self._ledger.admissions.append(Admission(seat, key))

    # ── parts of a transfer

    def _initiate(self, seller: Client, buyer: Client, seat: str) -> Resale | None:
        amount, key = Decimal(self._rng.randrange(50, 150)), self._key()
        parties = {"seller_user_id": seller.user_id, "buyer_user_id": buyer.user_id}
        body = {"seat_id": seat, **parties, "credits_amount": amount}

        def send() -> Any:
            return seller.post("/api/transfer/initiate", body, **{"Idempotency-Key": key})

        final = seller.insist("initiate", send)
        if not final.is_done:
            return None
        resale = Resale(final.answer.data["transfer_id"], seat, seller.user_id, buyer.user_id, amount)
        self._ledger.resales[resale.transfer_id] = resale
        self._repeat("initiate", final, send)
        return resale

    def _confirm(self, seller: Client, buyer: Client, resale: Resale) -> None:
        """Enter both codes in one request, or each party its own."""
        self._resend(seller, transfer_id=resale.transfer_id)
        codes = {"seller_otp": self._read_code(seller), "buyer_otp": self._read_code(buyer)}
        both = [(seller, codes)]
        alone = [(seller, {"seller_otp": codes["seller_otp"]}), (buyer, {"buyer_otp": codes["buyer_otp"]})]
        for person, own in both if self._rng.random() < 0.5 else alone:
            final = person.insist("confirm", lambda: person.confirm(resale.transfer_id, **own))  # noqa: B023 - runs here
            self._learn(person, resale, final)
            if final.is_done and self._rng.random() < RESET:
                self._reset_password(person)
        if resale.status == "PENDING_OTP":  # the orchestrator may complete it later, because both codes are right
            self._town.open_resales.append((seller, resale))

    def _use_transferred(self, buyer: Client, resale: Resale) -> None:
        choice = self._rng.random()
        if choice < 0.3:
            self._enter(buyer, resale.seat)
        elif choice < 0.7:
            reason = "not as promised"
            final = buyer.insist("dispute", lambda: buyer.transfer("dispute", resale.transfer_id, reason=reason))
            self._learn(buyer, resale, final)
            if resale.status == "DISPUTED" and choice < 0.6:
                self._decide(buyer, resale, "reverse" if choice < 0.45 else "dismiss")

    def _decide(self, buyer: Client, resale: Resale, verb: str) -> None:
        staff = self._town.staff
        final = staff.insist(verb, lambda: staff.transfer(verb, resale.transfer_id))
        self._learn(buyer, resale, final)
        if final.is_done:
            self._ledger.commands.append((verb, resale.transfer_id))

    def _learn(self, party: Client, resale: Resale, final: Final) -> None:
        """Record the status that an answer names. After a doubtful refusal, the party reads it."""
        if final.is_done:
            record_status(resale, final.answer.data)
        elif final.is_doubtful:
            read_resale(party, resale)

    # ── codes

    def _resend(self, customer: Client, **subject: str) -> None:
        """Perhaps request another code. The newest one counts."""
        if self._rng.random() < RESENDING:
            customer.insist("resend", lambda: customer.post("/api/otp/resend", subject))

    def _read_code(self, customer: Client) -> str:
        return customer.ask("inbox", lambda: self._town.system.inbox.newest_code(customer.phone))

    def _reset_password(self, customer: Client) -> None:
        """Reset the password of a customer who has just entered a code, so that the phone is verified."""
        email, password = {"email": customer.user["email"]}, f"a new password {self._key()}"
        customer.insist("reset", lambda: customer.post("/api/auth/password/reset", email))
        code = self._read_code(customer)
        body = {**email, "otp_code": code, "new_password": password}
        final = customer.insist("reset", lambda: customer.post("/api/auth/password/reset/confirm", body))
        if final.is_done:
            self._ledger.passwords[email["email"]] = password
        elif final.is_doubtful:
            self._ledger.passwords.pop(email["email"], None)

    # ── idempotency

    def _key(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    def _repeat(self, what: str, final: Final, send: Callable[[], Any]) -> None:
        """Send some requests once more, as a client whose answer was lost. The answer must be the same."""
        if self._rng.random() < 0.1:
            again = send()
            is_final = again.status not in LOST and again.error_code != BUSY
            if is_final and _facts(again) != _facts(final.answer):
                self._ledger.changed_answers.append(f"{what}: {final.answer.body[:200]!r}, then {again.body[:200]!r}")


SCENARIOS: dict[Callable[[Visit], None], float] = {
    Visit.buy: 30,
    Visit.contend: 25,
    Visit.abandon: 10,
    Visit.resell: 20,
    Visit.top_up: 8,
    Visit.open_account: 2,
    Visit.browse: 5,
}
BROWSED = (
    "/api/credits/balance",
    "/api/orders",
    "/api/tickets",
    "/api/transfers",
    "/api/events",
    f"/api/events/{SEED_EVENT}",
)


def read_sale(ledger: Ledger, customer: Client, sale: Sale) -> str:
    """Let the customer read the status of an order, and return it."""
    order = customer.insist("order", lambda: customer.order(sale.order_id)).answer.data
    if order["status"] == "CONFIRMED":
        ledger.sell(sale)
    sale.status = order["status"]
    return sale.status


def read_resale(party: Client, resale: Resale) -> None:
    """Let a party read the status of a transfer."""
    path = f"/api/transfers/{resale.transfer_id}"
    record_status(resale, party.insist("transfer", lambda: party.get(path)).answer.data)


def record_status(resale: Resale, data: Mapping[str, Any]) -> None:
    """Record the status and the frozen credits in an answer."""
    resale.status = data["status"]
    resale.frozen = Decimal(data.get("credits_frozen", resale.frozen))


def _facts(answer: Any) -> Any:
    """The data of an answer without the ticket, which differs in each answer."""
    data = answer.data if answer.status < 300 else {}
    return answer.status, {name: value for name, value in data.items() if name not in ("qr_payload", "expires_at")}
