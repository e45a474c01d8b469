"""Each flow as the crash_point tests play it: what comes before, how it is asked for, how it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.api_client import ApiResponse
from tests.saga.crash.actors import Actors, SystemState

Ask = Callable[[Actors, str], ApiResponse]
Act = Callable[[Actors], None]


@dataclass(frozen=True)
class CrashScenario:
    """One flow: what comes before it, how it is asked for, and how things stand once it is done, or undone.

    `again_*` is what the client is told that asks once more after its saga has ended: status and error code.
    `made_by` is the step that makes the order or transfer: a saga that dies earlier leaves none to fail.
    """

    before: Act
    ask: Ask
    done: SystemState
    undone: SystemState | None = None
    again_done: int = 200
    again_undone: tuple[int, str | None] = (200, None)
    trouble: Act | None = None
    troubled_seat: tuple[str, ...] = ()
    again_troubled: tuple[int, str | None] | None = None
    made_by: str | None = None
    flagged: bool = False


def _nothing(_cast: Actors) -> None:
    """Nothing comes before it."""


CRASH_SCENARIOS = {
    "reserve": CrashScenario(
        before=_nothing,
        ask=Actors.ask_reserve,
        done=SystemState("HELD", order="PENDING", seller=(200, 0)),
        undone=SystemState("AVAILABLE", order="FAILED", seller=(200, 0)),
        again_undone=(503, "SERVICE_UNAVAILABLE"),
        trouble=Actors.use_up_codes,
        made_by="create_order",
        flagged=True,
    ),
    "pay": CrashScenario(
        before=Actors.hold,
        ask=Actors.ask_pay,
        done=SystemState("SOLD", "seller", "CONFIRMED"),
        undone=SystemState("HELD", None, "FAILED", seller=(200, 0)),  # its key voided; it waits for its TTL
        again_undone=(409, "ORDER_FAILED"),
        trouble=Actors.let_hold_run_out,
        troubled_seat=("HELD", "AVAILABLE"),
    ),
    "refund": CrashScenario(
        before=Actors.buy,
        ask=Actors.ask_refund,
        done=SystemState("AVAILABLE", None, "REFUNDED", seller=(200, 0)),
        undone=SystemState("SOLD", "seller", "CONFIRMED", seller=(0, 0)),
    ),
    "initiate": CrashScenario(
        before=Actors.buy,
        ask=Actors.ask_initiate,
        done=SystemState("SOLD", "seller", "CONFIRMED", "PENDING_OTP"),
        undone=SystemState("SOLD", "seller", "CONFIRMED", "FAILED"),
        again_done=201,
        again_undone=(500, "INTERNAL_ERROR"),
        trouble=Actors.use_up_codes,
        made_by="create_transfer",
    ),
    "transfer_confirm": CrashScenario(
        before=Actors.offer,
        ask=Actors.ask_confirm,
        done=SystemState("SOLD", "buyer", "CONFIRMED", "COMPLETED", seller=(150, 0), buyer=(350, 0)),
        undone=SystemState("SOLD", "seller", "CONFIRMED", "FAILED"),
        again_undone=(409, "TRANSFER_INVALID_STATE"),
        trouble=Actors.let_seller_in,
        troubled_seat=("CHECKED_IN",),
    ),
    "dispute": CrashScenario(
        before=Actors.sell_on,
        ask=Actors.ask_dispute,
        done=SystemState("SOLD", "buyer", "CONFIRMED", "DISPUTED", seller=(0, 30), buyer=(350, 0)),
    ),
    "reverse": CrashScenario(
        before=Actors.make_up,
        ask=Actors.ask_reverse,
        done=SystemState("SOLD", "seller", "CONFIRMED", "REVERSED"),
        undone=SystemState("SOLD", "buyer", "CONFIRMED", "DISPUTED", seller=(120, 30), buyer=(350, 0)),
        trouble=Actors.let_buyer_in,
        troubled_seat=("CHECKED_IN",),
        again_troubled=(409, "SEAT_UNAVAILABLE"),
    ),
    "dismiss": CrashScenario(
        before=Actors.fall_out,
        ask=Actors.ask_dismiss,
        done=SystemState("SOLD", "buyer", "CONFIRMED", "COMPLETED", seller=(30, 0), buyer=(350, 0)),
    ),
}
