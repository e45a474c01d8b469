"""The JSON of requests, messages and jsonb columns. Money is `Decimal`, and times are ISO 8601 in UTC."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import msgspec

from services.contracts.money import Amount

T = TypeVar("T")


def _encode_other(value: object) -> Decimal:
    if isinstance(value, Decimal):  # a subclass such as money.Amount
        return Decimal(value)
    raise NotImplementedError(type(value).__name__)


_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_encode_other)
_canonical_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_encode_other, order="sorted")
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_build_lock = Lock()  # msgspec crashes if two threads build the type information of one Struct


def encode(value: Any) -> bytes:
    """Encode a value as JSON. A Decimal becomes a number with the same digits, a UUID or datetime becomes text."""
    return _encoder.encode(value)


def encode_canonically(value: Any) -> bytes:
    """Encode a decoded value so that equal values have equal bytes."""
    return _canonical_encoder.encode(value)


def decode(raw: bytes | str) -> Any:
    """Decode JSON. Numbers with a decimal point become `Decimal`. Raises msgspec.DecodeError."""
    return _decoder.decode(raw)


def decode_as(raw: bytes, shape: type[T]) -> T:
    """Decode JSON as `shape`, a msgspec.Struct whose credits are `money.Amount`.

    Raises msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, or ArithmeticError for a huge exponent.
    """
    decoded: T = _decoder_for(shape).decode(raw)  # type: ignore[arg-type]  # a class is hashable
    return decoded


def convert(value: Any, shape: type[T]) -> T:
    """Check and convert a decoded value to `shape`. Raises msgspec.ValidationError."""
    _decoder_for(shape)  # type: ignore[arg-type]  # a class is hashable
    return msgspec.convert(value, shape)


def contains_nul(value: Any) -> bool:
    """True if a decoded value has a text with the NUL character. Only the JSON escape `\\u0000` can put one there."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, msgspec.Struct):
        return any(contains_nul(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return any(contains_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list | tuple | set | frozenset) and any(map(contains_nul, value))


@cache
def _decoder_for(shape: type) -> msgspec.json.Decoder[Any]:
    with _build_lock:
        return msgspec.json.Decoder(shape, dec_hook=_decode_field, float_hook=Decimal)


def _decode_field(shape: type, value: Any) -> Any:
    if issubclass(shape, Amount):
        return Amount.of(value)
    raise NotImplementedError(shape.__name__)
