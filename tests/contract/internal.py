"""Scenarios that reach the documented answers of the internal calls and the fakes, beyond their examples."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from harness.api_client import ApiResponse
from harness.dev.spec_bundle import bundle
from tests.contract.credentials import CUSTOMER, Credentials
from tests.contract.exchanges import RecordingPool
from tests.contract.probes import Operation, Prober, list_operations
from tests.support.concurrency import run_concurrently
from tests.support.system import TestSystem

EVENT_1 = "e0e0e0e0-0000-0000-0000-000000000001"


class OperationClient:
    """A client that calls the operations of one server by name and asserts the status."""

    def __init__(self, server: str, url: str, credentials: Credentials, pool: RecordingPool) -> None:
        self._prober = Prober(url, credentials, pool)
        self._operations: dict[str, Operation] = {
            operation.id: operation for operation in list_operations(bundle(server))
        }

    def call(self, name: str, status: int, headers: dict[str, str] | None = None, /, **body: Any) -> None:
        """Call an operation with its example, changed by `body`. Names of path parameters go into the path.

        `only=True` sends `body` without the example.
        """
        operation = self._operations[name]
        ids = {field: body.pop(field) for field in list(body) if f"{{{field}}}" in operation.path}
        sent = body if body.pop("only", False) else {**(operation.content or ("", {}))[1], **body}
        got = self._prober.call(operation, CUSTOMER, operation.target(**ids), sent, headers)
        assert got == status, (name, status, got)


def cover_all(system: TestSystem, addresses: dict[str, str], credentials: Credentials, pool: RecordingPool) -> None:
    """Run the scenarios of every server."""
    clients = {server: OperationClient(server, url, credentials, pool) for server, url in addresses.items()}
    cover_credits(system, clients["user"])
    cover_orders(clients["order"])
    cover_transfers(clients["order"])
    cover_stripe(system, clients["stripe"], credentials)
    cover_seat_maps(clients["inventory"], pool)
    for name in ("smuSendOtp", "smuVerifyOtp", "smuSendSms", "smuSendEmail"):
        clients["smu"].call(name, 200)


def make_key() -> str:
    return f"test:{uuid4()}:1:step"


def cover_credits(system: TestSystem, user: OperationClient) -> None:
    """Charge, hold, undo and refuse. Send codes, and use the key of a top-up twice."""
    payer, poor = system.person(), system.person("0.00")
    for action, undo in (("deductCredits", "refundCredits"), ("freezeCredits", "unfreezeCredits")):
        key, never = make_key(), make_key()
        user.call(action, 200, key=key, user_id=payer.user_id, amount=5)
        user.call(undo, 200, key=key)
        user.call(undo, 200, key=never)
        user.call(action, 409, key=never, user_id=payer.user_id, amount=5)
        user.call(action, 402, key=make_key(), user_id=poor.user_id, amount=5)
    hold = make_key()
    user.call("freezeCredits", 200, key=hold, user_id=payer.user_id, amount=5)
    user.call("transferCredits", 404, key=make_key(), hold_keys=[hold], to_user_id=str(uuid4()))
    user.call("transferCredits", 200, key=make_key(), hold_keys=[hold], to_user_id=poor.user_id)
    user.call("transferCredits", 409, key=make_key(), hold_keys=[make_key()], to_user_id=poor.user_id)
    user.call("listEffects", 200)
    topup = make_key()
    user.call("startTopUp", 200, key=topup, user_id=payer.user_id, amount=5)
    user.call("startTopUp", 422, key=topup, user_id=payer.user_id, amount=6)
    with system.smu.fault("status", "/VerifyOTP", count=1):
        user.call("verifyOtpAtSmu", 503)
    user.call("notify", 200, notices=[{"user_id": payer.user_id, "message": "order_refunded"}])
    for status in (200, 200, 200, 200, 200, 429):
        user.call("sendOtp", status, user_id=poor.user_id, initiator_id=poor.user_id)
    parties = {"seller_user_id": payer.user_id, "buyer_user_id": poor.user_id, "initiator_id": payer.user_id}
    user.call("checkCredits", 200, **parties, amount=1)
    for status in (402, 402, 402, 429):
        user.call("checkCredits", status, **parties, amount=500)
    user.call("checkCredits", 404, **{**parties, "buyer_user_id": str(uuid4())}, amount=1)


def cover_orders(order: OperationClient) -> None:
    """Create, change, expire and end orders, with and without a code."""
    first, never = _create_order(order), make_key()
    order.call("getOrder", 200, order_id=first)
    order.call("listEffects", 200)
    order.call("expireOrder", 200, order_id=first)
    order.call("changeOrder", 200, only=True, order_id=first, key=never, status="FAILED")
    order.call("createOrder", 409, key=never, order_id=str(uuid4()))
    order.call("takeOrderAttempt", 409, order_id=first, key=make_key())
    order.call("changeOrder", 409, only=True, order_id=first, key=make_key(), status="CONFIRMED", charge_key=make_key())
    flagged = _create_order(order, otp_required=True)
    order.call("takeOrderAttempt", 410, order_id=flagged, key=make_key())
    order.call("changeOrder", 200, only=True, order_id=flagged, key=make_key(), verification_sid="VE1")
    keys = [make_key() for _ in range(3)]
    for key in keys:
        order.call("takeOrderAttempt", 200, order_id=flagged, key=key)
    order.call("takeOrderAttempt", 429, order_id=flagged, key=make_key())
    order.call("endOrderAttempt", 200, order_id=flagged, key=keys[0], outcome="unknown")
    order.call("endOrderAttempt", 409, order_id=flagged, key=keys[0], outcome="wrong")
    order.call("endOrderAttempt", 404, order_id=str(uuid4()), key=make_key(), outcome="wrong")


def _create_order(order: OperationClient, **fields: Any) -> str:
    order_id = str(uuid4())
    new = {"order_id": order_id, "seat_id": str(uuid4()), "user_id": str(uuid4()), "expires_at": LATER}
    order.call("createOrder", 201, key=make_key(), **{**new, **fields})
    return order_id


LATER = "2100-01-01T00:00:00Z"


def cover_transfers(order: OperationClient) -> None:
    """Take a transfer through its statuses, with the codes of both parties."""
    parties, seat, transfer = _make_parties(), str(uuid4()), str(uuid4())
    sale = _create_order(order, user_id=parties["seller_user_id"])
    order.call("changeOrder", 200, only=True, order_id=sale, key=make_key(), status="CONFIRMED", charge_key=make_key())
    new: dict[str, Any] = {"order_id": sale, "seat_id": seat, **parties}
    order.call("createTransfer", 201, key=make_key(), transfer_id=transfer, **new)
    order.call("createTransfer", 409, key=make_key(), transfer_id=str(uuid4()), **new)
    order.call("getTransfer", 200, transfer_id=transfer)
    order.call("changeTransfer", 409, only=True, transfer_id=transfer, key=make_key(), status="REVERSED")
    sids = {"seller_verification_sid": "VE1", "buyer_verification_sid": "VE2"}
    order.call("changeTransfer", 200, only=True, transfer_id=transfer, key=make_key(), status="PENDING_OTP", **sids)
    _use_attempts(order, transfer)
    order.call("changeTransfer", 200, only=True, transfer_id=transfer, key=make_key(), status="COMPLETED")
    order.call("takeTransferAttempt", 409, transfer_id=transfer, key=make_key(), party="BUYER")
    order.call("cancelTransfer", 409, transfer_id=transfer, key=make_key())
    order.call("disputeTransfer", 200, transfer_id=transfer, key=make_key())
    order.call("disputeTransfer", 409, transfer_id=transfer, key=make_key())
    open_ = str(uuid4())
    again = new | {"seat_id": str(uuid4()), "buyer_user_id": str(uuid4())}
    order.call("createTransfer", 201, key=make_key(), transfer_id=open_, **again)
    order.call("cancelTransfer", 200, transfer_id=open_, key=make_key())


def _make_parties() -> dict[str, str]:
    """Make users without an account, because these transfers are of seats that do not exist."""
    return {"seller_user_id": str(uuid4()), "buyer_user_id": str(uuid4())}


def _use_attempts(order: OperationClient, transfer: str) -> None:
    keys = [make_key() for _ in range(3)]
    for key in keys:
        order.call("takeTransferAttempt", 200, transfer_id=transfer, key=key, party="BUYER")
    order.call("takeTransferAttempt", 429, transfer_id=transfer, key=make_key(), party="BUYER")
    order.call("endTransferAttempt", 404, transfer_id=str(uuid4()), key=make_key(), party="BUYER", outcome="approved")
    order.call("endTransferAttempt", 200, transfer_id=transfer, key=keys[0], party="BUYER", outcome="approved")
    order.call("endTransferAttempt", 200, transfer_id=transfer, key=keys[1], party="BUYER", outcome="unknown")
    order.call("endTransferAttempt", 409, transfer_id=transfer, key=keys[1], party="BUYER", outcome="wrong")
    seller = make_key()
    order.call("takeTransferAttempt", 200, transfer_id=transfer, key=seller, party="SELLER")
    order.call("endTransferAttempt", 200, transfer_id=transfer, key=seller, party="SELLER", outcome="approved")


def cover_stripe(system: TestSystem, stripe: OperationClient, credentials: Credentials) -> None:
    """Pay with a declined card, with the wrong kind of key, and twice at once under one key."""
    publishable = {"Authorization": "Bearer pk_test_x"}
    made = system.person().top_up(50).must(200)["payment_intent_id"]
    stripe.call("confirmIntent", 403, publishable, intent=made)
    stripe.call("confirmIntent", 402, intent=made, payment_method="pm_card_chargeDeclined")
    stripe.call("retrieveIntent", 200, intent=made)
    stripe.call("updateIntent", 200, intent=made)
    stripe.call("confirmIntent", 200, intent=made)
    stripe.call("confirmIntent", 400, intent=made)
    abandoned = system.person().top_up(50).must(200)["payment_intent_id"]
    stripe.call("cancelIntent", 200, intent=abandoned)
    stripe.call("retrieveEvent", 200, event=_find_newest_event(system, credentials))
    for name in ("createIntent", "listIntents", "listEvents"):
        stripe.call(name, 403, publishable)
    for name in ("retrieveIntent", "updateIntent", "cancelIntent"):
        stripe.call(name, 403, publishable, intent=made)
    stripe.call("retrieveEvent", 403, publishable, event="evt_1")
    key = {"Idempotency-Key": str(uuid4()), "Authorization": f"Bearer {credentials.stripe_key}"}
    with system.stripe.fault("hang", "/v1/payment_intents", ms=700, count=1):
        answers = run_concurrently([lambda: _create_intent(system, key)] * 2)
    assert 409 in {answer.status for answer in answers}, answers


def _find_newest_event(system: TestSystem, credentials: Credentials) -> str:
    listed = system.visitor(system.stripe.url).call("GET", "/v1/events?limit=1", token=credentials.stripe_key)
    return str(listed.envelope["data"][0]["id"])


def _create_intent(system: TestSystem, headers: dict[str, str]) -> ApiResponse:
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    return system.visitor(system.stripe.url).call("POST", "/v1/payment_intents", b"amount=500&currency=sgd", form)


def cover_seat_maps(inventory: OperationClient, pool: RecordingPool) -> None:
    """Get a seat map, and 304 when it is unchanged."""
    inventory.call("getSeatMap", 200, only=True)
    etag = pool.exchanges[-1].headers["ETag"]
    inventory.call("getSeatMap", 304, {"If-None-Match": etag}, only=True)
