"""QR payloads as §7.1 of the reference has them: AES-256-GCM, base64(IV ∥ ciphertext ∥ tag), sealed by the test."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12


def seal(key: str, seat: str, user: str, hall: str = "HALL-B", age_seconds: float = 0, **fields: object) -> str:
    """A payload that says what it is told to; `fields` replaces or adds."""
    made = (datetime.now(UTC) - timedelta(seconds=age_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {"seat_id": seat, "user_id": user, "hall_id": hall, "generated_at": made, **fields}
    return seal_text(key, json.dumps({name: value for name, value in said.items() if value is not None}))


def seal_text(key: str, text: str) -> str:
    """Whatever is to be inside, sealed with the right key."""
    nonce = os.urandom(NONCE)
    return base64.b64encode(nonce + AESGCM(key.encode()).encrypt(nonce, text.encode(), None)).decode()


def open_(key: str, payload: str) -> dict[str, str]:
    """What a payload says. Raises InvalidTag for another key's."""
    sealed = base64.b64decode(payload)
    said: dict[str, str] = json.loads(AESGCM(key.encode()).decrypt(sealed[:NONCE], sealed[NONCE:], None))
    return said
