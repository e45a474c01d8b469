"""Stripe's test cards, by the payment method names of its documentation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A test card. `code` is None for a card that pays. `challenge` requires 3-D Secure."""

    brand: str = "visa"
    last4: str = "4242"
    code: str | None = None
    decline_code: str | None = None
    message: str = ""
    challenge: bool = False


def _declined_card(last4: str, decline_code: str, message: str, code: str = "card_declined") -> Card:
    return Card(last4=last4, code=code, decline_code=decline_code, message=message)


CARDS = {
    "pm_card_visa": Card(),
    "pm_card_visa_debit": Card(last4="5556"),
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_authenticationRequired": Card(last4="3184", challenge=True),
    "pm_card_threeDSecure2Required": Card(last4="3220", challenge=True),
    "pm_card_chargeDeclined": _declined_card("0002", "generic_decline", "Your card was declined."),
    "pm_card_visa_chargeDeclined": _declined_card("0002", "generic_decline", "Your card was declined."),
    "pm_card_chargeDeclinedInsufficientFunds": _declined_card(
        "9995", "insufficient_funds", "Your card has insufficient funds."
    ),
    "pm_card_visa_chargeDeclinedInsufficientFunds": _declined_card(
        "9995", "insufficient_funds", "Your card has insufficient funds."
    ),
    "pm_card_visa_chargeDeclinedLostCard": _declined_card("9987", "lost_card", "Your card was declined."),
    "pm_card_visa_chargeDeclinedStolenCard": _declined_card("9979", "stolen_card", "Your card was declined."),
    "pm_card_chargeDeclinedExpiredCard": _declined_card(
        "0069", "expired_card", "Your card has expired.", "expired_card"
    ),
    "pm_card_chargeDeclinedIncorrectCvc": _declined_card(
        "0127", "incorrect_cvc", "Your card's security code is incorrect.", "incorrect_cvc"
    ),
    "pm_card_chargeDeclinedProcessingError": _declined_card(
        "0119",
        "processing_error",
        "An error occurred while processing your card. Try again in a little bit.",
        "processing_error",
    ),
}

# The card numbers that the card form of `elements` accepts.
NUMBERS = {
    "4242424242424242": "pm_card_visa",
    "5555555555554444": "pm_card_mastercard",
    "4000002760003184": "pm_card_authenticationRequired",
    "4000000000000002": "pm_card_chargeDeclined",
    "4000000000009995": "pm_card_chargeDeclinedInsufficientFunds",
    "4000000000000069": "pm_card_chargeDeclinedExpiredCard",
    "4000000000000127": "pm_card_chargeDeclinedIncorrectCvc",
    "4000000000000119": "pm_card_chargeDeclinedProcessingError",
}
