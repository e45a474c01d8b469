"""JSON as it crosses every wire and enters every jsonb column: money stays `Decimal`, times are ISO 8601 UTC."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

import msgspec

from services.contracts.money import Amount

T = TypeVar("T")


def _plain(value: object) -> Decimal:
    if isinstance(value, Decimal):  # a subclass, such as money.Amount
        return Decimal(value)
    raise NotImplementedError(type(value).__name__)


_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain)
_decoder = msgspec.json.Decoder(float_hook=Decimal)


def encode(value: Any) -> bytes:
    """JSON bytes; a Decimal becomes a JSON number with its own digits, a UUID or datetime its text."""
    return _encoder.encode(value)


def decode(raw: bytes | str) -> Any:
    """The value of a JSON text; numbers with a point become `Decimal`. Raises msgspec.DecodeError."""
    return _decoder.decode(raw)


def decode_as(raw: bytes, shape: type[T]) -> T:
    """JSON text as `shape`, a msgspec.Struct whose credits are `money.Amount`.

    Raises msgspec.ValidationError or DecodeError, UnicodeDecodeError, or ArithmeticError for an absurd exponent.
    """
    decoded: T = _decoder_of(shape).decode(raw)  # type: ignore[arg-type]  # a class is hashable
    return decoded


@cache
def _decoder_of(shape: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(shape, dec_hook=_field, float_hook=Decimal)


def _field(shape: type, value: Any) -> Any:
    if issubclass(shape, Amount):
        return Amount.of(value)
    raise NotImplementedError(shape.__name__)
