"""Money in: a PaymentIntent for the payer's browser, and Stripe's word that it was paid."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta

from services.chassis import access, web
from services.chassis.db import Database
from services.contracts.money import Amount
from services.user.payments import CURRENCY, Payment, Payments
from services.user.store import accounts, topups

logger = logging.getLogger(__name__)

LEAST, MOST = Decimal("0.50"), Decimal("10000.00")  # SGD; Stripe charges no less


class TopUp(msgspec.Struct, forbid_unknown_fields=True):
    key: Annotated[str, Meta(max_length=200, pattern=r"\A[!-~]+\Z")]  # Stripe's idempotency key: a header, up to 255
    user_id: UUID
    amount: Amount

    def __post_init__(self) -> None:
        if not LEAST <= self.amount <= MOST:
            raise ValueError(f"a top-up is {LEAST} to {MOST} SGD")


def topup_routes(db: Database, payments: Payments) -> Blueprint:
    """The internal call that starts a top-up, the public one that ends it."""
    routes = Blueprint("topup", __name__)

    @routes.post("/credits/topup")
    @access.internal("orchestrator-service")
    def topup() -> Response:
        return web.ok(_start(db, payments, web.body(TopUp)))

    @routes.post("/api/webhooks/stripe")
    @access.public  # the signature over the raw body is what admits it
    def webhook() -> Response:
        payment = payments.payment(request.get_data(), request.headers.get("Stripe-Signature"))
        if payment is not None:
            _credit(db, payment)
        return web.ok({"received": True})

    return routes


def _start(db: Database, payments: Payments, asked: TopUp) -> dict[str, Any]:
    accounts.get(db, asked.user_id)
    intent = payments.create(asked.key, asked.user_id, asked.amount)
    logger.info("User %s tops up %s credits by %s", asked.user_id, asked.amount, intent.payment_intent_id)
    made = {"payment_intent_id": intent.payment_intent_id, "client_secret": intent.client_secret}
    return {**made, "amount": asked.amount, "currency": CURRENCY}


def _credit(db: Database, payment: Payment) -> None:
    try:
        added = topups.credit(db, payment.event_id, payment.payment_intent_id, payment.user_id, payment.amount)
    except topups.UnknownPayer:
        # Acknowledged: sending it again would not find the user either. Somebody has to look at it.
        logger.error("%s paid %s for an unknown user", payment.payment_intent_id, payment.amount)
        return
    if added:
        logger.info("User %s was credited %s by %s", payment.user_id, payment.amount, payment.payment_intent_id)
    else:
        logger.info("%s was credited before", payment.payment_intent_id)
