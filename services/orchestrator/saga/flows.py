"""Every flow as a list of steps: the calls, their undos, and the pivot.

This module is data only. `purchase_steps.py` and `transfer_steps.py` contain the calls, and `runner.py` runs them.
docs/sagas.md explains the rules. docs/compensation-matrix.md shows each step with its undo and the end state.
"""

from __future__ import annotations

from services.contracts.errors import ErrorCode
from services.orchestrator.participants import Need
from services.orchestrator.saga.definition import Compensation, Notice, Pivot, Saga, Step
from services.orchestrator.saga.purchase_steps import (
    cancel_sale,
    confirm_order,
    confirm_seat,
    create_order,
    deduct_credits,
    fail_order,
    load_own_order,
    load_sale,
    mark_refunded,
    price_seat,
    publish_hold_message,
    refund_charge,
    refund_credits,
    release_seat,
    replace_failed_hold,
    require_payable,
    require_refundable,
    reserve_seat,
    send_order_otp,
    settle_seat,
)
from services.orchestrator.saga.transfer_steps import (
    check_buyers_credits,
    complete_transfer,
    create_transfer,
    dismiss_dispute,
    dispute_transfer,
    fail_transfer,
    freeze_the_rest,
    freeze_what_is_left,
    hold_buyers_credits,
    load_seat,
    load_transfer,
    load_transfer_and_seat,
    mark_reversed,
    pay_buyer_back,
    pay_seller,
    record_freeze,
    require_disputed,
    require_transferable,
    require_verified,
    restore_owner,
    send_transfer_otps,
    unfreeze_credits,
    unfreeze_dispute,
    update_owner,
)

RESERVE = Saga(
    "reserve",
    steps=(
        Step("reserve_seat", reserve_seat, undo=release_seat),
        Step("replace_failed_hold", replace_failed_hold, no_undo="The undo of `reserve_seat` releases this hold too."),
        Step("price_seat", price_seat, no_undo="The step only reads."),
        Step("create_order", create_order, undo=fail_order, stored_by=Need.ORDERS),
        Step("publish_hold_message", publish_hold_message, no_undo="The message of a released hold does nothing."),
        # Each try may send an SMS, and a phone gets five in ten minutes. More than two tries during an outage of SMU
        # would lock the buyer out.
        Step("send_otp", send_order_otp, max_tries=2, no_undo="The code is for this order only, which is FAILED."),
    ),
    needs=(Need.INVENTORY, Need.USERS, Need.ORDERS, Need.BROKER),
    result_fields=("order_id", "seat_id", "event_id", "status", "held_until", "ttl_seconds", "price", "otp_required"),
    undone_code=ErrorCode.SERVICE_UNAVAILABLE,
    one_attempt=True,
)

PAY = Saga(
    "pay",
    facts=load_own_order,
    check=require_payable,
    steps=(
        Step("deduct_credits", deduct_credits, undo=refund_credits, stored_by=Need.USERS),
        Step("confirm_order", confirm_order, undo=fail_order, stored_by=Need.ORDERS),
        Pivot("confirm_seat", confirm_seat, settle=settle_seat, stored_by=Need.INVENTORY),
    ),
    needs=(Need.USERS, Need.ORDERS, Need.INVENTORY),
    result_fields=("order_id", "seat_id", "event_id", "status", "credits_charged", "remaining_balance"),
    undone_message="The payment failed and was undone, so nothing was charged. Reserve the seat again, then pay.",
    notices=(Notice("booking_confirmed", to="buyer_id"),),
    notice_fields=("order_id", "event_name", "credits_charged"),
)

REFUND = Saga(
    "refund",
    facts=load_sale,
    check=require_refundable,
    steps=(
        Pivot("cancel_sale", cancel_sale, settle=settle_seat, stored_by=Need.INVENTORY),
        Step("refund_charge", refund_charge),
        Step("mark_refunded", mark_refunded, stored_by=Need.ORDERS),
    ),
    needs=(Need.ORDERS, Need.INVENTORY, Need.USERS),
    result_fields=("order_id", "status"),
    notices=(Notice("order_refunded", to="buyer_id"),),
    notice_fields=("order_id", "event_name", "price"),
)

