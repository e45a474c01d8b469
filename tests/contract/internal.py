"""What the documented answers of the internal calls and the stand-ins need beyond their examples."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from harness.dev.spec_bundle import bundle
from tests.contract.callers import CUSTOMER, Callers
from tests.contract.exchanges import Listening
from tests.contract.probes import Operation, Prober, all_of
from tests.contract.scenarios import run_concurrently
from tests.support.system import TestSystem

EVENT_1 = "e0e0e0e0-0000-0000-0000-000000000001"


class Desk:
    """Asks one server's operations by name, and insists on the status."""

    def __init__(self, server: str, url: str, callers: Callers, pool: Listening) -> None:
        self._prober = Prober(url, callers, pool)
        self._operations: dict[str, Operation] = {operation.id: operation for operation in all_of(bundle(server))}

    def ask(self, name: str, status: int, headers: dict[str, str] | None = None, /, **body: Any) -> None:
        """`body` laid over the example; names of path parameters go there."""
        operation = self._operations[name]
        ids = {field: body.pop(field) for field in list(body) if f"{{{field}}}" in operation.path}
        sent = body if body.pop("only", False) else {**(operation.content or ("", {}))[1], **body}
        got = self._prober.ask(operation, CUSTOMER, operation.target(**ids), sent, headers)
        assert got == status, (name, status, got)


def play(system: TestSystem, addresses: dict[str, str], callers: Callers, pool: Listening) -> None:
    """Every server."""
    desks = {server: Desk(server, url, callers, pool) for server, url in addresses.items()}
    credits(system, desks["user"])
    orders(desks["order"])
    transfers(desks["order"])
    stripe(system, desks["stripe"], callers)
    maps(desks["inventory"], pool)
    for name in ("smuSendOtp", "smuVerifyOtp", "smuSendSms", "smuSendEmail"):
        desks["smu"].ask(name, 200)


def a_key() -> str:
    return f"test:{uuid4()}:1:step"


def credits(system: TestSystem, user: Desk) -> None:
    """Charges and holds, undone and refused; codes; a top-up's key used twice."""
    payer, poor = system.person(), system.person("0.00")
    for do, undo in (("deductCredits", "refundCredits"), ("freezeCredits", "unfreezeCredits")):
        key, never = a_key(), a_key()
        user.ask(do, 200, key=key, user_id=payer.user_id, amount=5)
        user.ask(undo, 200, key=key)
        user.ask(undo, 200, key=never)
        user.ask(do, 409, key=never, user_id=payer.user_id, amount=5)
        user.ask(do, 402, key=a_key(), user_id=poor.user_id, amount=5)
    hold = a_key()
    user.ask("freezeCredits", 200, key=hold, user_id=payer.user_id, amount=5)
    user.ask("transferCredits", 404, key=a_key(), hold_keys=[hold], to_user_id=str(uuid4()))
    user.ask("transferCredits", 200, key=a_key(), hold_keys=[hold], to_user_id=poor.user_id)
    user.ask("transferCredits", 409, key=a_key(), hold_keys=[a_key()], to_user_id=poor.user_id)
    topup = a_key()
    user.ask("startTopUp", 200, key=topup, user_id=payer.user_id, amount=5)
    user.ask("startTopUp", 422, key=topup, user_id=payer.user_id, amount=6)
    with system.smu.fault("status", "/VerifyOTP", count=1):
        user.ask("verifyOtpAtSmu", 503)
    user.ask("notify", 200, user_id=payer.user_id)
    for status in (200, 200, 200, 200, 200, 429):
        user.ask("sendOtp", status, user_id=poor.user_id)


def orders(order: Desk) -> None:
    """An order's life, and its code."""
    first, never = _order(order), a_key()
    order.ask("getOrder", 200, order_id=first)
    order.ask("expireOrder", 200, order_id=first)
    order.ask("changeOrder", 200, only=True, order_id=first, key=never, status="FAILED")
    order.ask("createOrder", 409, key=never, order_id=str(uuid4()))
    order.ask("takeOrderAttempt", 409, order_id=first, key=a_key())
    order.ask("changeOrder", 409, only=True, order_id=first, key=a_key(), status="CONFIRMED", charge_key=a_key())
    flagged = _order(order, otp_required=True)
    order.ask("takeOrderAttempt", 410, order_id=flagged, key=a_key())
    order.ask("changeOrder", 200, only=True, order_id=flagged, key=a_key(), verification_sid="VE1")
    keys = [a_key() for _ in range(3)]
    for key in keys:
        order.ask("takeOrderAttempt", 200, order_id=flagged, key=key)
    order.ask("takeOrderAttempt", 429, order_id=flagged, key=a_key())
    order.ask("endOrderAttempt", 200, order_id=flagged, key=keys[0], outcome="unknown")
    order.ask("endOrderAttempt", 409, order_id=flagged, key=keys[0], outcome="wrong")
    order.ask("endOrderAttempt", 404, order_id=str(uuid4()), key=a_key(), outcome="wrong")


def _order(order: Desk, **fields: Any) -> str:
    order_id = str(uuid4())
    new = {"order_id": order_id, "seat_id": str(uuid4()), "user_id": str(uuid4()), "expires_at": LATER}
    order.ask("createOrder", 201, key=a_key(), **new, **fields)
    return order_id


LATER = "2100-01-01T00:00:00Z"


