"""Stripe, by its official SDK: one PaymentIntent per top-up, and the signed events that report its payment."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID, uuid4

import stripe

from services.chassis import correlation
from services.chassis.clients import CALL_SECONDS
from services.chassis.errors import NoAnswer, Refused, Unknown
from services.chassis.neighbours import UNLIMITED, Neighbour
from services.contracts.errors import ErrorCode
from services.contracts.money import to_cents
from services.user import stripe_events
from services.user.outside import open_session
from services.user.store.reversals import Claim
from services.user.stripe_events import CURRENCY, Payment

logger = logging.getLogger(__name__)

TIMEOUT = (0.4, CALL_SECONDS - 0.6)  # seconds to connect and to read, together less than the CALL_SECONDS of our caller
TOLERANCE_SECONDS = 300
RECENT_INTENTS = 100  # a lost intent is among the newest, because it was created a moment ago


@dataclass(frozen=True)
class Intent:
    """A PaymentIntent as the payer's browser needs it."""

    payment_intent_id: str
    client_secret: str


class Payments:
    """Stripe's part of a top-up. Thread-safe. `slots` is the number of threads that may wait for Stripe at once."""

    def __init__(self, secret_key: str, webhook_secret: str, base_url: str, slots: int = UNLIMITED) -> None:
        self._neighbour = Neighbour("Stripe", slots)
        self._webhook_secret = webhook_secret
        client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base_url},
            http_client=stripe.RequestsClient(timeout=TIMEOUT, session=open_session(base_url)),
            max_network_retries=0,  # `create` and the orchestrator decide about retries
        )
        self._intents = client.v1.payment_intents

    def create(self, key: str, user_id: UUID, amount: Decimal) -> Intent:
        """Create a PaymentIntent over `amount` SGD. A retry under `key` returns the same one.

        Raises Refused IDEMPOTENCY_KEY_REUSED if `key` was used with another body. Raises Unknown without an answer.
        """
        with self._neighbour.calling():
            try:
                return self._create(key, key, user_id, amount)
            except stripe.IdempotencyError:
                raise Refused(ErrorCode.IDEMPOTENCY_KEY_REUSED) from None
            except stripe.StripeError as error:
                return self._recover(error, key, user_id, amount)

    def _recover(self, error: stripe.StripeError, key: str, user_id: UUID, amount: Decimal) -> Intent:
        """Look for the intent after a failed call, because Stripe may have created it (D34)."""
        status = error.http_status or 0
        is_refused = 400 <= status < 500  # wrong API key or request: Stripe created nothing, and a retry cannot help
        level = logging.ERROR if is_refused else logging.WARNING
        logger.log(level, "Stripe did not confirm a PaymentIntent: %s %s", type(error).__name__, status)
        try:
            if not is_refused and (found := self._find_intent(key)):
                return found
            if status >= 500:  # Stripe repeats a 5xx under its key for a day, so the next try needs a new one
                return self._create(f"{key}:{uuid4()}", key, user_id, amount)
        except stripe.StripeError as second_error:
            logger.warning("Stripe still does not answer: %s", type(second_error).__name__)
        kind = Unknown if status else NoAnswer
        raise kind("The payment provider did not answer. Try again shortly.") from None

    def _create(self, idempotency_key: str, key: str, user_id: UUID, amount: Decimal) -> Intent:
        logger.info("→ Stripe create PaymentIntent")
        created = self._intents.create(
            {
                "amount": to_cents(amount),
                "currency": CURRENCY,
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                "metadata": {"user_id": str(user_id), "topup_key": key},
            },
            {"idempotency_key": idempotency_key, "headers": _headers()},
        )
        logger.info("← Stripe created %s", created.id)
        return _to_intent(created)

    def _find_intent(self, key: str) -> Intent | None:
        recent = self._intents.list({"limit": RECENT_INTENTS}, {"headers": _headers()})
        found = (intent for intent in recent.data if intent.metadata.to_dict().get("topup_key") == key)
        return next(map(_to_intent, found), None)

    def read_webhook(self, raw: bytes, signature: str | None) -> Payment | Claim | None:
        """Return the payment or the claim on one that a webhook reports, or None for any other event.

        Raises Refused VALIDATION_ERROR unless Stripe signed exactly these bytes at a time within
        `TOLERANCE_SECONDS` of now. A later time means that this host or Stripe has a wrong clock.
        """
        try:
            event = stripe.Webhook.construct_event(raw, signature, self._webhook_secret, TOLERANCE_SECONDS).to_dict()
            _refuse_future(signature)
        except (stripe.SignatureVerificationError, ValueError, TypeError, AttributeError) as error:
            logger.warning("Refused a webhook: %s", type(error).__name__)
            raise Refused(
                ErrorCode.VALIDATION_ERROR, "Stripe did not sign this event, or did not do so within the last minutes."
            ) from None
        return stripe_events.parse(event)


def _refuse_future(signature: str | None) -> None:
    """Raise ValueError for a time too far ahead, which Stripe's library accepts. `signature` is verified."""
    signed_at = next(part[2:] for part in str(signature).split(",") if part.startswith("t="))
    if int(signed_at) > time.time() + TOLERANCE_SECONDS:
        raise ValueError("signed in the future")


def _to_intent(created: stripe.PaymentIntent) -> Intent:
    if not created.client_secret:
        raise Unknown("The payment provider returned no client secret. Try again shortly.")
    return Intent(created.id, created.client_secret)


def _headers() -> dict[str, str]:
    return {correlation.HEADER: correlation.current() or ""}
