"""The QR ticket: what is not exactly what we sealed does not open (§7.1)."""

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


def _refused(seal: Seal, payload: str) -> bool:
    with pytest.raises(Refused) as refusal:
        seal.open(payload)
    return refusal.value.code == "QR_INVALID"


@pytest.mark.claim(
    "gate/decrypts-qr", "qr/holds-seat", "qr/holds-user", "qr/holds-hall", "qr/holds-time", "qr/aes-256-gcm"
)
def test_what_was_sealed_opens_to_the_second() -> None:
    sealed = SEAL.seal(SEAT, USER, "HALL-A")
    ticket = SEAL.open(sealed.payload)
    assert (ticket.seat_id, ticket.user_id, ticket.hall_id) == (SEAT, USER, "HALL-A")
    assert ticket.generated_at.microsecond == 0
    assert abs(datetime.now(UTC) - ticket.generated_at) < timedelta(seconds=3)
    assert sealed.expires_at - sealed.generated_at == timedelta(seconds=60)


@pytest.mark.claim("qr/fresh-nonce", "qr/never-repeats", "threat/duplicated-qr")
def test_no_two_payloads_are_alike() -> None:
    assert len({SEAL.seal(SEAT, USER, "HALL-A").payload for _ in range(50)}) == 50


@pytest.mark.claim("qr/aes-256-gcm", "qr/base64-layout", "qr/fresh-nonce", "qr/unreadable-without-key")
def test_layout_is_nonce_ciphertext_tag_of_aes_256_gcm() -> None:
    raw = base64.b64decode(SEAL.seal(SEAT, USER, "HALL-A").payload)
    said = AESGCM(KEY).decrypt(raw[:12], raw[12:], None)
    assert json.loads(said).keys() == {"seat_id", "user_id", "hall_id", "generated_at"}
    assert not any(part in raw for part in (str(SEAT).encode(), str(USER).encode(), b"HALL-A"))
    plain = len(f'{{"seat_id":"{SEAT}","user_id":"{USER}","hall_id":"HALL-A","generated_at":"2026-02-19T18:10:45Z"}}')
    assert len(raw) == 12 + plain + 16


@pytest.mark.claim("qr/detects-changed-bit", "threat/tampered-payload")
@given(st.integers(min_value=0, max_value=10_000), st.integers(min_value=0, max_value=7))
def test_one_flipped_bit_is_refused(position: int, bit: int) -> None:
    raw = bytearray(base64.b64decode(SEAL.seal(SEAT, USER, "HALL-A").payload))
    raw[position % len(raw)] ^= 1 << bit
    assert _refused(SEAL, base64.b64encode(bytes(raw)).decode())


@pytest.mark.claim("gate/unreadable-qr-changes-nothing")
@given(st.text(max_size=400))
def test_any_text_is_refused_and_nothing_else(text: str) -> None:
    assert _refused(SEAL, text)


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
    assert _refused(SEAL, spoil(SEAL.seal(SEAT, USER, "HALL-A").payload))


def test_trailing_bits_of_the_last_character_cannot_be_changed() -> None:
    """base64 ignores them: without the canonical check another text would open."""
    payload = next(
        p for p in (SEAL.seal(SEAT, USER, "HALL-" + "A" * n).payload for n in range(1, 4)) if p.endswith("=")
    )
    body = payload.rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + "=" * (len(payload) - len(body))
    assert base64.b64decode(twin) == base64.b64decode(payload), "the twin decodes to the same bytes"
    assert _refused(SEAL, twin)


@pytest.mark.claim("qr/unreadable-without-key")
def test_previous_key_opens_after_a_rotation_and_a_third_does_not() -> None:
    before = SEAL.seal(SEAT, USER, "HALL-A").payload
    assert Seal(OTHER_KEY, previous=KEY).open(before).seat_id == SEAT
    assert _refused(Seal(OTHER_KEY), before)
    assert _refused(Seal(os.urandom(32), previous=OTHER_KEY), before)


@pytest.mark.claim("qr/created-at-transfer")
def test_a_seat_that_is_handed_over_keeps_the_hash_of_a_qr_of_its_new_owner() -> None:
    seller, sealed, told = uuid4(), [], {}

    def seal(*facts: str) -> SealedQr:
        sealed.append(SEAL.seal(*facts))
        return sealed[-1]

    participants: Any = SimpleNamespace(
        seal=SimpleNamespace(seal=seal), inventory=SimpleNamespace(update_owner=lambda **fields: told.update(fields))
    )
    state: Any = {
        "seat_id": str(SEAT), "hall_id": "HALL-A", "order_id": "an order",
        "seller_user_id": str(seller), "buyer_user_id": str(USER),
    }  # fmt: skip
    update_owner(participants, state, "key")
    (made,) = sealed
    assert SEAL.open(made.payload).user_id == USER
    assert (told["new_owner_id"], told["qr_code_hash"]) == (str(USER), made.digest)
