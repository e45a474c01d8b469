"""Routes of scenario 2 (§6): initiate, confirm, cancel and dispute a transfer. Staff decide disputes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response

from services.chassis import web
from services.chassis.access import identity, paying_customer, signed_in, support_staff
from services.chassis.errors import Refused
from services.contracts.enums import Role, TransferStatus
from services.contracts.errors import ErrorCode
from services.contracts.money import Amount
from services.orchestrator.api.context import ApiContext
from services.orchestrator.api.purchase import OtpCode, refuse_unless_awaiting_code
from services.orchestrator.saga.definition import Saga
from services.orchestrator.saga.flows import DISMISS, DISPUTE, INITIATE, REVERSE, TRANSFER_CONFIRM
from services.orchestrator.tickets.otp import read_otp_code


class InitiateBody(msgspec.Struct):
    seat_id: UUID
    seller_user_id: UUID
    buyer_user_id: UUID
    credits_amount: Amount


class ConfirmBody(msgspec.Struct):
    transfer_id: UUID
    seller_otp: OtpCode | None = None
    buyer_otp: OtpCode | None = None

    def __post_init__(self) -> None:
        self.seller_otp = None if self.seller_otp is None else read_otp_code(self.seller_otp)
        self.buyer_otp = None if self.buyer_otp is None else read_otp_code(self.buyer_otp)


class TransferBody(msgspec.Struct):
    transfer_id: UUID


class DisputeBody(msgspec.Struct):
    transfer_id: UUID
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class ResendBody(msgspec.Struct):
    order_id: UUID | None = None
    transfer_id: UUID | None = None


def blueprint(context: ApiContext) -> Blueprint:
    """Create the routes of scenario 2."""
    routes = Blueprint("transfer", __name__)

    @routes.post("/api/transfer/initiate")
    @paying_customer
    def initiate() -> Response:
        context.expensive_calls.count()
        body = web.body(InitiateBody)
        _require_two_parties(body)
        initiated = context.run_idempotently(
            INITIATE.flow, body, lambda transfer_id: _initiate(context, transfer_id, body), is_saga=True
        )
        return web.ok({name: initiated[name] for name in INITIATE.result_fields}, 201)

    @routes.post("/api/transfer/confirm")
    @paying_customer
    def confirm() -> Response:
        context.expensive_calls.count()
        body = web.body(ConfirmBody)
        transfer = context.get_own_transfer(body.transfer_id)
        return web.ok(_confirm(context, transfer, body))

    @routes.post("/api/transfer/cancel")
    @paying_customer
    def cancel() -> Response:
        transfer_id = web.body(TransferBody).transfer_id
        context.get_own_transfer(transfer_id)
        context.participants.orders.cancel_transfer(transfer_id, f"cancel:{transfer_id}:1:cancel")
        return web.ok({"transfer_id": transfer_id, "status": TransferStatus.FAILED})

    @routes.post("/api/transfer/dispute")
    @paying_customer
    def dispute() -> Response:
        body = web.body(DisputeBody)
        transfer = context.get_own_transfer(body.transfer_id)
        dispute_number = transfer["dispute_count"] + (transfer["status"] != TransferStatus.DISPUTED)
        given = {"transfer_id": str(body.transfer_id), "reason": body.reason}
        return _run(context, DISPUTE, body.transfer_id, given, dispute_number)

    @routes.post("/api/transfer/reverse")
    @support_staff
    def reverse() -> Response:
        return _decide(context, REVERSE, web.body(TransferBody).transfer_id)

    @routes.post("/api/transfer/dismiss")
    @support_staff
    def dismiss() -> Response:
        return _decide(context, DISMISS, web.body(TransferBody).transfer_id)

    @routes.get("/api/transfers")
    @signed_in
    def transfers() -> Response:
        page, per_page = web.page()
        is_staff = identity().role is Role.STAFF
        which = {"status": TransferStatus.DISPUTED} if is_staff else {"user_id": identity().user_id}
        found = context.participants.orders.list_transfers(**which, page=page, per_page=per_page)
        return web.ok([_show_transfer(transfer) for transfer in found["data"]], pagination=found["pagination"])

    @routes.get("/api/transfers/<transfer_id>")
    @signed_in
    def transfer(transfer_id: str) -> Response:
        return web.ok(_show_transfer(context.get_readable_transfer(web.as_id(transfer_id))))

    @routes.post("/api/otp/resend")
    @paying_customer
    def resend() -> Response:
        context.expensive_calls.count()
        _resend(context, web.body(ResendBody))
        return web.ok({"sent": True})

    return routes


def _require_two_parties(body: InitiateBody) -> None:
    if identity().user_id not in (body.seller_user_id, body.buyer_user_id):
        raise Refused(ErrorCode.FORBIDDEN, "Only the seller or the buyer can start a transfer. Log in as one of them.")
    if body.seller_user_id == body.buyer_user_id:
        raise Refused(ErrorCode.SELF_TRANSFER)


def _initiate(context: ApiContext, transfer_id: UUID, body: InitiateBody) -> Mapping[str, Any]:
    initiator = "SELLER" if identity().user_id == body.seller_user_id else "BUYER"
    given: dict[str, Any] = {name: str(getattr(body, name)) for name in ("seat_id", "seller_user_id", "buyer_user_id")}
    given |= {"transfer_id": str(transfer_id), "initiated_by": initiator, "credits_amount": body.credits_amount}
    given["resale_max_multiple"] = context.settings.resale_max_multiple
    return context.runner.run(INITIATE, transfer_id, given, caller=identity().user_id)


def _confirm(context: ApiContext, transfer: Mapping[str, Any], body: ConfirmBody) -> Mapping[str, Any]:
    if body.seller_otp is None and body.buyer_otp is None:
        raise Refused(ErrorCode.VALIDATION_ERROR, "Send seller_otp, buyer_otp, or both.")
    target, caller_id = f"transfers/{body.transfer_id}", str(identity().user_id)
    verified = dict(transfer)
    for party, code in (("SELLER", body.seller_otp), ("BUYER", body.buyer_otp)):
        if code is not None and transfer["status"] != TransferStatus.COMPLETED:
            own_user_id = caller_id if transfer[f"{party.lower()}_user_id"] == caller_id else None
            verified |= context.otp.verify(target, code, own_user_id, party=party, caller_id=caller_id)
    shown = {"transfer_id": body.transfer_id, "status": transfer["status"]}
    shown |= {name: verified[name] for name in ("seller_otp_verified", "buyer_otp_verified")}
    if verified["seller_otp_verified"] and verified["buyer_otp_verified"]:
        confirmed = context.runner.run(TRANSFER_CONFIRM, body.transfer_id, {"transfer_id": str(body.transfer_id)})
        shown |= {name: confirmed[name] for name in TRANSFER_CONFIRM.result_fields}
    return shown


def _decide(context: ApiContext, saga: Saga, transfer_id: UUID) -> Response:
    transfer = context.retry(lambda: context.participants.orders.get_transfer(transfer_id))
    given = {"transfer_id": str(transfer_id)}
    result = context.run_for_staff(saga, transfer_id, given, transfer["dispute_count"])
    return web.ok({name: result[name] for name in saga.result_fields})


def _run(context: ApiContext, saga: Saga, transfer_id: UUID, given: Mapping[str, Any], dispute_number: int) -> Response:
    result = context.runner.run(saga, transfer_id, given, dispute_number=dispute_number)
    return web.ok({name: result[name] for name in saga.result_fields})


def _resend(context: ApiContext, body: ResendBody) -> None:
    if (body.order_id is None) == (body.transfer_id is None):
        raise Refused(ErrorCode.VALIDATION_ERROR, "Send either order_id or transfer_id.")
    if body.order_id is not None:
        refuse_unless_awaiting_code(context.get_own_order(body.order_id))
        context.otp.resend(f"orders/{body.order_id}", identity().user_id, "verification_sid")
    elif body.transfer_id is not None:
        transfer = context.get_own_transfer(body.transfer_id)
        party = "seller" if transfer["seller_user_id"] == str(identity().user_id) else "buyer"
        if transfer["status"] != TransferStatus.PENDING_OTP or transfer[f"{party}_otp_verified"]:
            raise Refused(
                ErrorCode.TRANSFER_INVALID_STATE, "This transfer does not wait for a code from you. Check its status."
            )
        context.otp.resend(f"transfers/{body.transfer_id}", identity().user_id, f"{party}_verification_sid")


_PUBLIC = (
    "transfer_id",
    "seat_id",
    "seller_user_id",
    "buyer_user_id",
    "initiated_by",
    "status",
    "seller_otp_verified",
    "buyer_otp_verified",
    "credits_amount",
    "credits_frozen",
    "dispute_reason",
    "expires_at",
    "created_at",
    "completed_at",
)


def _show_transfer(transfer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: transfer.get(name) for name in _PUBLIC}