def transfers(order: Desk) -> None:
    """A transfer's life, and its codes."""
    sale, seat, transfer = _order(order), str(uuid4()), str(uuid4())
    new: dict[str, Any] = {"order_id": sale, "seat_id": seat, **_parties()}
    order.ask("createTransfer", 201, key=a_key(), transfer_id=transfer, **new)
    order.ask("createTransfer", 409, key=a_key(), transfer_id=str(uuid4()), **new)
    order.ask("getTransfer", 200, transfer_id=transfer)
    order.ask("changeTransfer", 409, only=True, transfer_id=transfer, key=a_key(), status="REVERSED")
    sids = {"seller_verification_sid": "VE1", "buyer_verification_sid": "VE2"}
    order.ask("changeTransfer", 200, only=True, transfer_id=transfer, key=a_key(), status="PENDING_OTP", **sids)
    _attempts(order, transfer)
    order.ask("changeTransfer", 200, only=True, transfer_id=transfer, key=a_key(), status="COMPLETED")
    order.ask("takeTransferAttempt", 409, transfer_id=transfer, key=a_key(), party="BUYER")
    order.ask("cancelTransfer", 409, transfer_id=transfer, key=a_key())
    order.ask("changeOrder", 200, only=True, order_id=sale, key=a_key(), status="CONFIRMED", charge_key=a_key())
    order.ask("disputeTransfer", 200, transfer_id=transfer, key=a_key())
    order.ask("disputeTransfer", 409, transfer_id=transfer, key=a_key())
    open_ = str(uuid4())
    order.ask("createTransfer", 201, key=a_key(), transfer_id=open_, order_id=sale, seat_id=str(uuid4()), **_parties())
    order.ask("cancelTransfer", 200, transfer_id=open_, key=a_key())


def _parties() -> dict[str, str]:
    """People whose tickets nobody will ever list: these transfers are of seats that are not there."""
    return {"seller_user_id": str(uuid4()), "buyer_user_id": str(uuid4())}


def _attempts(order: Desk, transfer: str) -> None:
    keys = [a_key() for _ in range(3)]
    for key in keys:
        order.ask("takeTransferAttempt", 200, transfer_id=transfer, key=key, party="BUYER")
    order.ask("takeTransferAttempt", 429, transfer_id=transfer, key=a_key(), party="BUYER")
    order.ask("endTransferAttempt", 404, transfer_id=str(uuid4()), key=a_key(), party="BUYER", outcome="approved")
    order.ask("endTransferAttempt", 200, transfer_id=transfer, key=keys[0], party="BUYER", outcome="approved")
    order.ask("endTransferAttempt", 200, transfer_id=transfer, key=keys[1], party="BUYER", outcome="unknown")
    order.ask("endTransferAttempt", 409, transfer_id=transfer, key=keys[1], party="BUYER", outcome="wrong")
    seller = a_key()
    order.ask("takeTransferAttempt", 200, transfer_id=transfer, key=seller, party="SELLER")
    order.ask("endTransferAttempt", 200, transfer_id=transfer, key=seller, party="SELLER", outcome="approved")


def stripe(system: TestSystem, desk: Desk, callers: Callers) -> None:
    """Declined, with the wrong kind of key, twice at once."""
    publishable = {"Authorization": "Bearer pk_test_x"}
    made = system.person().top_up(50).must(200)["payment_intent_id"]
    desk.ask("confirmIntent", 403, publishable, intent=made)
    desk.ask("confirmIntent", 402, intent=made, payment_method="pm_card_chargeDeclined")
    desk.ask("retrieveIntent", 200, intent=made)
    desk.ask("updateIntent", 200, intent=made)
    desk.ask("confirmIntent", 200, intent=made)
    desk.ask("confirmIntent", 400, intent=made)
    abandoned = system.person().top_up(50).must(200)["payment_intent_id"]
    desk.ask("cancelIntent", 200, intent=abandoned)
    desk.ask("retrieveEvent", 200, event=_newest_event(system, callers))
    for name in ("createIntent", "listIntents", "listEvents"):
        desk.ask(name, 403, publishable)
    for name in ("retrieveIntent", "updateIntent", "cancelIntent"):
        desk.ask(name, 403, publishable, intent=made)
    desk.ask("retrieveEvent", 403, publishable, event="evt_1")
    key = {"Idempotency-Key": str(uuid4()), "Authorization": f"Bearer {callers.stripe_key}"}
    with system.stripe.fault("hang", "/v1/payment_intents", ms=700, count=1):
        town_pool = [lambda: _made(system, key), lambda: _made(system, key)]
        assert 409 in run_concurrently(*town_pool)


def _newest_event(system: TestSystem, callers: Callers) -> str:
    listed = system.visitor(system.stripe.url).call("GET", "/v1/events?limit=1", token=callers.stripe_key)
    return str(listed.envelope["data"][0]["id"])


def _made(system: TestSystem, headers: dict[str, str]) -> Any:
    form = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
    return system.visitor(system.stripe.url).call("POST", "/v1/payment_intents", b"amount=500&currency=sgd", form)


def maps(inventory: Desk, pool: Listening) -> None:
    """A seat map, and nothing new about it."""
    inventory.ask("getSeatMap", 200, only=True)
    known = pool.heard[-1].headers["ETag"]
    inventory.ask("getSeatMap", 304, {"If-None-Match": known}, only=True)
