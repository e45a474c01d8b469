"""Builds Event."""

from __future__ import annotations

from flask import Flask

from services.chassis.access import Revocations
from services.chassis.clients import HttpPeer, Transport
from services.chassis.db import Database
from services.chassis.revocations import RevocationPoller
from services.chassis.tokens import Credential
from services.chassis.web import create_app, finish
from services.event.catalogue import Catalogue
from services.event.inventory_client import InventoryClient
from services.event.routes import event_routes
from services.event.settings import Settings


def build(
    settings: Settings,
    database: Database | None = None,
    inventory: Transport | None = None,
    revocations: Revocations | None = None,
) -> Flask:
    """Build the app. Without `revocations`, it polls User for revoked sessions from the start of the server."""
    db = database or Database(settings.database)
    process = settings.process
    for_inventory, for_user = (
        Credential(process.service, process.private_key, called) for called in ("inventory-service", "user-service")
    )
    peer = HttpPeer("Inventory", settings.inventory_http_url, for_inventory, inventory, process.share)
    poller = RevocationPoller(HttpPeer("User for revocations", settings.user_service_url, for_user))
    app = create_app(process, checks={"database": db.is_ready}, revocations=revocations or poller)
    app.register_blueprint(event_routes(db, Catalogue(db, InventoryClient(peer))))
    return finish(app, *([] if revocations else [poller]))
