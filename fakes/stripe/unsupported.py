"""Names of Stripe's API that this fake does not implement, so that a refusal distinguishes them from misspelt names."""

UNSUPPORTED = "unsupported"  # the kind of a parameter that Stripe accepts and this fake refuses


def _split(names: str) -> frozenset[str]:
    return frozenset(names.split())


def _parameters(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), UNSUPPORTED)


_CHARGING = """amount_details capture_method excluded_payment_method_types hooks
    payment_details payment_method_data payment_method_options setup_future_usage shipping"""
_ACCOUNT = """application_fee_amount customer customer_account payment_method_configuration transfer_data
    transfer_group"""
_CONSENT = "confirmation_token mandate mandate_data radar_options"

CREATE = _parameters(f"{_CHARGING} {_ACCOUNT} {_CONSENT} confirmation_method on_behalf_of")
CONFIRM = _parameters(f"{_CHARGING} {_CONSENT} allowed_payment_method_types amount_to_confirm receipt_email")
UPDATE = _parameters(f"{_CHARGING} {_ACCOUNT} allowed_payment_method_types currency")
LIST_INTENTS = _parameters("customer_account")
LIST_EVENTS = _parameters("delivery_success")

# Calls on one PaymentIntent, by the last part of their path.
VERBS = _split("amount_details_line_items apply_customer_balance capture increment_authorization verify_microdeposits")

RESOURCES = _split(
    """3d_secure account account_links account_sessions accounts apple_pay application_fees apps balance
    balance_settings balance_transactions billing billing_portal charges checkout climate confirmation_tokens
    country_specs coupons credit_notes customer_sessions customers disputes entitlements ephemeral_keys
    exchange_rates file_links files financial_connections forwarding identity invoice_payments
    invoice_rendering_templates invoiceitems invoices issuing linked_accounts mandates payment_attempt_records
    payment_intents payment_links payment_method_configurations payment_method_domains payment_methods
    payment_records payouts plans prices product_catalog products promotion_codes quotes radar refunds reporting
    reviews setup_attempts setup_intents shipping_rates sigma sources subscription_items subscription_schedules
    subscriptions tax tax_codes tax_ids tax_rates terminal test_helpers tokens topups transfers treasury
    webhook_endpoints"""
)

CURRENCIES = _split(
    """aed afn all amd ang aoa ars awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cdf clp cny cop crc
    cve czk djf dkk dop dzd egp etb fjd fkp gel gip gmd gnf gtq gyd hnl htg huf idr ils inr isk jmd jod jpy kes
    kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn mzn nad ngn nio
    nok npr omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek shp sle sos srd std szl thb tjs
    tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar zmw"""
)
