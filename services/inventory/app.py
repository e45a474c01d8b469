"""Builds Inventory: gRPC for the orchestrator, HTTP for Event, the queue consumer and the sweeper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask

from services.chassis.broker import Publisher
from services.chassis.clients import HttpPeer
from services.chassis.db import Database
from services.chassis.tokens import Credential
from services.chassis.web import create_app, finish
from services.chassis.worker import Worker
from services.contracts.pb import inventory_pb2
from services.contracts.pb.inventory_pb2_grpc import add_InventoryServicer_to_server
from services.inventory import metrics
from services.inventory.consumer import PARKING_QUEUE, RELEASE_QUEUE, SeatReleases
from services.inventory.grpc_server import GrpcServer, require_callers
from services.inventory.order_notifier import OrderNotifier
from services.inventory.queue_consumer import Consumer
from services.inventory.routes import seat_routes
from services.inventory.seat_maps import SeatMaps
from services.inventory.servicer import Inventory
from services.inventory.settings import Settings
from services.inventory.sweeper import Sweeper


def build(settings: Settings, database: Database | None = None) -> Flask:
    """Build the app and its background work, which the server starts later.

    Only the database decides readiness. Without RabbitMQ, seats are still sold and the sweeper releases holds.
    """
    db = database or Database(settings.database)
    name = settings.process.service
    publisher = Publisher(settings.broker, name)
    credential = Credential(name, settings.process.private_key, "order-service")
    notifier = OrderNotifier(HttpPeer("Order", settings.order_url, credential))
    consumer = Consumer(
        settings.broker,
        f"{name}-consumer",
        RELEASE_QUEUE,
        SeatReleases(db, publisher, notifier.notify).handle,
        may_consume=db.is_ready,
        counted_queue=PARKING_QUEUE,
    )
    metrics.PARKED_NOW.set_function(lambda: float("nan") if consumer.counted is None else consumer.counted)
    sweeper = Worker("hold sweeper", Sweeper(db, settings.sweep_grace_seconds).tick, settings.sweep_seconds)
    app = create_app(settings.process, checks={"database": db.is_ready}, facts=lambda: _facts(consumer))
    app.register_blueprint(seat_routes(SeatMaps(db)))
    return finish(app, publisher, notifier, consumer, sweeper, build_grpc_server(settings, db))


def build_grpc_server(settings: Settings, db: Database) -> GrpcServer:
    """Build the gRPC server. It has its port, but serves only after `start`."""
    service = inventory_pb2.DESCRIPTOR.services_by_name["Inventory"]
    servicer = Inventory(db, settings.process.service_keys, settings.limits)
    require_callers(servicer, service)
    return GrpcServer(
        f"{settings.process.bind}:{settings.grpc_port}",
        lambda server: add_InventoryServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
        service,
        settings.grpc_threads,
    )


def _facts(consumer: Consumer) -> Mapping[str, Any]:
    """The state of the consumer for operators (D38). It does not affect readiness."""
    return {"consumer": consumer.state, "parked_messages": consumer.counted}
