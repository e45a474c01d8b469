"""The QR ticket: AES-256-GCM over a small JSON payload, base64(IV ∥ ciphertext ∥ tag) (§7.1 of the reference)."""

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

from services.chassis.errors import Refused
from services.contracts.errors import ErrorCode

TTL_SECONDS = 60
NONCE_BYTES = 12
MAX_PAYLOAD_CHARS = 2048  # ours are about 300; nothing longer is worth decrypting


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a QR says: this seat, this owner, this hall, at this second."""

    seat_id: UUID
    user_id: UUID
    hall_id: str
    generated_at: datetime


@dataclass(frozen=True)
class Sealed:
    """A QR payload as the client shows it. `digest` is its SHA-256, kept with the seat for audit."""

    payload: str
    generated_at: datetime

    @property
    def expires_at(self) -> datetime:
        """When the gate stops taking it."""
        return self.generated_at + timedelta(seconds=TTL_SECONDS)

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, hex."""
        return hashlib.sha256(self.payload.encode()).hexdigest()


class Seal:
    """Seals and opens QR payloads. The previous key still opens, so that a rotation loses no ticket in the queue."""

    def __init__(self, key: bytes, previous: bytes | None = None) -> None:
        self._keys = [AESGCM(key)] + ([AESGCM(previous)] if previous else [])

    def seal(self, seat_id: str | UUID, user_id: str | UUID, hall_id: str) -> Sealed:
        """A fresh payload for now; no two are alike, since the nonce is random."""
        now = datetime.now(UTC).replace(microsecond=0)
        ticket = Ticket(UUID(str(seat_id)), UUID(str(user_id)), hall_id, now)
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._keys[0].encrypt(nonce, msgspec.json.encode(ticket), None)
        return Sealed(base64.b64encode(sealed).decode(), now)

    def open(self, payload: str) -> Ticket:
        """The ticket in a payload. Raises Refused QR_INVALID for whatever is not exactly what `seal` made."""
        try:
            return self._opened(_canonical(payload))
        except (ValueError, binascii.Error, InvalidTag, msgspec.MsgspecError):
            raise Refused(ErrorCode.QR_INVALID) from None

    def _opened(self, sealed: bytes) -> Ticket:
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        for key in self._keys[:-1]:
            try:
                return _ticket(key.decrypt(nonce, ciphertext, None))
            except InvalidTag:
                continue
        return _ticket(self._keys[-1].decrypt(nonce, ciphertext, None))


def _ticket(raw: bytes) -> Ticket:
    ticket = msgspec.json.decode(raw, type=Ticket)
    if ticket.generated_at.tzinfo is None:
        raise ValueError("generated_at has no zone")
    return ticket


def _canonical(payload: str) -> bytes:
    """Strict base64: another text for the same bytes is not the QR that we drew."""
    if len(payload) > MAX_PAYLOAD_CHARS:
        raise ValueError("too long")
    sealed = base64.b64decode(payload.encode("ascii"), validate=True)
    if base64.b64encode(sealed).decode() != payload:
        raise ValueError("not canonical")
    return sealed
