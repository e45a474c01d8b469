"""Small promises of the reference that no other test file covers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from flask import Flask

from harness.dev.spec_bundle import bundle
from harness.runtime.compose import ROOT
from services.chassis.access import public
from services.chassis.errors import ConfigurationError
from services.chassis.logs import JsonFormatter
from services.chassis.settings import DatabaseSettings, Env
from services.chassis.tokens import Credential
from services.inventory.app import build
from tests.support.databases import Databases
from tests.support.service_settings import INTERNAL_SECRET, new_id
from tests.unit.inventory.inventory_service import InventoryService, settings_for
from tests.unit.order.order_service import OrderService

pytestmark = pytest.mark.unit

COLLECTION = ROOT / "specs" / "postman" / "TicketRemaster.postman_collection.json"
CARD = re.compile(r"card|cvc|cvv|\bpan\b|expiry", re.IGNORECASE)
SIDS = "SELECT * FROM {table} WHERE {table_id} = %(id)s::uuid"


@pytest.fixture(scope="module")
def orders(database_for: Callable[[str], DatabaseSettings]) -> Iterator[OrderService]:
    service = OrderService(database_for("order"))
    yield service
    service.db.close()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log lines that a process would write."""
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(JsonFormatter("inventory-service"))
    return caplog


@pytest.fixture(scope="module")
def inventory(databases: Databases) -> Iterator[InventoryService]:
    service = InventoryService(databases)
    yield service
    service.close()


@pytest.fixture(scope="module")
def inventory_app(databases: Databases, inventory: InventoryService) -> Iterator[Flask]:
    app = build(settings_for(databases.database_for("inventory")), inventory.db)

    @app.get("/broken")
    @public
    def fail() -> str:
        raise RuntimeError("a bug")

    yield app
    app.extensions["background"][-1].stop()


# ── section 3


@pytest.mark.claim("schema/orders.verification_sid")
def test_sid_of_an_order_is_deleted_after_verification(orders: OrderService) -> None:
    order_id = orders.add_flagged()
    assert sids(orders, "orders", "order_id", order_id) == ["VE1"]
    orders.try_code(f"orders/{order_id}", "approved")
    assert sids(orders, "orders", "order_id", order_id) == [None]


@pytest.mark.claim(
    "schema/transfers.seller_verification_sid",
    "schema/transfers.buyer_verification_sid",
    "schema/transfers.seller_otp_verified",
    "schema/transfers.buyer_otp_verified",
)
def test_sid_of_each_party_is_deleted_after_its_verification(orders: OrderService) -> None:
    transfer_id = orders.add_awaiting()
    assert sids(orders, "transfers", "transfer_id", transfer_id) == ["VEs", "VEb"]
    orders.try_code(f"transfers/{transfer_id}", "approved", party="SELLER")
    assert sids(orders, "transfers", "transfer_id", transfer_id) == [None, "VEb"]
    orders.try_code(f"transfers/{transfer_id}", "approved", party="BUYER")
    assert sids(orders, "transfers", "transfer_id", transfer_id) == [None, None]


def sids(service: OrderService, table: str, table_id: str, row_id: str) -> list[Any]:
    """Return the verification sids of a row."""
    with service.db.transaction() as tx:
        row = tx.only(SIDS.format(table=table, table_id=table_id), id=row_id)
    return [
        row[name] for name in ("verification_sid", "seller_verification_sid", "buyer_verification_sid") if name in row
    ]


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


# ── section 12


@pytest.mark.claim("lock/none-for-browsing")
def test_seat_map_is_readable_while_a_seat_is_locked(
    inventory: InventoryService, inventory_app: Flask, databases: Databases
) -> None:
    event_id = new_id()
    seat_id = inventory.new_seat(event_id)
    headers = {"Authorization": Credential("event-service", INTERNAL_SECRET).header()}
    at = databases.database_for("inventory")
    with closing(psycopg2.connect(host=at.host, port=at.port, dbname=at.name, user=at.user)) as other:
        other.cursor().execute("SELECT FROM seats WHERE seat_id = %s FOR UPDATE", (seat_id,))
        answer = inventory_app.test_client().get(f"/seats?event_id={event_id}", headers=headers)
    assert [seat["seat_id"] for seat in answer.get_json()["data"]["seats"]] == [seat_id]


# ── section 13


@pytest.mark.claim("log/stack-traces", "log/error-level", "log/unhandled-error")
def test_unhandled_error_is_logged_with_trace_and_id(inventory_app: Flask, logged: pytest.LogCaptureFixture) -> None:
    correlation_id = str(uuid4())
    answer = inventory_app.test_client().get("/broken", headers={"X-Correlation-ID": correlation_id})
    assert answer.status_code == 500
    [line] = [json.loads(text) for text in logged.text.splitlines() if '"ERROR"' in text]
    assert (line["level"], line["correlation_id"]) == ("ERROR", correlation_id)
    assert "RuntimeError: a bug" in line["exception"]
    assert "Traceback" in line["exception"]
    assert "a bug" not in answer.text


# ── section 15


@pytest.mark.claim("testing/postman-folders", "testing/postman-variables")
def test_postman_has_a_folder_per_scenario_and_stores_tokens() -> None:
    collection = json.loads(COLLECTION.read_text())
    assert [folder["name"] for folder in collection["item"]] == ["Auth", "Purchase", "Transfer", "Verification"]
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
