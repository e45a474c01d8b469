"""Stripe, by its official SDK: a PaymentIntent a top-up, and the signed events that say it was paid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import stripe

from services.chassis import correlation
from services.chassis.clients import CALL_SECONDS
from services.chassis.errors import Refused, Unknown
from services.contracts.errors import ErrorCode
from services.contracts.money import from_cents, to_cents

logger = logging.getLogger(__name__)

CURRENCY = "sgd"
TIMEOUT = (0.4, CALL_SECONDS - 0.6)  # seconds to connect, to read: our own caller waits CALL_SECONDS and no longer
TOLERANCE_SECONDS = 300
LOOK_BACK = 100  # the newest intents; the one that we look for was made a moment ago
PAID = "payment_intent.succeeded"


@dataclass(frozen=True)
class Intent:
    """A PaymentIntent as the payer's browser needs it."""

    payment_intent_id: str
    client_secret: str


@dataclass(frozen=True)
class Payment:
    """Money that Stripe has received for a user of ours."""

    event_id: str
    payment_intent_id: str
    user_id: UUID
    amount: Decimal


class _Metadata(msgspec.Struct):
    user_id: UUID


class _Object(msgspec.Struct):
    id: str
    amount_received: int
    currency: str
    metadata: _Metadata


class _Data(msgspec.Struct):
    object: _Object


class _Event(msgspec.Struct):
    id: str
    data: _Data


class Payments:
    """Stripe's side of a top-up. Thread-safe."""

    def __init__(self, secret_key: str, webhook_secret: str, base_url: str) -> None:
        self._webhook_secret = webhook_secret
        client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base_url},
            http_client=stripe.RequestsClient(timeout=TIMEOUT),
            max_network_retries=0,  # whether to ask again is decided here, and by whoever holds the key
        )
        self._intents = client.v1.payment_intents

    def create(self, key: str, user_id: UUID, amount: Decimal) -> Intent:
        """A PaymentIntent over `amount` SGD; the same one again under the same key.

        Raises Refused IDEMPOTENCY_KEY_REUSED when the key came with another body, Unknown when Stripe does not answer.
        """
        try:
            return self._create(key, key, user_id, amount)
        except stripe.IdempotencyError:
            raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED) from None
        except stripe.StripeError as error:
            return self._after(error, key, user_id, amount)

    def _after(self, error: stripe.StripeError, key: str, user_id: UUID, amount: Decimal) -> Intent:
        """What to do about no answer: the intent may be there all the same (D34)."""
        status = error.http_status or 0
        refused = 400 <= status < 500  # our key, or our request: nothing was made, and asking again changes nothing
        level = logging.ERROR if refused else logging.WARNING
        logger.log(level, "Stripe made no PaymentIntent: %s %s", type(error).__name__, status)
        try:
            if not refused and (found := self._made_under(key)):
                return found
            if status >= 500:  # Stripe repeats this 5xx under its key for a day, so the next try needs another
                return self._create(f"{key}:{uuid4()}", key, user_id, amount)
        except stripe.StripeError as again:
            logger.warning("Stripe still does not answer: %s", type(again).__name__)
        raise Unknown("the payment provider did not answer; try again shortly") from None

    def _create(self, idempotency_key: str, key: str, user_id: UUID, amount: Decimal) -> Intent:
        logger.info("→ Stripe create PaymentIntent")
        made = self._intents.create(
            {
                "amount": to_cents(amount),
                "currency": CURRENCY,
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                "metadata": {"user_id": str(user_id), "topup_key": key},
            },
            {"idempotency_key": idempotency_key, "headers": _headers()},
        )
        logger.info("← Stripe made %s", made.id)
        return _intent(made)

    def _made_under(self, key: str) -> Intent | None:
        recent = self._intents.list({"limit": LOOK_BACK}, {"headers": _headers()})
        return next((_intent(one) for one in recent.data if one.metadata.to_dict().get("topup_key") == key), None)

    def payment(self, raw: bytes, signature: str | None) -> Payment | None:
        """The payment that a webhook tells of, or None when it tells of something else or of somebody else's.

        Raises Refused VALIDATION_ERROR unless Stripe signed these very bytes within the last `TOLERANCE_SECONDS`.
        """
        try:
            event = stripe.Webhook.construct_event(raw, signature, self._webhook_secret, TOLERANCE_SECONDS).to_dict()
        except (stripe.SignatureVerificationError, ValueError, TypeError, AttributeError) as error:
            logger.warning("refused a webhook: %s", type(error).__name__)
            raise Refused(ErrorCode.VALIDATION_ERROR, "The signature of this event is not Stripe's.") from None
        return _payment(event) if event.get("type") == PAID else None


def _payment(event: dict[str, Any]) -> Payment | None:
    try:
        paid = msgspec.convert(event, _Event)
    except msgspec.ValidationError as error:
        logger.warning("acknowledged a payment that is not for us: %s", error)
        return None
    intent = paid.data.object
    if intent.currency != CURRENCY or intent.amount_received <= 0:
        logger.error("PaymentIntent %s received %d %s", intent.id, intent.amount_received, intent.currency)
        return None
    return Payment(paid.id, intent.id, intent.metadata.user_id, from_cents(intent.amount_received))


def _intent(made: stripe.PaymentIntent) -> Intent:
    if not made.client_secret:
        raise Unknown("the payment provider gave no client secret")
    return Intent(made.id, made.client_secret)


def _headers() -> dict[str, str]:
    return {correlation.HEADER: correlation.current() or ""}
