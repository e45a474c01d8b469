"""Stripe's objects, with every field of the API version below. Unused fields are null."""

from typing import Any

from fakes.stripe.cards import Card

API_VERSION = "2026-10-28.endive"

Json = dict[str, Any]


def _nulls(names: str) -> Json:
    return dict.fromkeys(names.split())


def payment_intent(object_id: str, secret: str, created: int, amount: int, currency: str) -> Json:
    """A PaymentIntent without a payment method. `amount` is in the currency's smallest unit."""
    return (
        {
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
        }
        | _nulls("allowed_payment_method_types application application_fee_amount canceled_at cancellation_reason")
        | _nulls(
            "customer customer_account description excluded_payment_method_types hooks last_payment_error latest_charge"
            " managed_payments next_action on_behalf_of payment_details payment_method"
            " payment_method_configuration_details payment_record presentment_details processing"
            " receipt_email review setup_future_usage shipping source statement_descriptor"
            " statement_descriptor_suffix transfer_data transfer_group"
        )
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
    extra = {"display_brand": card.brand, "networks": networks} | _nulls("description generated_from iin issuer")
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
        "radar_options": None,
        "type": "card",
    }


def _card_details(card: Card, amount: int) -> Json:
    unavailable = {"status": "unavailable"}
    return _card(card) | {
        "amount_authorized": None if card.code else amount,
        "authorization_code": None,
        "capture_before": None,
        "description": None,
        "electronic_commerce_indicator": "05" if card.challenge else "07",
        "extended_authorization": {"status": "disabled"},
        "incremental_authorization": unavailable,
        "iin": None,
        "installments": None,
        "issuer": None,
        "mandate": None,
        "moto": None,
        "multicapture": unavailable,
        "network": card.brand,
        "network_token": {"used": False},
        "network_transaction_id": None,
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        "setup_credential_usage": None,
        "stored_credential_usage": None,
        "three_d_secure": _three_d_secure() if card.challenge else None,
        "transaction_link_id": None,
    }


def _three_d_secure() -> Json:
    verdict = {"authentication_flow": "challenge", "electronic_commerce_indicator": "05", "result": "authenticated"}
    return (
        verdict
        | {"version": "2.2.0"}
        | _nulls("exemption_indicator exemption_indicator_applied result_reason transaction_id")
    )


def _outcome(card: Card) -> Json:
    network = "declined_by_network" if card.code else "approved_by_network"
    verdict = {"network_status": network, "type": "issuer_declined" if card.code else "authorized"}
    message = "The bank declined the payment." if card.code else "Payment complete."
    advice = _nulls("advice_code network_advice_code network_decline_code risk_score rule")
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
        "application application_fee application_fee_amount authorization_code balance_transaction customer"
        " failure_balance_transaction level3 on_behalf_of presentment_details radar_options receipt_number"
        " receipt_url review shipping source source_transfer statement_descriptor statement_descriptor_suffix"
        " transfer transfer_data transfer_group"
    )


def refund(object_id: str, created: int, charge: Json, amount: int, reason: str | None) -> Json:
    """A refund of a part of a charge, which has already succeeded."""
    card = {
        "type": "refund",
        "reference": None,
        "reference_status": "pending",
        "reference_type": "acquirer_reference_number",
    }
    return {
        "id": object_id,
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "destination_details": {"card": card, "type": "card"},
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": reason,
        "status": "succeeded",
    } | _nulls(
        "balance_transaction customer customer_account description failure_balance_transaction failure_reason"
        " instructions_email next_action pending_reason presentment_details receipt_number source_transfer_reversal"
        " transfer_reversal"
    )


def dispute(object_id: str, created: int, charge: Json, amount: int, reason: str, status: str) -> Json:
    """A dispute of a part of a charge. The status of an inquiry begins with `warning_`."""
    brand = charge["payment_method_details"]["card"]["brand"]
    kind = "inquiry" if status.startswith("warning_") else "chargeback"
    card = {"brand": brand, "case_type": kind, "network": brand, "network_reason_code": "10.4"}
    return {
        "id": object_id,
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}} | _nulls(_EVIDENCE),
        "evidence_details": {
            "due_by": created + 7 * 86400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "manual",
        },
        "intended_submission_method": None,
        "is_charge_refundable": kind == "inquiry",
        "livemode": False,
        "metadata": {},
        "network_reason_code": card["network_reason_code"],
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {"card": card, "type": "card"},
        "reason": reason,
        "status": status,
    }


_EVIDENCE = """access_activity_log appeal billing_address cancellation_policy cancellation_policy_disclosure
    cancellation_rebuttal customer_communication customer_email_address customer_name customer_purchase_ip
    customer_signature duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id
    product_description receipt refund_policy refund_policy_disclosure refund_refusal_explanation service_date
    service_documentation shipping_address shipping_carrier shipping_date shipping_documentation
    shipping_tracking_number uncategorized_file uncategorized_text"""


def event(object_id: str, created: int, kind: str, about: Json, cause: Json, pending: int) -> Json:
    return {
        "id": object_id,
        "object": "event",
        "account": None,
        "api_version": API_VERSION,
        "context": None,
        "created": created,
        "data": {"object": about},
        "livemode": False,
        "pending_webhooks": pending,
        "request": cause,
        "type": kind,
    }


def page(data: list[Json], url: str, has_more: bool = False) -> Json:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}
