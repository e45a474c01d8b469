"""The composition root: settings in, a guarded Flask app with its background work out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from flask import Flask

from services.chassis import clients, web
from services.chassis.access import Revocations
from services.chassis.broker import Publisher
from services.chassis.clients import GrpcPeer, HttpPeer, Transport
from services.chassis.db import Database
from services.chassis.revocations import RevocationPoller
from services.chassis.tokens import Credential
from services.chassis.worker import Background, Worker
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from services.orchestrator.api import account, docs, purchase, transfer, verification
from services.orchestrator.api.context import Desk
from services.orchestrator.api.idempotency import IdempotencyKeys
from services.orchestrator.participants import Events, Holds, Inventory, Orders, Participants, Publishes, Users
from services.orchestrator.reserve_coalescing import Crowds
from services.orchestrator.saga.journal import Journal
from services.orchestrator.saga.outbox import TICK_SECONDS as OUTBOX_SECONDS
from services.orchestrator.saga.outbox import Outbox
from services.orchestrator.saga.recovery import COMPLETION_SECONDS, Completion, Heartbeat, Recovery
from services.orchestrator.saga.recovery import TICK_SECONDS as RECOVERY_SECONDS
from services.orchestrator.saga.runner import Observer, Runner, silent
from services.orchestrator.settings import SERVICE, Settings
from services.orchestrator.tickets.otp import OtpDesk
from services.orchestrator.tickets.qr import Seal
from services.orchestrator.tickets.scan import Gate

HOUSEKEEPING_SECONDS = 600.0


@dataclass(frozen=True)
class Seams:
    """What a suite may put in place of a real part; production takes every default.

    `transport` carries HTTP, `channel` gRPC, `publisher` AMQP, `journal` the two writes; `observer` hears each turn.
    """

    transport: Transport | None = None
    channel: Callable[[str], grpc.Channel] = clients.open_channel
    publisher: Publishes | None = None
    journal: Callable[..., Journal] = Journal
    observer: Observer = silent


PRODUCTION = Seams()


def participants(settings: Settings, seams: Seams, publisher: Publishes, crowds: Crowds) -> Participants:
    """Clients for everybody, with this service's credential."""
    credential = Credential(SERVICE, settings.process.internal_jwt_secret)
    stub = InventoryStub(seams.channel(settings.inventory_address))  # type: ignore[no-untyped-call]

    def peer(name: str, url: str) -> HttpPeer:
        return HttpPeer(name, url, credential, seams.transport)

    return Participants(
        users=Users(peer("User", settings.user_url)),
        orders=Orders(peer("Order", settings.order_url)),
        events=Events(peer("Event", settings.event_url)),
        inventory=Inventory(GrpcPeer("Inventory", credential), stub, crowds),
        holds=Holds(publisher),
        seal=Seal(settings.qr_key, settings.qr_previous_key),
    )


@dataclass(frozen=True)
class Orchestrator:
    """The parts of one orchestrator process, put together and not yet started."""

    settings: Settings
    db: Database
    publisher: Publishes
    to: Participants
    journal: Journal
    runner: Runner
    recovery: Recovery
    completion: Completion
    outbox: Outbox
    keys: IdempotencyKeys
    crowds: Crowds

    def app(self, revocations: Revocations) -> Flask:
        """The guarded routes."""
        seconds = self.settings.forward_seconds
        otp, gate = OtpDesk(self.to, seconds), Gate(self.to, seconds)
        desk = Desk(self.to, self.runner, otp, gate, self.keys, self.crowds, self.settings)
        app = web.create_app(self.settings.process, checks={"database": self.db.is_ready}, revocations=revocations)
        for routes in (purchase, transfer, verification, account):
            app.register_blueprint(routes.blueprint(desk))
        app.register_blueprint(docs.blueprint())
        return app

    def workers(self) -> list[Background]:
        """What runs beside the requests."""

        def keep_house() -> None:
            self.journal.forget_the_dead()
            self.keys.forget_old()

        return [
            Heartbeat(self.journal),
            Worker("recovery", self.recovery.tick, RECOVERY_SECONDS),
            Worker("completion", self.completion.tick, COMPLETION_SECONDS),
            Worker("outbox", self.outbox.tick, OUTBOX_SECONDS),
            Worker("housekeeping", keep_house, HOUSEKEEPING_SECONDS),
        ]


def compose(settings: Settings, seams: Seams = PRODUCTION) -> Orchestrator:
    """Put one process together: it opens pools, so call it after the fork."""
    db = Database(settings.database)
    publisher = seams.publisher or Publisher(settings.broker, SERVICE)
    crowds = Crowds()
    to = participants(settings, seams, publisher, crowds)
    journal = seams.journal(db, deadline_seconds=settings.deadline_seconds, park_seconds=settings.park_seconds)
    runner = Runner(
        journal,
        to,
        forward_seconds=settings.forward_seconds,
        resolve_seconds=settings.resolve_seconds,
        observer=seams.observer,
    )
    return Orchestrator(
        settings=settings,
        db=db,
        publisher=publisher,
        to=to,
        journal=journal,
        runner=runner,
        recovery=Recovery(journal, runner),
        completion=Completion(to, runner),
        outbox=Outbox(db, to.users),
        keys=IdempotencyKeys(db, journal.instance_id),
        crowds=crowds,
    )


def build(settings: Settings, seams: Seams = PRODUCTION) -> Flask:
    """The whole service, ready to be served."""
    orchestrator = compose(settings, seams)
    credential = Credential(SERVICE, settings.process.internal_jwt_secret)
    revocations = RevocationPoller(HttpPeer("User", settings.user_url, credential))
    publisher = [orchestrator.publisher] if isinstance(orchestrator.publisher, Publisher) else []
    return web.finish(orchestrator.app(revocations), *publisher, revocations, *orchestrator.workers())
