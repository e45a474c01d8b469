"""Generated histories for tests of the checker, and a slow checker to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from random import Random

from tests.concurrency.linearizability import NEVER, Op, State
from tests.concurrency.seat_model import FREE, OK, SeatModel

MODEL = SeatModel()
OPERATIONS = ("reserve", "release", "sell", "cancel_sale", "admit", "look")


def generate_valid(dice: Random, length: int, clients: int) -> list[Op]:
    """Generate a linearizable history of a seat with `length` operations of `clients`."""
    state: State = FREE
    free_at = [0.0] * clients
    ops = []
    for moment in range(1, length + 1):
        client = min(range(clients), key=lambda c: free_at[c])
        start = max(free_at[client], moment - dice.random() * clients)
        free_at[client] = end = moment + dice.random() * clients
        state, op = _operate(dice, state, f"client {client}", start, end)
        ops.append(op)
        if state[0] == "CHECKED_IN":  # type: ignore[index]
            break
    return ops


def _operate(dice: Random, state: State, client: str, start: float, end: float) -> tuple[State, Op]:
    what = dice.choices(OPERATIONS, (30, 15, 15, 15, 0.1, 25))[0]
    is_current_order = dice.random() < 0.7 and state != FREE and what != "reserve"
    args = tuple(state[1:]) if is_current_order else (f"o{dice.randrange(10**6)}", f"u{client[7:]}")  # type: ignore[index]
    op = Op(client, what, args, OK, start, end)
    if what == "look":
        return state, replace(op, result="/".join(state))  # type: ignore[arg-type]
    after = MODEL.after(state, op)
    if after is None:
        return state, replace(op, result=_refusal(state, op))
    return after, op


def _refusal(state: State, op: Op) -> str:
    codes = ("SEAT_UNAVAILABLE", "SEAT_ALREADY_SOLD") if op.what == "reserve" else ("NOT_HELD", "NOT_SOLD")
    return next(code for code in codes if MODEL.after(state, replace(op, result=code)) is not None)


def generate_random(dice: Random, length: int) -> list[Op]:
    """Generate operations with random results, of which about half are linearizable."""
    ops = []
    for number in range(length):
        what = dice.choice(("reserve", "reserve", "release", "sell", "look"))
        args = (dice.choice("ab"), "u") if what != "look" else ()
        result = dice.choice(_possible_results(what))
        start = dice.random() * length
        end = NEVER if result is None else start + dice.random() * 4
        ops.append(Op(f"client {number}", what, args, result, start, end))
    return ops


def _possible_results(what: str) -> tuple[str | None, ...]:
    if what == "look":
        return "AVAILABLE//", "HELD/a/u", "SOLD/a/u"
    return (OK, OK, None, "SEAT_UNAVAILABLE" if what == "reserve" else "NOT_HELD")


def is_linearizable(ops: Sequence[Op], start: State = FREE) -> bool:
    """Check a short history by trying every order."""
    unknown = [op for op in ops if op.end == NEVER]
    for taken in range(2 ** len(unknown)):
        some = [op for op in ops if op.end < NEVER or taken >> unknown.index(op) & 1]
        if any(_explains(order, start) for order in permutations(some)):
            return True
    return False


def _explains(order: Sequence[Op], state: State | None) -> bool:
    latest_start = -NEVER
    for op in order:
        latest_start = max(latest_start, op.start)
        if op.end < latest_start:  # it ended before an operation started that precedes it in this order
            return False
        state = MODEL.after(state, op)
        if state is None:
            return False
    return True
