"""Histories made up for the checker: of a true seat, of broken ones, and a slow judge to hold it against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from random import Random

from tests.concurrency.linearizability import NEVER, Op, State
from tests.concurrency.seat_model import FREE, OK, SeatModel

MODEL = SeatModel()
VERBS = ("reserve", "release", "sell", "take_back", "admit", "look")


def lived(dice: Random, length: int, clients: int) -> list[Op]:
    """What `clients` saw of a true seat, `length` operations in all, each at one moment between call and answer."""
    state: State = FREE
    free_at = [0.0] * clients
    ops = []
    for moment in range(1, length + 1):
        client = min(range(clients), key=lambda c: free_at[c])
        call = max(free_at[client], moment - dice.random() * clients)
        free_at[client] = back = moment + dice.random() * clients
        state, op = _done(dice, state, f"client {client}", call, back)
        ops.append(op)
        if state[0] == "CHECKED_IN":  # type: ignore[index]
            break
    return ops


def _done(dice: Random, state: State, client: str, call: float, back: float) -> tuple[State, Op]:
    what = dice.choices(VERBS, (30, 15, 15, 15, 0.1, 25))[0]
    mine = dice.random() < 0.7 and state != FREE
    given = tuple(state[1:]) if mine and what != "reserve" else (f"o{dice.randrange(10**6)}", f"u{client[7:]}")  # type: ignore[index]
    op = Op(client, what, given, OK, call, back)
    if what == "look":
        return state, replace(op, got="/".join(state))  # type: ignore[arg-type]
    after = MODEL.after(state, op)
    if after is None:
        return state, replace(op, got=_refusal(state, op))
    return after, op


def _refusal(state: State, op: Op) -> str:
    said = ("SEAT_UNAVAILABLE", "SEAT_ALREADY_SOLD") if op.what == "reserve" else ("NOT_HELD", "NOT_SOLD")
    return next(code for code in said if MODEL.after(state, replace(op, got=code)) is not None)


def anything(dice: Random, length: int) -> list[Op]:
    """Operations with answers out of thin air, near enough to the truth that about half of them can be explained."""
    ops = []
    for number in range(length):
        what = dice.choice(("reserve", "reserve", "release", "sell", "look"))
        given = (dice.choice("ab"), "u") if what != "look" else ()
        got = dice.choice(_answers(what))
        call = dice.random() * length
        back = NEVER if got is None else call + dice.random() * 4
        ops.append(Op(f"client {number}", what, given, got, call, back))
    return ops


def _answers(what: str) -> tuple[str | None, ...]:
    if what == "look":
        return "AVAILABLE//", "HELD/a/u", "SOLD/a/u"
    return (OK, OK, None, "SEAT_UNAVAILABLE" if what == "reserve" else "NOT_HELD")


def has_an_order(ops: Sequence[Op], start: State = FREE) -> bool:
    """The same question answered by trying every order; for a handful of operations."""
    unknown = [op for op in ops if op.back == NEVER]
    for taken in range(2 ** len(unknown)):
        some = [op for op in ops if op.back < NEVER or taken >> unknown.index(op) & 1]
        if any(_explains(order, start) for order in permutations(some)):
            return True
    return False


def _explains(order: Sequence[Op], state: State | None) -> bool:
    latest_call = -NEVER
    for op in order:
        latest_call = max(latest_call, op.call)
        if op.back < latest_call:  # it was answered before something was called that is to come before it
            return False
        state = MODEL.after(state, op)
        if state is None:
            return False
    return True
