"""The composition root: settings in, a guarded Flask app with its background work out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from flask import Flask

from services.chassis import clients, web
from services.chassis.broker import Publisher
from services.chassis.clients import GrpcPeer, HttpPeer, Transport
from services.chassis.db import Database
from services.chassis.revocations import RevocationPoller
from services.chassis.tokens import Credential
from services.chassis.worker import Background, Worker
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from services.orchestrator import outbox, recovery
from services.orchestrator.desk import Desk
from services.orchestrator.gate import Gate
from services.orchestrator.idempotency import IdempotencyKeys
from services.orchestrator.journal import Journal
from services.orchestrator.otp import OtpDesk
from services.orchestrator.participants import Events, Holds, Inventory, Orders, Participants, Publishes, Users
from services.orchestrator.qr import Seal
from services.orchestrator.routes import account, purchase, transfer, verification
from services.orchestrator.runner import Observer, Runner, silent
from services.orchestrator.settings import SERVICE, Settings

HOUSEKEEPING_SECONDS = 600.0


@dataclass(frozen=True)
class Seams:
    """What a suite may put in place of a real part; production takes every default.

    `transport` carries HTTP, `channel` gRPC, `publisher` AMQP; `observer` is told of each turn of a saga.
    """

    transport: Transport | None = None
    channel: Callable[[str], grpc.Channel] = clients.channel
    publisher: Publishes | None = None
    observer: Observer = silent


PRODUCTION = Seams()


def participants(settings: Settings, seams: Seams, publisher: Publishes) -> Participants:
    """Clients for everybody, with this service's credential."""
    credential = Credential(SERVICE, settings.process.internal_jwt_secret)
    stub = InventoryStub(seams.channel(settings.inventory_address))  # type: ignore[no-untyped-call]

    def peer(name: str, url: str) -> HttpPeer:
        return HttpPeer(name, url, credential, seams.transport)

    return Participants(
        users=Users(peer("User", settings.user_url)),
        orders=Orders(peer("Order", settings.order_url)),
        events=Events(peer("Event", settings.event_url)),
        inventory=Inventory(GrpcPeer("Inventory", credential), stub),
        holds=Holds(publisher),
        seal=Seal(settings.qr_key, settings.qr_previous_key),
    )


def build(settings: Settings, seams: Seams = PRODUCTION) -> Flask:
    """The whole service. Call it after the fork: it opens pools and threads."""
    db = Database(settings.database)
    publisher = seams.publisher or Publisher(settings.broker, SERVICE)
    to = participants(settings, seams, publisher)
    journal = Journal(db, deadline_seconds=settings.deadline_seconds, park_seconds=settings.park_seconds)
    runner = Runner(
        journal,
        to,
        forward_seconds=settings.forward_seconds,
        resolve_seconds=settings.resolve_seconds,
        observer=seams.observer,
    )
    keys = IdempotencyKeys(db, journal.incarnation)
    credential = Credential(SERVICE, settings.process.internal_jwt_secret)
    revocations = RevocationPoller(HttpPeer("User", settings.user_url, credential))
    app = web.create_app(settings.process, checks={"database": db.is_ready}, revocations=revocations)
    desk = Desk(to, runner, OtpDesk(to, settings.forward_seconds), Gate(to, settings.forward_seconds), keys, settings)
    for routes in (purchase, transfer, verification, account):
        app.register_blueprint(routes.blueprint(desk))
    own = [publisher] if isinstance(publisher, Publisher) else []
    return web.finish(app, *own, revocations, *_workers(db, journal, runner, keys, to))


def _workers(
    db: Database, journal: Journal, runner: Runner, keys: IdempotencyKeys, to: Participants
) -> list[Background]:
    def keep_house() -> None:
        journal.forget_the_dead()
        keys.forget_old()

    return [
        recovery.Heartbeat(journal),
        Worker("recovery", recovery.Recovery(journal, runner).tick, recovery.TICK_SECONDS),
        Worker("completion", recovery.Completion(to, runner).tick, recovery.COMPLETION_SECONDS),
        Worker("outbox", outbox.Outbox(db, to.users).tick, outbox.TICK_SECONDS),
        Worker("housekeeping", keep_house, HOUSEKEEPING_SECONDS),
    ]
