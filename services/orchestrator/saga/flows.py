"""Every flow as a list of steps, with their undos and the pivot after which nothing is undone.

Data only. `purchase_steps.py` and `transfer_steps.py` contain the calls, and `runner.py` runs them. docs/sagas.md
explains the rules, and docs/compensation-matrix.md lists each step with its undo.
"""

from __future__ import annotations

from services.contracts.errors import ErrorCode
from services.orchestrator.saga import purchase_steps as s
from services.orchestrator.saga import transfer_steps as t
from services.orchestrator.saga.definition import Compensation, Notice, Pivot, Saga, Step

RESERVE = Saga(
    "reserve",
    steps=(
        Step("reserve_seat", s.reserve_seat, undo=s.release_seat),
        Step("price_seat", s.price_seat, no_undo="The step only reads."),
        Step("create_order", s.create_order, undo=s.fail_order),
        Step("announce_hold", s.announce_hold, no_undo="The message of a released hold does nothing."),
        # Each try may send an SMS and counts against the phone's five in ten minutes. A failure of SMU must not lock
        # the buyer out.
        Step("send_otp", s.send_order_otp, asks=2, no_undo="The code is for this order only, which is FAILED."),
    ),
    answer=("order_id", "seat_id", "status", "held_until", "ttl_seconds", "price", "otp_required"),
    undone_code=ErrorCode.SERVICE_UNAVAILABLE,
    one_attempt=True,
)

PAY = Saga(
    "pay",
    facts=s.load_own_order,
    check=s.may_be_paid,
    steps=(
        Step("deduct_credits", s.deduct_credits, undo=s.refund_credits),
        Step("confirm_order", s.confirm_order, undo=s.fail_order),
        Pivot("confirm_seat", s.confirm_seat, settle=s.settle_seat),
    ),
    answer=("order_id", "seat_id", "event_id", "status", "credits_charged", "remaining_balance"),
    notices=(Notice("booking_confirmed", to="buyer_id"),),
    notice_fields=("order_id", "event_name", "credits_charged"),
)

REFUND = Saga(
    "refund",
    facts=s.load_sale,
    check=s.may_be_refunded,
    steps=(
        Pivot("cancel_sale", s.cancel_sale, settle=s.settle_seat),
        Step("refund_charge", s.refund_charge),
        Step("mark_refunded", s.mark_refunded),
    ),
    answer=("order_id", "status"),
    notices=(Notice("order_refunded", to="buyer_id"),),
    notice_fields=("order_id", "event_name", "price"),
)

INITIATE = Saga(
    "initiate",
    facts=t.load_seat_and_buyer,
    check=t.may_be_transferred,
    steps=(
        Step("create_transfer", t.create_transfer, undo=t.fail_transfer),
        Step("send_otps", t.send_transfer_otps, asks=2, no_undo="The codes of a FAILED transfer do nothing."),
    ),
    answer=("transfer_id", "seat_id", "status", "expires_at"),
    notices=(Notice("transfer_initiated", to="seller_user_id"), Notice("transfer_initiated", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "credits_amount"),
    one_attempt=True,
    subject_name="transfer_id",
)

TRANSFER_CONFIRM = Saga(
    "transfer_confirm",
    facts=t.load_transfer,
    check=t.is_verified,
    steps=(
        Compensation("fail_transfer", undo=t.fail_transfer),  # initiate created the transfer
        Step("hold_buyers_credits", t.hold_buyers_credits, undo=t.unfreeze_credits),
        Pivot("update_owner", t.update_owner, settle=s.settle_seat),
        Step("pay_seller", t.pay_seller),
        Step("complete_transfer", t.complete_transfer),
    ),
    answer=("transfer_id", "status", "new_owner_user_id", "credits_transferred"),
    notices=(Notice("transfer_completed", to="seller_user_id"), Notice("transfer_completed", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "amount"),
    subject_name="transfer_id",
)

DISPUTE = Saga(
    "dispute",
    facts=t.load_transfer,
    steps=(
        Pivot("dispute_transfer", t.dispute_transfer),  # first step: run forward again, or refused
        Step("freeze_what_is_left", t.freeze_what_is_left),
        Step("record_freeze", t.record_freeze),
    ),
    answer=("transfer_id", "status", "credits_frozen"),
    notices=(Notice("transfer_disputed", to="seller_user_id"), Notice("transfer_disputed", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "credits_frozen"),
    subject_name="transfer_id",
)

REVERSE = Saga(
    "reverse",
    facts=t.load_transfer,
    check=t.is_disputed,
    steps=(
        Step("freeze_the_rest", t.freeze_the_rest, undo=t.unfreeze_credits),
        Pivot("restore_owner", t.restore_owner, settle=s.settle_seat),
        Step("pay_buyer_back", t.pay_buyer_back),
        Step("mark_reversed", t.mark_reversed),
    ),
    answer=("transfer_id", "status"),
    notices=(Notice("transfer_reversed", to="seller_user_id"), Notice("transfer_reversed", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "amount"),
    subject_name="transfer_id",
)

DISMISS = Saga(
    "dismiss",
    facts=t.load_transfer,
    steps=(
        Pivot("dismiss_dispute", t.dismiss_dispute),  # first step: run forward again, or refused
        Step("unfreeze_dispute", t.unfreeze_dispute),
    ),
    answer=("transfer_id", "status"),
    subject_name="transfer_id",
)

SAGAS = {saga.flow: saga for saga in (RESERVE, PAY, REFUND, INITIATE, TRANSFER_CONFIRM, DISPUTE, REVERSE, DISMISS)}
