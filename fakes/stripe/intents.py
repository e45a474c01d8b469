"""The calls of a PaymentIntent with their changes, refusals and events.

Callers hold the state's lock.
"""

import copy
from typing import Any

from fakes.ids import BASE62
from fakes.stripe import objects, unsupported
from fakes.stripe.cards import CARDS, Card
from fakes.stripe.errors import (
    StripeError,
    missing_error,
    parameter_error,
    status_error,
    unknown_parameter_error,
    unsupported_error,
)
from fakes.stripe.events import Call, new_id, store_bounded
from fakes.stripe.params import FLAG, HASH, INTEGER, LIST, TEXT, Params, metadata

Json = dict[str, Any]

MINIMUM, MAXIMUM = 50, 99_999_999
CURRENCIES = {"sgd", "usd", "eur", "gbp", "aud", "nzd", "cad", "myr", "hkd", "chf"}
REASONS = {"duplicate", "fraudulent", "requested_by_customer", "abandoned"}

AUTOMATIC = {"enabled": ("true", "false"), "allow_redirects": ("always", "never")}

DESCRIPTIVE = {
    "description": TEXT,
    "metadata": HASH,
    "receipt_email": TEXT,
    "statement_descriptor": TEXT,
    "statement_descriptor_suffix": TEXT,
}
EXPAND = {"expand": LIST}
_CHARGE = {
    "payment_method": TEXT,
    "return_url": TEXT,
    "off_session": FLAG,
    "error_on_requires_action": FLAG,
    "use_stripe_sdk": FLAG,
    "client_secret": TEXT,
} | EXPAND
CONFIRM = unsupported.CONFIRM | _CHARGE
CREATE = (
    unsupported.CREATE
    | {
        "amount": INTEGER,
        "currency": TEXT,
        "confirm": FLAG,
        "automatic_payment_methods": HASH,
        "allowed_payment_method_types": LIST,
        "payment_method_types": LIST,  # its name before this API version
    }
    | (DESCRIPTIVE | _CHARGE)
)
UPDATE = unsupported.UPDATE | {"amount": INTEGER, "payment_method": TEXT} | DESCRIPTIVE | EXPAND
CANCEL = {"cancellation_reason": TEXT} | EXPAND


def find(call: Call, object_id: str, param: str = "intent") -> Json:
    intent: Json | None = call.state.store["intents"].get(object_id)
    if intent is None:
        raise missing_error("payment_intent", object_id, param)
    return intent


def create(call: Call, params: Params) -> Json:
    currency = params["currency"].lower()
    if currency in unsupported.CURRENCIES:
        raise unsupported_error("currency", f"The currency {currency}", sorted(CURRENCIES))
    if currency not in CURRENCIES:
        raise parameter_error("currency", f"Invalid currency: {params['currency']}.")
    _check_amount(params["amount"], currency)
    described = _read_descriptive({}, params)
    method = _find_method(call, params["payment_method"]) if params.get("payment_method") else None
    intent = _new(call, params["amount"], currency, params) | described
    store_bounded(call.state, "intents", intent["id"], intent)
    call.emit("payment_intent.created", intent)
    if method is not None:
        intent |= {"payment_method": method["id"], "status": "requires_confirmation"}
    return confirm(call, intent, params) if params.get("confirm") else intent


def _check_amount(amount: int, currency: str) -> None:
    if amount < 1:
        raise parameter_error("amount", "This value must be greater than or equal to 1.", "parameter_invalid_integer")
    if amount < MINIMUM:
        raise parameter_error("amount", f"Amount must be at least $0.50 {currency}", "amount_too_small")
    if amount > MAXIMUM:
        raise parameter_error("amount", "Amount must be no more than $999,999.99", "amount_too_large")


def _new(call: Call, amount: int, currency: str, params: Params) -> Json:
    object_id, secret = new_id(call.state, "pi"), call.state.ids.draw(BASE62, 25)
    intent = objects.payment_intent(object_id, secret, call.now, amount, currency)
    automatic = params.get("automatic_payment_methods", {})
    names = [name for name in ("allowed_payment_method_types", "payment_method_types") if params.get(name)]
    for name in names:
        if params[name] != ["card"]:
            raise unsupported_error(name, f"The payment method {', '.join(params[name])}", ["card"])
        intent["automatic_payment_methods"] = None
    if "allowed_payment_method_types" in names:
        intent["allowed_payment_method_types"] = ["card"]
    if not names:
        _check_automatic(automatic)
        intent["automatic_payment_methods"]["allow_redirects"] = automatic.get("allow_redirects", "always")
    return intent


def _check_automatic(automatic: Json) -> None:
    for name in automatic:
        if name not in AUTOMATIC:
            raise unknown_parameter_error(f"automatic_payment_methods[{name}]")
    for name, values in AUTOMATIC.items():
        if automatic.get(name, values[0]) not in values:
            param = f"automatic_payment_methods[{name}]"
            raise parameter_error(param, f"Invalid {param}: must be one of {' or '.join(values)}")


def _read_descriptive(old: Json, params: Params) -> Json:
    """Return the descriptive fields of the call, with the metadata merged into the old one."""
    described = {name: params[name] or None for name in DESCRIPTIVE if name in params}
    if "metadata" in params:
        described["metadata"] = metadata(old.get("metadata", {}), params["metadata"])
    return described


