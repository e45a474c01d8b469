"""Seals and reads QR payloads (§7.1): AES-256-GCM, base64 of IV, ciphertext and tag."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12


def seal(key: str, seat: str, user: str, hall: str = "HALL-B", age_seconds: float = 0, **fields: object) -> str:
    """Return a payload that the key of the system opens. `fields` replace or add fields, and None drops one."""
    generated_at = (datetime.now(UTC) - timedelta(seconds=age_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = {"seat_id": seat, "user_id": user, "hall_id": hall, "generated_at": generated_at, **fields}
    return seal_text(key, json.dumps({name: value for name, value in content.items() if value is not None}))


def seal_text(key: str, text: str) -> str:
    """Return a payload with any text inside, valid or not."""
    nonce = os.urandom(NONCE)
    return base64.b64encode(nonce + AESGCM(key.encode()).encrypt(nonce, text.encode(), None)).decode()


def decrypt(key: str, payload: str) -> dict[str, str]:
    """Return the fields of a payload. Raises InvalidTag if another key sealed it."""
    sealed = base64.b64decode(payload)
    content: dict[str, str] = json.loads(AESGCM(key.encode()).decrypt(sealed[:NONCE], sealed[NONCE:], None))
    return content
