"""JSON as it crosses every wire and enters every jsonb column: money stays `Decimal`, times are ISO 8601 UTC."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(decimal_format="number")
_decoder = msgspec.json.Decoder(float_hook=Decimal)


def encode(value: Any) -> bytes:
    """JSON bytes; a Decimal becomes a JSON number with its own digits, a UUID or datetime its text."""
    return _encoder.encode(value)


def decode(raw: bytes | str) -> Any:
    """The value of a JSON text; numbers with a point become `Decimal`. Raises msgspec.DecodeError."""
    return _decoder.decode(raw)
