"""A small model of the system: users, seats, orders and transfers as plain data, without any code of the services.

Each action changes the model and returns `"ok"` or the error code of the response. `undo_pay` and `undo_confirm` apply
the state after a compensated action.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PRICE = 200
COMPLETED_OR_DISPUTED = ("COMPLETED", "DISPUTED")


@dataclass
class Seat:
    status: str = "AVAILABLE"
    order: str | None = None
    owner: str | None = None


@dataclass
class Order:
    user: str
    seat: str
    needs_code: bool = False
    status: str = "PENDING"
    wrong_codes: int = 0


@dataclass
class Transfer:
    order: str
    seat: str
    seller: str
    buyer: str
    amount: int
    status: str = "PENDING_OTP"
    number: int = 0
    frozen: int = 0
    cancelled: bool = False
    dismissed: bool = False


class User:
    """A user. Credits that arrive pay the debt first, which a payment leaves that Stripe took back."""

    def __init__(self, balance: int, *, is_flagged: bool = False) -> None:
        self.is_flagged = is_flagged
        self.frozen = 0
        self.debt = 0
        self._balance = balance

    @property
    def balance(self) -> int:
        return self._balance

    @balance.setter
    def balance(self, credits: int) -> None:
        collected = min(self.debt, credits)
        self.debt -= collected
        self._balance = credits - collected


@dataclass
class Model:
    """The observable state of the system."""

    users: dict[str, User] = field(default_factory=dict)
    seats: dict[str, Seat] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    transfers: dict[str, Transfer] = field(default_factory=dict)

    # ── scenario 1

    def reserve(self, user: str, seat_id: str, order_id: str) -> str:
        seat = self.seats[seat_id]
        if seat.status in ("SOLD", "CHECKED_IN"):
            return "SEAT_ALREADY_SOLD"
        if seat.status == "HELD" and not self._can_replace_hold(user, seat):
            return "SEAT_UNAVAILABLE"
        seat.status, seat.order = "HELD", order_id
        self.orders[order_id] = Order(user, seat_id, needs_code=self.users[user].is_flagged)
        return "ok"

    def undo_reserve(self, user: str, seat_id: str) -> None:
        """The hold of a failed order is gone once it was replaced, and the new hold is released."""
        if self._can_replace_hold(user, self.seats[seat_id]):
            self.seats[seat_id] = Seat()

    def _can_replace_hold(self, user: str, seat: Seat) -> bool:
        order = self.orders.get(seat.order or "")
        return seat.status == "HELD" and order is not None and (order.user, order.status) == (user, "FAILED")

    def verify(self, order_id: str, *, is_right: bool) -> str:
        order = self.orders[order_id]
        if order.status != "PENDING":
            failed = "OTP_MAX_RETRIES" if order.wrong_codes == 3 else "ORDER_FAILED"
            return "ORDER_ALREADY_CONFIRMED" if order.status == "CONFIRMED" else failed
        order.wrong_codes += order.needs_code and not is_right
        if order.wrong_codes == 3:
            order.status = "FAILED"
            return "OTP_MAX_RETRIES"
        order.needs_code = order.needs_code and not is_right
        return "OTP_INVALID" if order.needs_code else "ok"

    def pay(self, user: str, order_id: str) -> str:
        order = self.orders[order_id]
        if order.user != user:
            return "FORBIDDEN"
        if order.status in ("CONFIRMED", "REFUNDED"):
            return "ok"  # the stored response of the pay
        if order.status != "PENDING":
            return "ORDER_FAILED"
        if order.needs_code:
            return "OTP_REQUIRED"
        if self.users[user].balance < PRICE:
            return "INSUFFICIENT_CREDITS"
        self.users[user].balance -= PRICE
        order.status = "CONFIRMED"
        self.seats[order.seat] = Seat("SOLD", order_id, user)
        return "ok"

    def undo_pay(self, user: str, order_id: str) -> None:
        order = self.orders[order_id]
        order.status = "FAILED" if (order.status, order.user) == ("PENDING", user) else order.status

    def expire(self, seat_id: str) -> str:
        seat = self.seats[seat_id]
        if seat.status == "HELD":
            order = self.orders.get(seat.order or "")
            if order is not None and order.status == "PENDING":
                order.status = "FAILED"
            self.seats[seat_id] = Seat()
        return "ok"

    def refund(self, order_id: str) -> str:
        order = self.orders[order_id]
        seat = self.seats[order.seat]
        if order.status == "REFUNDED":
            return "ok"
        if order.status != "CONFIRMED" or self._live_transfer(order.seat):
            return "ORDER_NOT_REFUNDABLE"
        if (seat.status, seat.order, seat.owner) != ("SOLD", order_id, order.user):
            return "ORDER_NOT_REFUNDABLE"
        order.status = "REFUNDED"
        self.users[order.user].balance += PRICE
        self.seats[order.seat] = Seat()
        return "ok"

    def take_back(self, user: str, amount: int) -> None:
        self.users[user].debt += amount
        self.users[user].balance += 0

    def top_up(self, user: str, amount: int, *, is_repeated: bool) -> str:
        if not is_repeated:
            self.users[user].balance += amount
        return "ok"

    # ── scenario 2

    def initiate(self, seat_id: str, seller: str, buyer: str, amount: int, transfer_id: str) -> str:
        seat = self.seats[seat_id]
        if seller == buyer:
            return "SELF_TRANSFER"
        if seat.owner != seller:
            return "NOT_SEAT_OWNER"
        if seat.status != "SOLD":
            return "SEAT_UNAVAILABLE"
        if self.users[buyer].balance < amount:
            return "INSUFFICIENT_CREDITS"
        if self._live_transfer(seat_id):
            return "TRANSFER_IN_PROGRESS"
        self.transfers[transfer_id] = Transfer(
            seat.order or "", seat_id, seller, buyer, amount, number=len(self.transfers)
        )
        return "ok"

    def confirm(self, transfer_id: str) -> str:
        transfer = self.transfers[transfer_id]
        if transfer.status == "COMPLETED":
            return "ok"
        if transfer.status != "PENDING_OTP":
            return "TRANSFER_INVALID_STATE"
        buyer, seat = self.users[transfer.buyer], self.seats[transfer.seat]
        if buyer.balance < transfer.amount:
            transfer.status = "FAILED"
            return "INSUFFICIENT_CREDITS"
        if seat.status != "SOLD" or seat.order != transfer.order:
            transfer.status = "FAILED"
            return "SEAT_UNAVAILABLE"
        buyer.balance -= transfer.amount
        self.users[transfer.seller].balance += transfer.amount
        seat.owner, transfer.status = transfer.buyer, "COMPLETED"
        return "ok"

    def undo_confirm(self, transfer_id: str) -> None:
        transfer = self.transfers[transfer_id]
        transfer.status = "FAILED" if transfer.status == "PENDING_OTP" else transfer.status

    def cancel(self, transfer_id: str) -> str:
        transfer = self.transfers[transfer_id]
        if transfer.cancelled:
            return "ok"  # the stored response
        if transfer.status != "PENDING_OTP":
            return "TRANSFER_INVALID_STATE"
        transfer.status, transfer.cancelled = "FAILED", True
        return "ok"

    def dispute(self, transfer_id: str) -> str:
        transfer = self.transfers[transfer_id]
        if transfer.status == "DISPUTED":
            return "ok"
        if transfer.status != "COMPLETED" or self.orders[transfer.order].status != "CONFIRMED":
            return "TRANSFER_INVALID_STATE"
        if self.seats[transfer.seat].status == "CHECKED_IN" or transfer.dismissed:
            return "DISPUTE_CLOSED"
        if not self._is_latest(transfer_id):
            return "TRANSFER_INVALID_STATE"
        for following in self.transfers.values():
            if following.seat == transfer.seat and following.status == "PENDING_OTP":
                following.status = "FAILED"
        seller = self.users[transfer.seller]
        transfer.status, transfer.frozen = "DISPUTED", min(seller.balance, transfer.amount)
        seller.balance, seller.frozen = seller.balance - transfer.frozen, seller.frozen + transfer.frozen
        return "ok"

    def reverse(self, transfer_id: str) -> str:
        transfer = self.transfers[transfer_id]
        if transfer.status == "REVERSED":
            return "ok"
        if transfer.status != "DISPUTED":
            return "TRANSFER_INVALID_STATE"
        seller, seat = self.users[transfer.seller], self.seats[transfer.seat]
        rest = transfer.amount - transfer.frozen
        if seller.balance < rest:
            return "CREDITS_UNAVAILABLE"
        if (seat.status, seat.order, seat.owner) != ("SOLD", transfer.order, transfer.buyer):
            return "SEAT_UNAVAILABLE"
        seller.balance, seller.frozen = seller.balance - rest, seller.frozen - transfer.frozen
        self.users[transfer.buyer].balance += transfer.amount
        seat.owner, transfer.status, transfer.frozen = transfer.seller, "REVERSED", 0
        return "ok"

    def dismiss(self, transfer_id: str) -> str:
        transfer = self.transfers[transfer_id]
        if transfer.dismissed:
            return "ok"  # the stored response
        if transfer.status != "DISPUTED":
            return "TRANSFER_INVALID_STATE"
        seller = self.users[transfer.seller]
        seller.balance, seller.frozen = seller.balance + transfer.frozen, seller.frozen - transfer.frozen
        transfer.status, transfer.frozen, transfer.dismissed = "COMPLETED", 0, True
        return "ok"

    def _live_transfer(self, seat_id: str) -> bool:
        return any(t.seat == seat_id and t.status in ("PENDING_OTP", "DISPUTED") for t in self.transfers.values())

    def _is_latest(self, transfer_id: str) -> bool:
        this = self.transfers[transfer_id]
        candidates = [t for t in self.transfers.values() if t.order == this.order and t.status in COMPLETED_OR_DISPUTED]
        return max(candidates, key=lambda t: t.number) is this

    # ── scenario 3

    def scan(self, seat_id: str, user: str) -> str:
        seat = self.seats[seat_id]
        if seat.status in ("AVAILABLE", "HELD"):
            return "UNPAID"
        if seat.status == "CHECKED_IN":
            return "DUPLICATE"
        if seat.owner != user:
            return "NOT_OWNER"
        seat.status = "CHECKED_IN"
        return "SUCCESS"
