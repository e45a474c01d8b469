"""The scenario of each flow: its preparation, its request, and the states in which it may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.api_client import ApiResponse
from tests.saga.crash.actors import Actors, SystemState

Request = Callable[[Actors, str], ApiResponse]
Prepare = Callable[[Actors], None]
Response = tuple[int, str | None]  # status and error code


@dataclass(frozen=True)
class CrashScenario:
    """A flow with its preparation, its request, and the state after it is done or undone.

    `cause_refusal` makes a participant refuse, so that the saga undoes its steps. The seat then has a status of
    `seat_after_refusal`. `retry_*` is the response to a retry by the client after the saga has ended. A crash before
    the step `created_by` leaves no order or transfer.
    """

    prepare: Prepare
    request: Request
    done: SystemState
    undone: SystemState | None = None
    retry_done: int = 200
    retry_undone: Response = (200, None)
    cause_refusal: Prepare | None = None
    seat_after_refusal: tuple[str, ...] = ()
    retry_refused: Response | None = None
    created_by: str | None = None
    is_flagged: bool = False


CRASH_SCENARIOS = {
    "reserve": CrashScenario(
        prepare=lambda _: None,
        request=Actors.request_reserve,
        done=SystemState("HELD", order="PENDING", seller=(200, 0)),
        undone=SystemState("AVAILABLE", order="FAILED", seller=(200, 0)),
        retry_undone=(503, "SERVICE_UNAVAILABLE"),
        cause_refusal=Actors.exhaust_otp_limit,
        created_by="create_order",
        is_flagged=True,
    ),
    "pay": CrashScenario(
        prepare=Actors.hold_seat,
        request=Actors.request_pay,
        done=SystemState("SOLD", "seller", "CONFIRMED"),
        undone=SystemState("HELD", None, "FAILED", seller=(200, 0)),  # the seat stays HELD until its TTL ends
        retry_undone=(409, "ORDER_FAILED"),
        cause_refusal=Actors.expire_hold,
        seat_after_refusal=("HELD", "AVAILABLE"),
    ),
    "refund": CrashScenario(
        prepare=Actors.buy_seat,
        request=Actors.request_refund,
        done=SystemState("AVAILABLE", None, "REFUNDED", seller=(200, 0)),
        undone=SystemState("SOLD", "seller", "CONFIRMED", seller=(0, 0)),
    ),
    "initiate": CrashScenario(
        prepare=Actors.buy_seat,
        request=Actors.request_initiate,
        done=SystemState("SOLD", "seller", "CONFIRMED", "PENDING_OTP"),
        undone=SystemState("SOLD", "seller", "CONFIRMED", "FAILED"),
        retry_done=201,
        retry_undone=(500, "INTERNAL_ERROR"),
        cause_refusal=Actors.exhaust_otp_limit,
        created_by="create_transfer",
    ),
    "transfer_confirm": CrashScenario(
        prepare=Actors.start_transfer,
        request=Actors.request_confirm,
        done=SystemState("SOLD", "buyer", "CONFIRMED", "COMPLETED", seller=(150, 0), buyer=(350, 0)),
        undone=SystemState("SOLD", "seller", "CONFIRMED", "FAILED"),
        retry_undone=(409, "TRANSFER_INVALID_STATE"),
        cause_refusal=Actors.admit_seller,
        seat_after_refusal=("CHECKED_IN",),
    ),
    "dispute": CrashScenario(
        prepare=Actors.complete_transfer,
        request=Actors.request_dispute,
        done=SystemState("SOLD", "buyer", "CONFIRMED", "DISPUTED", seller=(0, 30), buyer=(350, 0)),
    ),
    "reverse": CrashScenario(
        prepare=Actors.refund_second_seat,
        request=Actors.request_reverse,
        done=SystemState("SOLD", "seller", "CONFIRMED", "REVERSED"),
        undone=SystemState("SOLD", "buyer", "CONFIRMED", "DISPUTED", seller=(120, 30), buyer=(350, 0)),
        cause_refusal=Actors.admit_buyer,
        seat_after_refusal=("CHECKED_IN",),
        retry_refused=(409, "SEAT_UNAVAILABLE"),
    ),
    "dismiss": CrashScenario(
        prepare=Actors.dispute_transfer,
        request=Actors.request_dismiss,
        done=SystemState("SOLD", "buyer", "CONFIRMED", "COMPLETED", seller=(30, 0), buyer=(350, 0)),
    ),
}
