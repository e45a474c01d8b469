"""The QR code of a ticket: only a payload that the seal made opens (§7.1)."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import Refused
from services.orchestrator.saga.transfer_steps import update_owner
from services.orchestrator.tickets.qr import Seal, SealedQr

pytestmark = pytest.mark.unit

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SEAL = Seal(KEY)
SEAT, USER = uuid4(), uuid4()


def is_refused(seal: Seal, payload: str) -> bool:
    """Return whether the payload is refused as QR_INVALID."""
    with pytest.raises(Refused) as refusal:
        seal.open(payload)
    return refusal.value.code == "QR_INVALID"


@pytest.mark.claim(
    "gate/decrypts-qr", "qr/holds-seat", "qr/holds-user", "qr/holds-hall", "qr/holds-time", "qr/aes-256-gcm"
)
def test_sealed_payload_opens_with_its_fields() -> None:
    sealed = SEAL.seal(SEAT, USER, "HALL-A")
    ticket = SEAL.open(sealed.payload)
    assert (ticket.seat_id, ticket.user_id, ticket.hall_id) == (SEAT, USER, "HALL-A")
    assert ticket.generated_at.microsecond == 0
    assert abs(datetime.now(UTC) - ticket.generated_at) < timedelta(seconds=3)
    assert sealed.expires_at - sealed.generated_at == timedelta(seconds=60)


@pytest.mark.claim("qr/fresh-nonce", "qr/never-repeats", "threat/duplicated-qr")
def test_no_two_payloads_are_equal() -> None:
    assert len({SEAL.seal(SEAT, USER, "HALL-A").payload for _ in range(50)}) == 50


@pytest.mark.claim("qr/aes-256-gcm", "qr/base64-layout", "qr/fresh-nonce", "qr/unreadable-without-key")
def test_layout_is_nonce_ciphertext_tag_of_aes_256_gcm() -> None:
    raw = base64.b64decode(SEAL.seal(SEAT, USER, "HALL-A").payload)
    plaintext = AESGCM(KEY).decrypt(raw[:12], raw[12:], None)
    assert json.loads(plaintext).keys() == {"seat_id", "user_id", "hall_id", "generated_at"}
    assert not any(part in raw for part in (str(SEAT).encode(), str(USER).encode(), b"HALL-A"))
    plain = len(f'{{"seat_id":"{SEAT}","user_id":"{USER}","hall_id":"HALL-A","generated_at":"2026-02-19T18:10:45Z"}}')
    assert len(raw) == 12 + plain + 16


@pytest.mark.claim("qr/detects-changed-bit", "threat/tampered-payload")
@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=0, max_value=7))
def test_one_flipped_bit_is_refused(position: int, bit: int) -> None:
    raw = bytearray(base64.b64decode(SEAL.seal(SEAT, USER, "HALL-A").payload))
    raw[position % len(raw)] ^= 1 << bit
    assert is_refused(SEAL, base64.b64encode(bytes(raw)).decode())


@pytest.mark.claim("gate/unreadable-qr-changes-nothing")
@given(st.text(max_size=400))
def test_any_other_text_is_refused(text: str) -> None:
    assert is_refused(SEAL, text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p[:-4],
        lambda p: p + "====",
        lambda p: p + "\n",
        lambda p: " " + p,
        lambda p: p.replace("+", "-").replace("/", "_") + "-",
        lambda p: p + "A" * 4096,
        lambda p: "",
    ],
    ids=["truncated", "padded", "newline", "leading space", "url alphabet", "far too long", "empty"],
)
def test_another_text_for_a_payload_is_refused(spoil) -> None:
    assert is_refused(SEAL, spoil(SEAL.seal(SEAT, USER, "HALL-A").payload))


def test_trailing_bits_of_the_last_character_cannot_be_changed() -> None:
    """Base64 ignores these bits, so without the canonical check another text would open."""
    payload = next(
        p for p in (SEAL.seal(SEAT, USER, "HALL-" + "A" * n).payload for n in range(1, 4)) if p.endswith("=")
    )
    body = payload.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + "=" * (len(payload) - len(body))
    assert base64.b64decode(twin) == base64.b64decode(payload), "the twin decodes to the same bytes"
    assert is_refused(SEAL, twin)


@pytest.mark.claim("qr/unreadable-without-key")
def test_only_the_current_and_the_previous_key_open() -> None:
    before = SEAL.seal(SEAT, USER, "HALL-A").payload
    assert Seal(OTHER_KEY, previous=KEY).open(before).seat_id == SEAT
    assert is_refused(Seal(OTHER_KEY), before)
    assert is_refused(Seal(os.urandom(32), previous=OTHER_KEY), before)


@pytest.mark.claim("qr/created-at-transfer")
def test_transferred_seat_stores_the_qr_hash_of_its_new_owner() -> None:
    seller, sealed, sent = uuid4(), [], {}

    def seal(*facts: str) -> SealedQr:
        sealed.append(SEAL.seal(*facts))
        return sealed[-1]

    participants: Any = SimpleNamespace(
        seal=SimpleNamespace(seal=seal), inventory=SimpleNamespace(update_owner=lambda **fields: sent.update(fields))
    )
    state: Any = {
        "seat_id": str(SEAT), "hall_id": "HALL-A", "order_id": "an order",
        "seller_user_id": str(seller), "buyer_user_id": str(USER),
    }  # fmt: skip
    update_owner(participants, state, "key")
    [qr] = sealed
    assert SEAL.open(qr.payload).user_id == USER
    assert (sent["new_owner_id"], sent["qr_code_hash"]) == (str(USER), qr.digest)
