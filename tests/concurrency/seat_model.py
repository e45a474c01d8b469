"""A seat as its callers may see it: (status, order, owner), and what each operation makes of it.

    AVAILABLE ─reserve→ HELD ─sell→ SOLD ─admit→ CHECKED_IN          SOLD ─hand_over→ SOLD of another owner
        ↑←────release────┘            │
        ↑←──────────take_back─────────┘

An operation is given (order, user); `hand_over` (order, seller, buyer). An answer is OK, or a refusal that says
something of the seat, or LOST, which says nothing: credits ran short, or the row was in other hands (NOWAIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tests.concurrency.linearizability import Op, State

FREE = ("AVAILABLE", "", "")
OK, LOST = "OK", "LOST"
Given = tuple[str, ...]

BECOMES: Mapping[str, Callable[[State, Given], State | None]] = {
    "reserve": lambda seat, given: ("HELD", *given) if seat in (FREE, ("HELD", *given)) else None,
    "release": lambda seat, given: FREE if seat == ("HELD", *given) else None,
    # A second pay of one order is given the first one's answer.
    "sell": lambda seat, given: ("SOLD", *given) if seat in (("HELD", *given), ("SOLD", *given)) else None,
    "take_back": lambda seat, given: FREE if seat == ("SOLD", *given) else None,
    "hand_over": lambda seat, given: ("SOLD", given[0], given[2]) if seat == ("SOLD", *given[:2]) else None,
    "admit": lambda seat, given: ("CHECKED_IN", *given) if seat == ("SOLD", *given) else None,
}
TRUE_OF: Mapping[str, Callable[[tuple[str, str, str], Given], bool]] = {
    "SEAT_UNAVAILABLE": lambda seat, _: seat[0] == "HELD",
    "SEAT_ALREADY_SOLD": lambda seat, _: seat[0] in ("SOLD", "CHECKED_IN"),
    "NOT_HELD": lambda seat, given: seat != ("HELD", *given),
    "NOT_SOLD": lambda seat, given: seat != ("SOLD", *given[:2]),
    "DUPLICATE": lambda seat, _: seat[0] == "CHECKED_IN",
    LOST: lambda _seat, _given: True,
}


class SeatModel:
    """`linearizability.Model` of one seat. `look` answers what it saw, as status/order/owner."""

    def after(self, state: State, op: Op) -> State | None:
        """The seat after `op`; None where it cannot have answered so."""
        if op.what == "look":
            return state if op.got == "/".join(state) else None  # type: ignore[arg-type]
        if op.got is not None and op.got in TRUE_OF:
            return state if TRUE_OF[op.got](state, op.given) else None  # type: ignore[arg-type]
        return BECOMES[op.what](state, op.given)  # OK; or nobody knows, and this is what it did if it did

    def changes(self, op: Op) -> bool:
        """False for looks and refusals."""
        return op.what != "look" and op.got not in TRUE_OF


def excused(ops: Sequence[Op]) -> list[Op]:
    """The history with every SEAT_UNAVAILABLE that NOWAIT may have spoken marked LOST.

    The row is in other hands only while another operation on the seat is under way: a refusal that overlaps none has
    to be explained by a hold.
    """
    locking = [op for op in ops if op.what != "look"]

    def may_be_lost(op: Op) -> bool:
        return op.got == "SEAT_UNAVAILABLE" and any(
            other is not op and other.call <= op.back and op.call <= other.back for other in locking
        )

    return [replace(op, got=LOST) if may_be_lost(op) else op for op in ops]
