"""Money: credits as `Decimal` with two decimals, never as a binary float. 1 credit = 1 SGD (Singapore dollar)."""

from __future__ import annotations

from decimal import Decimal

CENT = Decimal("0.01")
MAX_AMOUNT = Decimal("99999999.99")  # NUMERIC(10,2)


class Amount(Decimal):
    """A positive amount of credits with two decimals, for use as a message field. On the wire it is a JSON number."""

    @classmethod
    def of(cls, value: object) -> Amount:
        """Convert `value` (a decoded JSON number) to an amount. Raises ValueError with the reason."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise ValueError("send the amount as a JSON number")
        if not is_amount(Decimal(value)):
            raise ValueError(f"send a positive amount with at most two decimals, at most {MAX_AMOUNT}")
        return cls(Decimal(value).quantize(CENT))


def is_amount(value: Decimal, *, positive: bool = True) -> bool:
    """Return True when `value` is a payable amount: finite, at most two decimals, within NUMERIC(10,2)."""
    if not value.is_finite() or value.copy_abs() > MAX_AMOUNT:
        return False
    return value == value.quantize(CENT) and (value > 0 if positive else value >= 0)


def to_cents(amount: Decimal) -> int:
    """Convert credits to integer cents, the unit that Stripe uses. `amount` has at most two decimals (`is_amount`)."""
    return int(amount * 100)


def from_cents(cents: int) -> Decimal:
    """Convert integer cents to credits."""
    return (Decimal(cents) / 100).quantize(CENT)
