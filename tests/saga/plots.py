"""Each flow as the death tests play it: what comes before, how it is asked for, how it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.api_client import Answer
from tests.saga.casts import Cast, Standing

Ask = Callable[[Cast, str], Answer]
Act = Callable[[Cast], None]


@dataclass(frozen=True)
class Plot:
    """One flow: what comes before it, how it is asked for, and how things stand once it is done, or undone.

    `again_*` is what the client is told that asks once more after its saga has ended: status and error code.
    `made_by` is the step that makes the order or transfer: a saga that dies earlier leaves none to fail.
    """

    before: Act
    ask: Ask
    done: Standing
    undone: Standing | None = None
    again_done: int = 200
    again_undone: tuple[int, str | None] = (200, None)
    trouble: Act | None = None
    troubled_seat: tuple[str, ...] = ()
    again_troubled: tuple[int, str | None] | None = None
    made_by: str | None = None
    flagged: bool = False


def _nothing(_cast: Cast) -> None:
    """Nothing comes before it."""


PLOTS = {
    "reserve": Plot(
        before=_nothing,
        ask=Cast.ask_reserve,
        done=Standing("HELD", order="PENDING", seller=(200, 0)),
        undone=Standing("AVAILABLE", order="FAILED", seller=(200, 0)),
        again_undone=(503, "SERVICE_UNAVAILABLE"),
        trouble=Cast.use_up_codes,
        made_by="create_order",
        flagged=True,
    ),
    "pay": Plot(
        before=Cast.hold,
        ask=Cast.ask_pay,
        done=Standing("SOLD", "seller", "CONFIRMED"),
        undone=Standing("HELD", None, "FAILED", seller=(200, 0)),  # its key voided; it waits for its TTL
        again_undone=(409, "ORDER_FAILED"),
        trouble=Cast.let_hold_run_out,
        troubled_seat=("HELD", "AVAILABLE"),
    ),
    "refund": Plot(
        before=Cast.buy,
        ask=Cast.ask_refund,
        done=Standing("AVAILABLE", None, "REFUNDED", seller=(200, 0)),
        undone=Standing("SOLD", "seller", "CONFIRMED", seller=(0, 0)),
    ),
    "initiate": Plot(
        before=Cast.buy,
        ask=Cast.ask_initiate,
        done=Standing("SOLD", "seller", "CONFIRMED", "PENDING_OTP"),
        undone=Standing("SOLD", "seller", "CONFIRMED", "FAILED"),
        again_done=201,
        again_undone=(500, "INTERNAL_ERROR"),
        trouble=Cast.use_up_codes,
        made_by="create_transfer",
    ),
    "swap": Plot(
        before=Cast.offer,
        ask=Cast.ask_confirm,
        done=Standing("SOLD", "buyer", "CONFIRMED", "COMPLETED", seller=(150, 0), buyer=(350, 0)),
        undone=Standing("SOLD", "seller", "CONFIRMED", "FAILED"),
        again_undone=(409, "TRANSFER_INVALID_STATE"),
        trouble=Cast.let_seller_in,
        troubled_seat=("CHECKED_IN",),
    ),
    "dispute": Plot(
        before=Cast.sell_on,
        ask=Cast.ask_dispute,
        done=Standing("SOLD", "buyer", "CONFIRMED", "DISPUTED", seller=(0, 30), buyer=(350, 0)),
    ),
    "reverse": Plot(
        before=Cast.make_up,
        ask=Cast.ask_reverse,
        done=Standing("SOLD", "seller", "CONFIRMED", "REVERSED"),
        undone=Standing("SOLD", "buyer", "CONFIRMED", "DISPUTED", seller=(120, 30), buyer=(350, 0)),
        trouble=Cast.let_buyer_in,
        troubled_seat=("CHECKED_IN",),
        again_troubled=(409, "SEAT_UNAVAILABLE"),
    ),
    "dismiss": Plot(
        before=Cast.fall_out,
        ask=Cast.ask_dismiss,
        done=Standing("SOLD", "buyer", "CONFIRMED", "COMPLETED", seller=(30, 0), buyer=(350, 0)),
    ),
}
