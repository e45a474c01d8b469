"""Routes for top-ups: a PaymentIntent for the payer's browser, and Stripe's webhook that reports its payment."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta
from prometheus_client import Counter

from services.chassis import access, web
from services.chassis.db import Database
from services.contracts.money import Amount
from services.user.payments import Payments
from services.user.store import accounts, reversals, topups
from services.user.store.reversals import Claim
from services.user.stripe_events import CURRENCY, Payment

logger = logging.getLogger(__name__)
REVERSALS = Counter("payment_reversals_total", "Refunds, disputes and cancellations by Stripe", ["kind", "outcome"])

_KEY = re.compile(r"[!-~]+")
MIN_AMOUNT, MAX_AMOUNT = Decimal("0.50"), Decimal("10000.00")  # SGD. The minimum is Stripe's.


class TopUpRequest(msgspec.Struct, forbid_unknown_fields=True):
    key: Annotated[str, Meta(max_length=200)]  # Stripe's idempotency key, a header of at most 255 characters
    user_id: UUID
    amount: Amount

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError("a key must have printable ASCII characters and no blank")
        if not MIN_AMOUNT <= self.amount <= MAX_AMOUNT:
            raise ValueError(f"a top-up must be {MIN_AMOUNT} to {MAX_AMOUNT} SGD")


def topup_routes(db: Database, payments: Payments) -> Blueprint:
    """Build the internal route that starts a top-up, and the public webhook that ends it."""
    routes = Blueprint("topup", __name__)

    @routes.post("/credits/topup")
    @access.internal("orchestrator-service")
    def topup() -> Response:
        return web.ok(_start(db, payments, web.body(TopUpRequest)))

    @routes.post("/api/webhooks/stripe")
    @access.public  # the signature of the raw body authenticates the caller
    def webhook() -> Response:
        reported = payments.read_webhook(request.get_data(), request.headers.get("Stripe-Signature"))
        if isinstance(reported, Payment):
            _credit(db, reported)
        elif reported is not None:
            _reverse(db, reported)
        return web.ok({"received": True})

    return routes


def _start(db: Database, payments: Payments, top_up: TopUpRequest) -> dict[str, Any]:
    accounts.get(db, top_up.user_id)
    intent = payments.create(top_up.key, top_up.user_id, top_up.amount)
    logger.info("User %s tops up %s credits with %s", top_up.user_id, top_up.amount, intent.payment_intent_id)
    answer = {"payment_intent_id": intent.payment_intent_id, "client_secret": intent.client_secret}
    return {**answer, "amount": top_up.amount, "currency": CURRENCY}


def _credit(db: Database, payment: Payment) -> None:
    try:
        added = topups.credit(db, payment.event_id, payment.payment_intent_id, payment.user_id, payment.amount)
    except topups.UnknownPayer:
        # Acknowledged, because a redelivery would not find the user either. The logged error needs an operator.
        logger.error("%s paid %s for an unknown user", payment.payment_intent_id, payment.amount)
        return
    except reversals.BalanceOverflow:
        logger.error("%s paid %s, not credited: too much for the balance", payment.payment_intent_id, payment.amount)
        return
    if added:
        logger.info("User %s was credited %s for %s", payment.user_id, payment.amount, payment.payment_intent_id)
    else:
        logger.info("%s was credited before", payment.payment_intent_id)


def _reverse(db: Database, claim: Claim) -> None:
    """Take back or give back credits, and report it to staff by a log line and a metric."""
    what = f"{claim.kind} {claim.claim_id} of {claim.payment_intent_id}"
    try:
        reversal = reversals.report(db, claim)
    except reversals.BalanceOverflow:
        # Acknowledged, because a redelivery would not fit into the balance either. The logged error needs an operator.
        REVERSALS.labels(claim.kind, "overflow").inc()
        logger.error("%s gives back more than the balance can hold", what)
        return
    if reversal is None:
        is_routine = claim.kind == "CANCELLATION" and claim.is_ours  # the payer never paid, so nothing was credited
        REVERSALS.labels(claim.kind, "not_credited").inc()
        logger.log(logging.INFO if is_routine else logging.WARNING, "%s: this payment was not credited", what)
    elif not reversal.is_changed:
        REVERSALS.labels(claim.kind, "unchanged").inc()
        logger.info("%s changes nothing", what)
    else:
        REVERSALS.labels(claim.kind, "owed" if reversal.owed else "settled").inc()
        level = logging.ERROR if reversal.owed else logging.WARNING  # credits that were spent need a person
        text = "%s: user %s has lost %s credits of this payment, %s are frozen, %s are owed"
        logger.log(level, text, what, reversal.user_id, reversal.taken, reversal.frozen, reversal.owed)
