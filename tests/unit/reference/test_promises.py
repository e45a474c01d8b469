"""Small promises of the reference that no other test file covers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from harness.dev.spec_bundle import bundle
from harness.runtime.compose import ROOT
from services.chassis.errors import ConfigurationError
from services.chassis.settings import Env

pytestmark = pytest.mark.unit

COLLECTION = ROOT / "specs" / "postman" / "TicketRemaster.postman_collection.json"
CARD = re.compile(r"card|cvc|cvv|\bpan\b|expiry", re.IGNORECASE)


# ── section 7.1


@pytest.mark.claim("qr/key-of-32-bytes", "env/qr-key")
@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_qr_key_without_32_bytes_stops_the_start(length: int) -> None:
    assert Env({"QR_ENCRYPTION_KEY": "k" * 32}).key("QR_ENCRYPTION_KEY") == b"k" * 32
    with pytest.raises(ConfigurationError, match="QR_ENCRYPTION_KEY"):
        Env({"QR_ENCRYPTION_KEY": "k" * length}).key("QR_ENCRYPTION_KEY")


# ── section 9


@pytest.mark.claim("stripe/card-never-reaches-us")
@pytest.mark.parametrize("server", ["gateway", "user", "orchestrator"])
def test_no_call_accepts_card_data(server: str) -> None:
    assert [name for name in properties(bundle(server)) if CARD.search(name)] == []


def properties(node: Any) -> Iterator[str]:
    """Yield the name of every property of every schema."""
    if isinstance(node, dict):
        yield from node.get("properties", {}) if isinstance(node.get("properties"), dict) else ()
        for value in node.values():
            yield from properties(value)
    elif isinstance(node, list):
        for value in node:
            yield from properties(value)


# ── section 15


@pytest.mark.claim("testing/postman-folders", "testing/postman-variables")
def test_postman_has_a_folder_per_scenario_and_stores_tokens() -> None:
    collection = json.loads(COLLECTION.read_text())
    assert [folder["name"] for folder in collection["item"]] == [
        "Auth",
        "Purchase",
        "Transfer",
        "Verification",
        "Account",
    ]
    assert "{{gateway_url}}/api/reserve" in COLLECTION.read_text()
    kept = [line for event in events(collection) for line in event["script"]["exec"] if "access_token" in line]
    assert {match[1] for line in kept if (match := re.search(r"\.set\('(\w+)_token'", line))} >= {
        "seller",
        "buyer",
        "staff",
    }


def events(node: Any) -> Iterator[Any]:
    """Yield every script of a collection."""
    if isinstance(node, dict):
        yield from node.get("event", [])
        for child in node.get("item", []):
            yield from events(child)