def update(call: Call, intent: Json, params: Params) -> Json:
    if "amount" in params or "payment_method" in params:
        _require(intent, "update", "requires_payment_method", "requires_confirmation", "requires_action")
    if "amount" in params:
        _check_amount(params["amount"], intent["currency"])
    changed = _read_descriptive(intent, params)
    if params.get("payment_method"):
        method = _find_method(call, params["payment_method"])
        changed |= {"payment_method": method["id"], "status": "requires_confirmation"}
    if "amount" in params:
        changed["amount"] = params["amount"]
    intent |= changed
    return intent


def confirm(call: Call, intent: Json, params: Params) -> Json:
    """Charge the card. Raises a card error (402) if the bank declines."""
    _require(intent, "confirm", "requires_payment_method", "requires_confirmation", "requires_action")
    method_name = params.get("payment_method") or intent["payment_method"]
    if not method_name:
        message = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise StripeError(400, message, code="payment_intent_unexpected_state", payment_intent=copy.deepcopy(intent))
    method = _find_method(call, method_name)
    card = _find_card(call, method)
    intent |= {"payment_method": method["id"], "last_payment_error": None, "next_action": None}
    if card.challenge:
        return _challenge(call, intent, method, params)
    return _charge(call, intent, method, card)


def _find_method(call: Call, name: str) -> Json:
    """Return a stored payment method, or create one for the name of a test card."""
    methods = call.state.store["methods"]
    if name in CARDS:
        method: Json = objects.payment_method(new_id(call.state, "pm"), call.now, CARDS[name])
        store_bounded(call.state, "methods", method["id"], {"card": name, "object": method})
        return method
    if name not in methods and name.startswith("pm_card_"):
        raise unsupported_error("payment_method", f"The test card {name}", CARDS)
    if name not in methods:
        raise missing_error("PaymentMethod", name, "payment_method", 400)
    stored: Json = methods[name]["object"]
    return stored


def _find_card(call: Call, method: Json) -> Card:
    return CARDS[call.state.store["methods"][method["id"]]["card"]]


def _charge(call: Call, intent: Json, method: Json, card: Card) -> Json:
    charge = objects.charge(new_id(call.state, "ch"), call.now, intent, method, card)
    store_bounded(call.state, "charges", charge["id"], charge)
    intent["latest_charge"] = charge["id"]
    if card.code:
        reason = {"code": card.code, "decline_code": card.decline_code, "charge": charge["id"]}
        raise _fail(call, intent, method, card.message, reason)
    intent |= {"status": "succeeded", "amount_received": intent["amount"], "next_action": None}
    call.emit("payment_intent.succeeded", intent)
    return intent


def _challenge(call: Call, intent: Json, method: Json, params: Params) -> Json:
    """Start 3-D Secure. Fails if the call is off-session or forbids an action of the customer."""
    if params.get("off_session") or params.get("error_on_requires_action"):
        code = "authentication_required"
        message = "This payment requires authentication to proceed."
        raise _fail(call, intent, method, message, {"code": code, "decline_code": code})
    url = f"https://hooks.stripe.com/3d_secure_2/hosted?payment_intent={intent['id']}"
    action: Json = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url}}
    if params.get("return_url"):
        redirect = {"return_url": params["return_url"], "url": url}
        action = {"type": "redirect_to_url", "redirect_to_url": redirect}
    intent |= {"status": "requires_action", "next_action": action}
    call.emit("payment_intent.requires_action", intent)
    return intent


def authenticate(call: Call, intent: Json, passed: bool) -> Json:
    """Apply the customer's answer to 3-D Secure, from the control plane."""
    _require(intent, "authenticate", "requires_action")
    method = _find_method(call, intent["payment_method"])
    if passed:
        return _charge(call, intent, method, Card(last4=method["card"]["last4"], challenge=True))
    message = "We are unable to authenticate your payment method. Please choose a different one and try again."
    _fail(call, intent, method, message, {"code": "payment_intent_authentication_failure"})
    return intent


def _fail(call: Call, intent: Json, method: Json, message: str, reason: Json) -> StripeError:
    """Return the intent to requires_payment_method, and return the error to raise, which contains the intent."""
    failure = StripeError(402, message, kind="card_error", **reason, payment_method=copy.deepcopy(method))
    intent |= {"status": "requires_payment_method", "payment_method": None, "next_action": None}
    intent["last_payment_error"] = dict(failure.error)
    call.emit("payment_intent.payment_failed", intent)
    failure.error["payment_intent"] = copy.deepcopy(intent)
    return failure


def cancel(call: Call, intent: Json, params: Params) -> Json:
    reason = params.get("cancellation_reason")
    if reason is not None and reason not in REASONS:
        raise parameter_error("cancellation_reason", f"Invalid cancellation_reason: {reason}")
    _require(intent, "cancel", "requires_payment_method", "requires_confirmation", "requires_action")
    intent |= {"status": "canceled", "canceled_at": call.now, "cancellation_reason": reason, "next_action": None}
    call.emit("payment_intent.canceled", intent)
    return intent


def _require(intent: Json, verb: str, *statuses: str) -> None:
    if intent["status"] not in statuses:
        raise status_error(verb, copy.deepcopy(intent))