INITIATE = Saga(
    "initiate",
    facts=load_seat,
    check=require_transferable,
    steps=(
        Step(
            "check_buyers_credits", check_buyers_credits, no_undo="The step only reads. Its refusals count for a day."
        ),
        Step("create_transfer", create_transfer, undo=fail_transfer, stored_by=Need.ORDERS),
        Step("send_otps", send_transfer_otps, max_tries=2, no_undo="The codes of a FAILED transfer do nothing."),
    ),
    needs=(Need.INVENTORY, Need.USERS, Need.ORDERS, Need.SMU),
    result_fields=("transfer_id", "seat_id", "status", "expires_at"),
    notices=(Notice("transfer_initiated", to="seller_user_id"), Notice("transfer_initiated", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "credits_amount", "seller", "buyer"),
    one_attempt=True,
    subject_name="transfer_id",
)

TRANSFER_CONFIRM = Saga(
    "transfer_confirm",
    facts=load_transfer,
    check=require_verified,
    steps=(
        Compensation("fail_transfer", undo=fail_transfer),  # initiate created the transfer
        Step("hold_buyers_credits", hold_buyers_credits, undo=unfreeze_credits, stored_by=Need.USERS),
        Pivot("update_owner", update_owner, settle=settle_seat, stored_by=Need.INVENTORY),
        Step("pay_seller", pay_seller, stored_by=Need.USERS),
        Step("complete_transfer", complete_transfer, stored_by=Need.ORDERS),
    ),
    needs=(Need.ORDERS, Need.USERS, Need.INVENTORY),
    result_fields=("transfer_id", "status", "new_owner_user_id", "credits_transferred"),
    undone_message="The transfer failed and was undone, so no credits were moved. Start a new transfer.",
    notices=(Notice("transfer_completed", to="seller_user_id"), Notice("transfer_completed", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "amount"),
    subject_name="transfer_id",
)

DISPUTE = Saga(
    "dispute",
    facts=load_transfer_and_seat,
    steps=(
        Pivot("dispute_transfer", dispute_transfer, stored_by=Need.ORDERS),  # first step: run forward again, or refused
        Step("freeze_what_is_left", freeze_what_is_left, stored_by=Need.USERS),
        Step("record_freeze", record_freeze, stored_by=Need.ORDERS),
    ),
    needs=(Need.ORDERS, Need.USERS, Need.INVENTORY),
    result_fields=("transfer_id", "status", "credits_frozen"),
    notices=(Notice("transfer_disputed", to="seller_user_id"), Notice("transfer_disputed", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "credits_frozen"),
    subject_name="transfer_id",
)

REVERSE = Saga(
    "reverse",
    facts=load_transfer,
    check=require_disputed,
    steps=(
        Step("freeze_the_rest", freeze_the_rest, undo=unfreeze_credits, stored_by=Need.USERS),
        Pivot("restore_owner", restore_owner, settle=settle_seat, stored_by=Need.INVENTORY),
        Step("pay_buyer_back", pay_buyer_back, stored_by=Need.USERS),
        Step("mark_reversed", mark_reversed, stored_by=Need.ORDERS),
    ),
    needs=(Need.ORDERS, Need.USERS, Need.INVENTORY),
    result_fields=("transfer_id", "status"),
    notices=(Notice("transfer_reversed", to="seller_user_id"), Notice("transfer_reversed", to="buyer_user_id")),
    notice_fields=("transfer_id", "event_name", "amount"),
    subject_name="transfer_id",
)

DISMISS = Saga(
    "dismiss",
    facts=load_transfer,
    steps=(
        Pivot("dismiss_dispute", dismiss_dispute, stored_by=Need.ORDERS),  # first step: run forward again, or refused
        Step("unfreeze_dispute", unfreeze_dispute),
    ),
    needs=(Need.ORDERS, Need.USERS),
    result_fields=("transfer_id", "status"),
    subject_name="transfer_id",
)

SAGAS = {saga.flow: saga for saga in (RESERVE, PAY, REFUND, INITIATE, TRANSFER_CONFIRM, DISPUTE, REVERSE, DISMISS)}
