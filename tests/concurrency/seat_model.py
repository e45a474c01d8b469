"""The sequential model of a seat. Its state is (status, order, owner).

    AVAILABLE ─reserve→ HELD ─sell→ SOLD ─admit→ CHECKED_IN          SOLD ─update_owner→ SOLD, new owner
        ↑←────release────┘            │
        ↑←─────────cancel_sale────────┘

The arguments of an operation are (order, user), those of `update_owner` are (order, seller, buyer). A result is OK, a
refusal that depends on the state, or LOST. LOST gives no information about the seat: the credits did not suffice, or
another transaction had locked the row (NOWAIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tests.concurrency.linearizability import Op, State

FREE = ("AVAILABLE", "", "")
OK, LOST = "OK", "LOST"
Args = tuple[str, ...]

NEXT_STATE: Mapping[str, Callable[[State, Args], State | None]] = {
    "reserve": lambda seat, args: ("HELD", *args) if seat in (FREE, ("HELD", *args)) else None,
    "release": lambda seat, args: FREE if seat == ("HELD", *args) else None,
    # A second payment of an order gets the response of the first one.
    "sell": lambda seat, args: ("SOLD", *args) if seat in (("HELD", *args), ("SOLD", *args)) else None,
    "cancel_sale": lambda seat, args: FREE if seat == ("SOLD", *args) else None,
    "update_owner": lambda seat, args: ("SOLD", args[0], args[2]) if seat == ("SOLD", *args[:2]) else None,
    "admit": lambda seat, args: ("CHECKED_IN", *args) if seat == ("SOLD", *args) else None,
}
IS_ALLOWED: Mapping[str, Callable[[tuple[str, str, str], Args], bool]] = {
    "SEAT_UNAVAILABLE": lambda seat, _: seat[0] == "HELD",
    "SEAT_ALREADY_SOLD": lambda seat, _: seat[0] in ("SOLD", "CHECKED_IN"),
    "NOT_HELD": lambda seat, args: seat != ("HELD", *args),
    "NOT_SOLD": lambda seat, args: seat != ("SOLD", *args[:2]),
    "DUPLICATE": lambda seat, _: seat[0] == "CHECKED_IN",
    LOST: lambda _seat, _args: True,
}


class SeatModel:
    """A `linearizability.Model` of one seat. The result of `look` is status/order/owner."""

    def after(self, state: State, op: Op) -> State | None:
        """Return the seat after `op`, or None if `op` cannot have its result in this state."""
        if op.what == "look":
            return state if op.result == "/".join(state) else None  # type: ignore[arg-type]
        if op.result is not None and op.result in IS_ALLOWED:
            return state if IS_ALLOWED[op.result](state, op.args) else None  # type: ignore[arg-type]
        return NEXT_STATE[op.what](state, op.args)  # also for an unknown outcome, as if it took effect

    def changes(self, op: Op) -> bool:
        """Return False for looks and refusals."""
        return op.what != "look" and op.result not in IS_ALLOWED


def mark_lost_locks(ops: Sequence[Op]) -> list[Op]:
    """Return the history with LOST in place of each SEAT_UNAVAILABLE that NOWAIT may have caused.

    NOWAIT can fail only while another operation on the seat is in progress. A refusal that overlaps no other operation
    needs a hold as its cause.
    """
    locking = [op for op in ops if op.what != "look"]

    def may_be_lost(op: Op) -> bool:
        return op.result == "SEAT_UNAVAILABLE" and any(
            other is not op and other.start <= op.end and op.start <= other.end for other in locking
        )

    return [replace(op, result=LOST) if may_be_lost(op) else op for op in ops]
