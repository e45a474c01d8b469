"""The QR code of a ticket: AES-256-GCM over a small JSON payload, as base64(IV ∥ ciphertext ∥ tag) (§7.1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.chassis import json_codec
from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

TTL_SECONDS = 60
NONCE_BYTES = 12
MAX_PAYLOAD_CHARS = 2048  # a ticket has about 300


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a QR code: seat, owner, hall and creation time in seconds."""

    seat_id: UUID
    user_id: UUID
    hall_id: str
    generated_at: datetime


@dataclass(frozen=True)
class SealedQr:
    """An encrypted QR payload. Inventory stores the `digest` of the first one with the seat, for audit."""

    payload: str
    generated_at: datetime

    @property
    def expires_at(self) -> datetime:
        """The time after which a scan returns EXPIRED."""
        return self.generated_at + timedelta(seconds=TTL_SECONDS)

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, in hex."""
        return hashlib.sha256(self.payload.encode()).hexdigest()


class Seal:
    """Encrypts (seals) and decrypts (opens) QR payloads.

    It opens payloads of the previous key too, so that tickets stay valid during a key rotation.
    """

    def __init__(self, key: bytes, previous: bytes | None = None) -> None:
        self._keys = [AESGCM(key)] + ([AESGCM(previous)] if previous else [])

    def seal(self, seat_id: str | UUID, user_id: str | UUID, hall_id: str) -> SealedQr:
        """Create a payload with the current time. Each one differs, because its nonce is random."""
        now = datetime.now(UTC).replace(microsecond=0)
        ticket = Ticket(UUID(str(seat_id)), UUID(str(user_id)), hall_id, now)
        nonce = os.urandom(NONCE_BYTES)
        raw = nonce + self._keys[0].encrypt(nonce, msgspec.json.encode(ticket), None)
        return SealedQr(base64.b64encode(raw).decode(), now)

    def open(self, payload: str) -> Ticket:
        """Decrypt a payload. Raises Refused QR_INVALID unless it is exactly a text that `seal` made."""
        try:
            return self._decrypt(_decode_strictly(payload))
        except (ValueError, binascii.Error, InvalidTag, msgspec.MsgspecError):
            raise Refused(ErrorCode.QR_INVALID) from None

    def _decrypt(self, raw: bytes) -> Ticket:
        nonce, ciphertext = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
        for key in self._keys[:-1]:
            try:
                return _parse_ticket(key.decrypt(nonce, ciphertext, None))
            except InvalidTag:
                continue
        return _parse_ticket(self._keys[-1].decrypt(nonce, ciphertext, None))


def _parse_ticket(plaintext: bytes) -> Ticket:
    ticket = json_codec.decode_as(plaintext, Ticket)
    if ticket.generated_at.tzinfo is None:
        raise ValueError("generated_at has no zone")
    return ticket


def _decode_strictly(payload: str) -> bytes:
    """Decode canonical base64. Another text for the same bytes is not the payload that `seal` made."""
    if len(payload) > MAX_PAYLOAD_CHARS:
        raise ValueError("too long")
    raw = base64.b64decode(payload.encode("ascii"), validate=True)
    if base64.b64encode(raw).decode() != payload:
        raise ValueError("not canonical")
    return raw
