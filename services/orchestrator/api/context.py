"""What the routes share: the participants, the runner, and questions that several of them ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from flask import request

from services.chassis.access import identity
from services.chassis.errors import Refused
from services.contracts.enums import OrderStatus
from services.contracts.errors import ErrorCode
from services.orchestrator.api.idempotency import Answer, IdempotencyKeys, Request
from services.orchestrator.participants import Participants
from services.orchestrator.reserve_coalescing import Crowds
from services.orchestrator.saga.retry import ask
from services.orchestrator.saga.runner import Runner
from services.orchestrator.settings import Settings
from services.orchestrator.tickets.otp import OtpDesk
from services.orchestrator.tickets.qr import Sealed
from services.orchestrator.tickets.scan import Gate

T = TypeVar("T")


@dataclass(frozen=True)
class Desk:
    """The composition that every route works with."""

    to: Participants
    runner: Runner
    otp: OtpDesk
    gate: Gate
    keys: IdempotencyKeys
    crowds: Crowds
    settings: Settings

    def idempotent(
        self, operation: str, work: Callable[[UUID], Answer], again: Callable[[UUID], Answer] | None = None
    ) -> Answer:
        """Run `work(subject)` under the request's Idempotency-Key, if it has one; see `IdempotencyKeys.answer`."""
        key = request.headers.get("Idempotency-Key")
        asked = Request(identity().user_id, operation, key, request.get_data(cache=True))
        return self.keys.answer(asked, work, again)

    def patiently(self, call: Callable[[], T]) -> T:
        """What `call` answers, asked again for as long as a saga would. Raises Refused, Unknown."""
        return ask(call, time.monotonic() + self.settings.forward_seconds)

    def require_self(self, user_id: UUID | None) -> None:
        """Raise Refused FORBIDDEN when the body names somebody else."""
        if user_id is not None and user_id != identity().user_id:
            raise Refused(ErrorCode.FORBIDDEN, "The body names somebody else; leave the id out or send your own.")

    def own_order(self, order_id: UUID) -> dict[str, Any]:
        """An order of the caller's. Raises Refused ORDER_NOT_FOUND or FORBIDDEN."""
        order = self.patiently(lambda: self.to.orders.get(order_id))
        if order["user_id"] != str(identity().user_id):
            raise Refused(ErrorCode.FORBIDDEN, "This order is not yours.")
        return order

    def order_awaiting_code(self) -> UUID:
        """The caller's newest order that waits for a code. Raises Refused ORDER_NOT_FOUND."""
        pending = self.to.orders.page(user_id=identity().user_id, status=OrderStatus.PENDING, per_page=20)["data"]
        waiting = [order for order in pending if order["otp_required"] and not order["otp_verified_at"]]
        if not waiting:
            raise Refused(ErrorCode.ORDER_NOT_FOUND, "No order of yours waits for a code.")
        return UUID(waiting[0]["order_id"])

    def own_transfer(self, transfer_id: UUID) -> dict[str, Any]:
        """A transfer that the caller is a party of. Raises Refused TRANSFER_NOT_FOUND or FORBIDDEN."""
        transfer = self.patiently(lambda: self.to.orders.get_transfer(transfer_id))
        if str(identity().user_id) not in (transfer["seller_user_id"], transfer["buyer_user_id"]):
            raise Refused(ErrorCode.FORBIDDEN, "You are not a party of this transfer.")
        return transfer

    def first_qr(self, paid: Mapping[str, Any]) -> dict[str, Any]:
        """The QR that goes with a confirmed booking: the one whose hash the seat keeps, or, for an answer that is
        given again, a fresh one (the first has aged)."""
        sealed: Sealed | None = paid.get("qr")
        if sealed is None:
            hall_id = self.to.events.get(paid["event_id"])["hall_id"]
            sealed = self.to.seal.seal(paid["seat_id"], identity().user_id, hall_id)
        return {"qr_payload": sealed.payload, "expires_at": sealed.expires_at}
