"""Planted races: each takes one guard away, and only a schedule shows the difference. The explorer must find each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from services.chassis import effects
from services.chassis.db import Database, Row
from services.chassis.effects import Answer
from services.inventory.store import entries, holds
from services.orchestrator.saga import journal, outbox
from services.order import disputes, order_otp, sweeper, transfer_store
from services.order.sweeper import Sweeper
from services.user.store import credits
from tests.saga.in_process.in_process_system import InProcessSystem
from tests.saga.interleavings.exploring import Mode


@dataclass(frozen=True)
class Control:
    """A guard, the pair that shows its absence, and the places to change: (module, name, old text, new text).

    `replaced` has functions instead, and `index` is an index to drop: (database, name). `mode` has the schedules that
    show the race.
    """

    guard: str
    pair: str
    edits: tuple[tuple[ModuleType, str, str, str], ...] = ()
    replaced: tuple[tuple[Any, str, Any], ...] = ()
    index: tuple[str, str] | None = None
    mode: Mode = Mode.ONE

    @contextmanager
    def plant(self, system: InProcessSystem) -> Iterator[None]:
        """Take the guard away for a block."""
        with pytest.MonkeyPatch.context() as patch, _without_index(system, self.index):
            for module, name, old, new in self.edits:
                text = getattr(module, name)
                assert old in text, f"{name} has changed, so the control is stale"
                patch.setattr(module, name, text.replace(old, new))
            for owner, name, function in self.replaced:
                assert hasattr(owner, name), f"{name} has gone, so the control is stale"
                patch.setattr(owner, name, function)
            yield


@contextmanager
def _without_index(system: InProcessSystem, index: tuple[str, str] | None) -> Iterator[None]:
    if index is None:
        yield
        return
    database, name = index
    cursor = system.connect(database).cursor()
    cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = %s", (name,))
    [(definition,)] = cursor.fetchall()
    cursor.execute(f"DROP INDEX {name}")
    try:
        yield
    finally:
        cursor.execute(definition)


# ── functions without their guard


def _settle_after_look_up(db: Database, key: str) -> Answer | None:
    """Look for the effect first, and write the tombstone after that."""
    found = db.statement(effects._FIND, key=key)
    if found is None:
        effects._record_once(db, key, "VOIDED", {})
    return found["answer"] if found and found["outcome"] == "DONE" else None


def _deduct_after_look_up(db: Database, key: str, user_id: UUID, amount: Any) -> Answer:
    """Read the balance, and write the new balance without a comparison with the old one."""
    balance = db.statement(credits._BALANCE, user_id=user_id)
    if balance is None or balance["credit_balance"] < amount:
        raise credits._refusal(balance)
    sql = credits._DEDUCT.replace("credit_balance - %(amount)s\n", "%(rest)s\n").replace("credit_balance >=", "0 <=")
    rest = balance["credit_balance"] - amount
    return db.statement(sql, key=key, user_id=user_id, amount=amount, rest=rest)["answer"]  # type: ignore[index,no-any-return]


def _sweep_without_second_look(db: Database, batch: int, grace_seconds: float) -> list[Row]:
    """Find the expired holds, and release their seats without a look at the hold."""
    with db.transaction() as tx:
        due = tx.all("SELECT seat_id, hold_id FROM seats WHERE status = 'HELD' AND held_until <= app_now()")
        for seat in due:
            tx.run(f"UPDATE seats SET {holds.CLEARED} WHERE seat_id = %(seat_id)s AND status = 'HELD'", **seat)
        return due


def _fail_without_second_look(sweeper: Sweeper, _sql: str, noun: str) -> int:
    """Find the expired rows, and fail them without a look at their status."""
    table, status = f"{noun.lower()}s", "'PENDING'" if noun == "Order" else "'INITIATED', 'PENDING_OTP'"
    with sweeper._db.transaction() as tx:
        due = tx.all(f"SELECT * FROM {table} WHERE status IN ({status}) AND expires_at <= app_now()")
        for row in due:
            tx.run(
                f"UPDATE {table} SET status = 'FAILED' WHERE {noun.lower()}_id = %(id)s", id=row[f"{noun.lower()}_id"]
            )
        return len(due)


def _pass(*_args: Any) -> None:
    """Replace a check."""


LOCK = "FOR UPDATE"
VERIFIED = "AND NOT (seller_otp_verified AND buyer_otp_verified)"
CONTROLS = (
    Control("one live saga per subject", "reverse~dismiss (disputed)", index=("sagas_db", "one_live_saga_per_subject")),
    Control(
        "epoch of the end write",
        "pay~RECOVERY (held)",
        ((journal, "_END", "AND epoch = %(epoch)s", ""),),
        mode=Mode.TWO,
    ),
    Control(
        "tombstone before the look-up of settle",
        "pay~RECOVERY (held)",
        replaced=((effects, "settle", _settle_after_look_up),),
        mode=Mode.TWO,
    ),
    Control(
        "refusal of an effect after its tombstone",
        "confirm~RECOVERY (transfer)",
        ((effects, "_RECORD", "%(answer)s)", "%(answer)s) ON CONFLICT DO NOTHING"),),
    ),
    Control(
        "void key of a hold that was taken over",
        "reserve~take-over of a new hold (free)",
        ((holds, "_HOLD", "key = 'hold:' || seat.hold_id", "false"),),
        mode=Mode.LOST,
    ),
    Control("row lock of a change of the sale", "refund~scan (sold)", ((holds, "_LOCK", LOCK, ""),)),
    Control("row lock of the check-in", "confirm~scan (transfer)", ((entries, "_CHECK_IN", LOCK, ""),)),
    Control(
        "second look at the owner under the lock",
        "confirm~scan (transfer)",
        ((entries, "_CHECK_IN", "owner_user_id IS DISTINCT FROM %(expected_owner_id)s", "false"),),
    ),
    Control(
        "second look at the sale under the lock",
        "refund~scan (sold)",
        ((entries, "_CHECK_IN", "order_id IS DISTINCT FROM %(order_id)s", "false"),),
    ),
    Control(
        "second look of the hold sweeper",
        "take-over~HOLD SWEEPER (held)",
        replaced=((holds, "sweep", _sweep_without_second_look),),
    ),
    Control(
        "second look of the order sweeper",
        "pay~ORDER SWEEPER (held)",
        replaced=((Sweeper, "_fail_due", _fail_without_second_look),),
        mode=Mode.TWO,
    ),
    Control(
        "both codes protect a transfer from the sweeper",
        "confirm~ORDER SWEEPER (transfer)",
        (
            (sweeper, "_TRANSFERS", VERIFIED, ""),
            (sweeper, "_TRANSFERS", "AND NOT (transfers.seller_otp_verified AND transfers.buyer_otp_verified)", ""),
        ),
    ),
    Control(
        "both codes protect a transfer from cancel",
        "confirm~cancel (transfer)",
        ((transfer_store, "_CANCEL", VERIFIED, ""),),
    ),
    Control(
        "both codes of an onward transfer stop a dispute",
        "dispute~confirm onward (onward)",
        ((disputes, "_FAIL_ONWARD", VERIFIED, ""),),
    ),
    Control(
        "status of the order when a code is approved",
        "verify-otp~ORDER SWEEPER (code sent)",
        ((order_otp, "_APPROVE", "AND status = 'PENDING'", ""),),
    ),
    Control(
        "status of a transfer when its codes are sent",
        "initiate~RECOVERY (sold)",
        ((transfer_store, "_AWAIT_CODES", "AND status IN ('INITIATED', 'PENDING_OTP')", ""),),
    ),
    Control(
        "version of the balance",
        "pay~buyer spends (two holds)",
        replaced=((credits, "deduct", _deduct_after_look_up),),
    ),
    Control(
        "owner of the seat when a transfer is created",
        "confirm~initiate (transfer)",
        replaced=((transfer_store, "_check_seller", _pass),),
    ),
    Control(
        "end of open transfers by a refund",
        "refund~initiate (sold)",
        replaced=((transfer_store, "fail_of_order", _pass),),
    ),
    Control(
        "delay of a notice that a process has taken",
        "OUTBOX~OUTBOX (paid)",
        ((outbox, "_TAKE", "secs => 3 *", "secs => 0 *"),),
    ),
)
