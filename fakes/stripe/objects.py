"""Stripe's objects, with every field of the API version below. Unused fields are null."""

from typing import Any

from fakes.stripe.cards import Card

API_VERSION = "2026-10-28.endive"

Json = dict[str, Any]


def _nulls(names: str) -> Json:
    return dict.fromkeys(names.split())


def payment_intent(object_id: str, secret: str, created: int, amount: int, currency: str) -> Json:
    """A PaymentIntent without a payment method. `amount` is in the currency's smallest unit."""
    return {
        "id": object_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "capture_method": "automatic_async",
        "client_secret": f"{object_id}_secret_{secret}",
        "confirmation_method": "automatic",
        "created": created,
        "currency": currency,
        "livemode": False,
        "metadata": {},
        "payment_method_options": {
            "card": {"request_three_d_secure": "automatic"} | _nulls("installments mandate_options network")
        },
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
    } | _nulls(
        "application application_fee_amount canceled_at cancellation_reason customer customer_account"
        " description excluded_payment_method_types last_payment_error latest_charge managed_payments"
        " next_action on_behalf_of payment_method payment_method_configuration_details processing"
        " receipt_email review setup_future_usage shipping source statement_descriptor"
        " statement_descriptor_suffix transfer_data transfer_group"
    )


def billing_details() -> Json:
    address = _nulls("city country line1 line2 postal_code state")
    return {"address": address} | _nulls("email name phone tax_id")


def _card(card: Card) -> Json:
    checks = {"cvc_check": "pass"} | _nulls("address_line1_check address_postal_code_check")
    return {
        "brand": card.brand,
        "checks": checks,
        "country": "SG",
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": f"fake{card.last4}",
        "funding": "credit",
        "last4": card.last4,
        "regulated_status": "unregulated",
        "wallet": None,
    }


def payment_method(object_id: str, created: int, card: Card) -> Json:
    networks = {"available": [card.brand], "preferred": None}
    extra = {"display_brand": card.brand, "generated_from": None, "networks": networks}
    return {
        "id": object_id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": billing_details(),
        "card": _card(card) | extra | {"three_d_secure_usage": {"supported": True}},
        "created": created,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def _card_details(card: Card, amount: int) -> Json:
    unavailable = {"status": "unavailable"}
    return _card(card) | {
        "amount_authorized": None if card.code else amount,
        "authorization_code": None,
        "extended_authorization": {"status": "disabled"},
        "incremental_authorization": unavailable,
        "installments": None,
        "mandate": None,
        "multicapture": unavailable,
        "network": card.brand,
        "network_token": {"used": False},
        "network_transaction_id": None,
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        "three_d_secure": None,
        "transaction_link_id": None,
    }


def _outcome(card: Card) -> Json:
    network = "declined_by_network" if card.code else "approved_by_network"
    verdict = {"network_status": network, "type": "issuer_declined" if card.code else "authorized"}
    message = "The bank declined the payment." if card.code else "Payment complete."
    advice = _nulls("advice_code network_advice_code network_decline_code")
    return advice | verdict | {"reason": card.decline_code, "risk_level": "normal", "seller_message": message}


def charge(object_id: str, created: int, intent: Json, method: Json, card: Card) -> Json:
    """The charge of a confirmation: a payment, or the refusal by the card's bank."""
    amount, paid = intent["amount"], card.code is None
    return {
        "id": object_id,
        "object": "charge",
        "amount": amount,
        "amount_captured": amount if paid else 0,
        "amount_refunded": 0,
        "billing_details": billing_details(),
        "calculated_statement_descriptor": "TICKETREMASTER",
        "captured": paid,
        "created": created,
        "currency": intent["currency"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": card.code,
        "failure_message": card.message or None,
        "fraud_details": {},
        "livemode": False,
        "metadata": dict(intent["metadata"]),
        "outcome": _outcome(card),
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"card": _card_details(card, amount), "type": "card"},
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "refunds": page([], f"/v1/charges/{object_id}/refunds"),
        "status": "succeeded" if paid else "failed",
    } | _nulls(
        "application application_fee application_fee_amount balance_transaction customer"
        " failure_balance_transaction on_behalf_of receipt_number receipt_url review shipping source"
        " source_transfer statement_descriptor statement_descriptor_suffix transfer_data transfer_group"
    )


def event(object_id: str, created: int, kind: str, about: Json, cause: Json, pending: int) -> Json:
    return {
        "id": object_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": {"object": about},
        "livemode": False,
        "pending_webhooks": pending,
        "request": cause,
        "type": kind,
    }


def page(data: list[Json], url: str, has_more: bool = False) -> Json:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}
