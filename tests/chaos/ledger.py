"""The facts that answers acknowledged, recorded by the clients. Nothing here reads a database."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

Credits = Decimal
NOTHING = Decimal(0)
EXPLAINED_SECONDS = 5.0  # after the last saga of an act, in which a service may still refuse requests


class Call(NamedTuple):
    """One request: when it was sent (seconds since the epoch), how long it took, and its answer (0: none).

    `correlation_id` is that of the answer, under which the services have logged the request.
    """

    at: float
    seconds: float
    request: str
    status: int
    code: str | None = None
    correlation_id: str | None = None


class Wait(NamedTuple):
    """A request with its final answer: when it was sent first, the seconds until that answer, and the tries."""

    what: str
    at: float
    seconds: float
    tries: int


@dataclass
class Window:
    """The time of one act: when it began, and when the system was healthy again."""

    act: str
    began: float
    restored: float = float("inf")
    saga_seconds: float = 0.0  # from then until no older saga was running
    key_seconds: float = 0.0  # from then until no older key was taken

    @property
    def is_restored(self) -> bool:
        """Whether the system was healthy in time."""
        return self.restored < float("inf")

    def covers(self, at: float, seconds: float) -> bool:
        """Return whether a request that was sent at a time and took some seconds overlaps the act."""
        return self.began <= at + seconds and at <= self.restored

    def explains(self, call: Call) -> bool:
        """Return whether the act can be the cause of a failed call."""
        return self.began <= call.at + call.seconds and call.at <= self.restored + self.saga_seconds + EXPLAINED_SECONDS


@dataclass
class Sale:
    """An order that a reserve returned, with the last status in an answer."""

    order_id: str
    customer: str
    seat: str
    price: Credits
    status: str = "PENDING"
    held_until: float = 0.0


@dataclass
class Resale:
    """A transfer that an initiate returned, with the last status in an answer."""

    transfer_id: str
    seat: str
    seller: str
    buyer: str
    amount: Credits
    status: str = "PENDING_OTP"
    frozen: Credits = NOTHING


class Admission(NamedTuple):
    """A scan that admitted a guest."""

    seat: str
    key: str


@dataclass
class Ledger:
    """All facts of one run. Each list of problems is one kind of finding of the judge."""

    opening: dict[str, Credits] = field(default_factory=dict)
    sales: dict[str, Sale] = field(default_factory=dict)
    resales: dict[str, Resale] = field(default_factory=dict)
    payments: dict[str, tuple[str, Credits]] = field(default_factory=dict)  # PaymentIntent: payer, amount
    admissions: list[Admission] = field(default_factory=list)
    accounts: dict[str, str] = field(default_factory=dict)  # e-mail address: user
    logouts: list[str] = field(default_factory=list)  # sessions (the claim `sid`)
    passwords: dict[str, str] = field(default_factory=dict)  # e-mail address: the last password that was accepted
    locks: dict[str, bool] = field(default_factory=dict)  # user: whether staff have locked the account
    commands: list[tuple[str, str]] = field(default_factory=list)  # of staff: action and subject
    calls: list[Call] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    busy: list[tuple[float, float]] = field(default_factory=list)  # first try, and the try that found its key taken
    windows: list[Window] = field(default_factory=list)
    two_winners: list[str] = field(default_factory=list)
    early_ends: list[str] = field(default_factory=list)
    changed_answers: list[str] = field(default_factory=list)
    wrong_answers: list[str] = field(default_factory=list)
    open_sessions: list[str] = field(default_factory=list)
    refused_logins: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)  # of the load itself
    _winners: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sell(self, sale: Sale) -> None:
        """Record that an answer acknowledged the payment of an order. A seat with two such orders has two winners."""
        with self._lock:
            sale.status = "CONFIRMED"
            self._winners[sale.seat].add(sale.order_id)
            if len(self._winners[sale.seat]) > 1:
                self.two_winners.append(f"seat {sale.seat}: orders {', '.join(sorted(self._winners[sale.seat]))}")

    def free(self, sale: Sale) -> None:
        """Record that the seat may be sold again, before the refund is sent."""
        with self._lock:
            self._winners[sale.seat].discard(sale.order_id)

    def is_quiet(self, call: Call) -> bool:
        """Return whether no act explains a failure of the call."""
        return not any(window.explains(call) for window in self.windows)

    def describe_moment(self, at: float) -> str:
        """Return the last act before a moment, and how long ago the system had recovered from it."""
        earlier = [window for window in self.windows if window.restored <= at]
        return (
            f"{at - earlier[-1].restored:.1f} s after the recovery from: {earlier[-1].act}"
            if earlier
            else "before any act"
        )
