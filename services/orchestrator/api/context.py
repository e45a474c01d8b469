"""The objects that all routes share, and the reads and checks that several routes need."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from flask import request

from services.chassis.access import identity
from services.chassis.errors import Refused
from services.contracts.enums import OrderStatus, Role
from services.contracts.errors import ErrorCode
from services.orchestrator.api.idempotency import IdempotencyKeys, KeyedRequest, ResponseData
from services.orchestrator.api.rate_limits import ExpensiveCalls
from services.orchestrator.participants import Participants
from services.orchestrator.reserve_coalescing import ReserveCoalescer
from services.orchestrator.saga.definition import Saga
from services.orchestrator.saga.retry import retry_until
from services.orchestrator.saga.runner import Runner
from services.orchestrator.settings import Settings
from services.orchestrator.tickets.otp import OtpService
from services.orchestrator.tickets.qr import SealedQr
from services.orchestrator.tickets.scan import TicketScanner

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class ApiContext:
    """The objects that every route works with."""

    participants: Participants
    runner: Runner
    otp: OtpService
    scanner: TicketScanner
    keys: IdempotencyKeys
    coalescer: ReserveCoalescer
    settings: Settings
    expensive_calls: ExpensiveCalls = field(default_factory=lambda: ExpensiveCalls(0, 0))

    def run_idempotently(
        self,
        operation: str,
        body: Any,
        work: Callable[[UUID], ResponseData],
        resume: Callable[[UUID], ResponseData] | None = None,
        *,
        is_saga: bool = False,
    ) -> ResponseData:
        """Run `work(subject)` under the request's Idempotency-Key, if it has one. See `IdempotencyKeys.run`.

        `body` is the decoded content of the request. A retry with other content is refused.
        With `is_saga`, the work runs the saga `operation` and returns its result, of which the caller shows a part.
        """
        keyed = KeyedRequest(identity().user_id, operation, request.headers.get("Idempotency-Key"), body, is_saga)
        return self.keys.run(keyed, work, resume)

    def run_for_staff(
        self, saga: Saga, subject: UUID, given: Mapping[str, Any], dispute_number: int = 0
    ) -> Mapping[str, Any]:
        """Run a saga as a staff member, who is named in the journal, in the audit table and in one log line."""
        staff_id = str(identity().user_id)
        logger.info("staff member %s gives the command %s for %s", staff_id, saga.flow, subject)
        return self.runner.run(saga, subject, {**given, "staff_id": staff_id}, dispute_number=dispute_number)

    def retry(self, call: Callable[[], T]) -> T:
        """Return the result of `call`, with retries for as long as a saga has. Raises Refused, Unknown."""
        return retry_until(time.monotonic() + self.settings.forward_seconds, call)

    def require_self(self, user_id: UUID | None) -> None:
        """Raise Refused FORBIDDEN when the body names another user than the token."""
        if user_id is not None and user_id != identity().user_id:
            raise Refused(ErrorCode.FORBIDDEN, "The body names another user. Send your own id or leave it out.")

    def get_own_order(self, order_id: UUID) -> dict[str, Any]:
        """Read an order of the caller. Raises Refused ORDER_NOT_FOUND or FORBIDDEN."""
        order = self.retry(lambda: self.participants.orders.get(order_id))
        if order["user_id"] != str(identity().user_id):
            raise Refused(ErrorCode.FORBIDDEN, "This order belongs to another user. Use one of your own orders.")
        return order

    def get_readable_order(self, order_id: UUID) -> dict[str, Any]:
        """Read an order of the caller, or any order as staff. Raises like `get_own_order`."""
        if identity().role is Role.STAFF:
            return self.retry(lambda: self.participants.orders.get(order_id))
        return self.get_own_order(order_id)

    def find_order_awaiting_code(self) -> UUID:
        """Return the caller's newest order that waits for a code. Raises Refused ORDER_NOT_FOUND."""
        query = {"user_id": identity().user_id, "status": OrderStatus.PENDING, "per_page": 20}
        pending = self.retry(lambda: self.participants.orders.list_orders(**query))["data"]
        waiting = [order for order in pending if order["otp_required"] and not order["otp_verified_at"]]
        if not waiting:
            raise Refused(ErrorCode.ORDER_NOT_FOUND, "None of your orders waits for a code. Reserve a seat first.")
        return UUID(waiting[0]["order_id"])

    def get_own_transfer(self, transfer_id: UUID) -> dict[str, Any]:
        """Read a transfer of which the caller is a party. Raises Refused TRANSFER_NOT_FOUND or FORBIDDEN."""
        transfer = self.retry(lambda: self.participants.orders.get_transfer(transfer_id))
        if str(identity().user_id) not in (transfer["seller_user_id"], transfer["buyer_user_id"]):
            raise Refused(ErrorCode.FORBIDDEN, "You are not a party of this transfer. Log in as its seller or buyer.")
        return transfer

    def get_readable_transfer(self, transfer_id: UUID) -> dict[str, Any]:
        """Read a transfer of the caller, or any transfer as staff. Raises like `get_own_transfer`."""
        if identity().role is Role.STAFF:
            return self.retry(lambda: self.participants.orders.get_transfer(transfer_id))
        return self.get_own_transfer(transfer_id)

    def get_booking_qr(self, paid: Mapping[str, Any]) -> dict[str, Any]:
        """Return the QR code of a confirmed booking.

        The first response has the QR code whose hash the seat stores. A replayed response gets a new one, because the
        first has expired.
        """
        qr: SealedQr | None = paid.get("qr")
        if qr is None:
            hall_id = self.participants.events.get(paid["event_id"])["hall_id"]
            qr = self.participants.seal.seal(paid["seat_id"], identity().user_id, hall_id)
        return {"qr_payload": qr.payload, "expires_at": qr.expires_at}
