"""The composition root: builds the Flask app and its background workers from the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc
from flask import Flask

from services.chassis import clients, web
from services.chassis.access import Revocations
from services.chassis.broker import Publisher
from services.chassis.clean_ups import CleanUps
from services.chassis.clients import CALL_SECONDS, GrpcPeer, HttpPeer, Transport
from services.chassis.db import Database
from services.chassis.neighbours import PROBE_SECONDS
from services.chassis.revocations import RevocationPoller
from services.chassis.tokens import Credential
from services.chassis.worker import Background, Worker
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from services.orchestrator.api import account, docs, purchase, staff, transfer, verification
from services.orchestrator.api.context import ApiContext
from services.orchestrator.api.idempotency import RELEASE_SECONDS, IdempotencyKeys
from services.orchestrator.api.rate_limits import ExpensiveCalls
from services.orchestrator.participants import (
    Events,
    HoldMessages,
    Inventory,
    MessagePublisher,
    Need,
    Orders,
    Participants,
    Users,
)
from services.orchestrator.reserve_coalescing import ReserveCoalescer
from services.orchestrator.saga.journal import Journal
from services.orchestrator.saga.outbox import TICK_SECONDS as OUTBOX_SECONDS
from services.orchestrator.saga.outbox import Outbox
from services.orchestrator.saga.recovery import COMPLETION_SECONDS, Completion, Heartbeat, Recovery
from services.orchestrator.saga.recovery import TICK_SECONDS as RECOVERY_SECONDS
from services.orchestrator.saga.runner import Observer, Runner, ignore_turn
from services.orchestrator.settings import SERVICE, Settings
from services.orchestrator.tickets.otp import OtpService
from services.orchestrator.tickets.qr import Seal
from services.orchestrator.tickets.scan import TicketScanner

HOUSEKEEPING_SECONDS = 600.0


@dataclass(frozen=True)
class Seams:
    """The parts that a test can replace. Production uses every default.

    `transport` carries HTTP, `channel` gRPC and `publisher` AMQP. `journal` writes the journal. `observer` is called
    at each turn of a saga.
    """

    transport: Transport | None = None
    channel: Callable[[str], grpc.Channel] = clients.open_channel
    publisher: MessagePublisher | None = None
    journal: Callable[..., Journal] = Journal
    observer: Observer = ignore_turn


PRODUCTION = Seams()


def connect_participants(
    settings: Settings, seams: Seams, publisher: MessagePublisher, coalescer: ReserveCoalescer, journal: Journal
) -> Participants:
    """Create the clients of all services, with this service's credential."""
    slots = settings.process.share
    stub = InventoryStub(seams.channel(settings.inventory_address))  # type: ignore[no-untyped-call]

    def connect(name: str, url: str, credential: Credential, probe_seconds: float = PROBE_SECONDS) -> HttpPeer:
        return HttpPeer(name, url, credential, seams.transport, slots, probe_seconds)

    for_user = _create_credential(settings, "user-service")
    user = connect("User", settings.user_url, for_user)
    order = connect("Order", settings.order_url, _create_credential(settings, "order-service"))
    event = connect("Event", settings.event_url, _create_credential(settings, "event-service"))
    # These calls take as long as SMU and Stripe take.
    smu = connect("User for SMU", settings.user_url, for_user, CALL_SECONDS)
    stripe = connect("User for Stripe", settings.user_url, for_user, CALL_SECONDS)
    inventory = GrpcPeer("Inventory", _create_credential(settings, "inventory-service"), slots, PROBE_SECONDS)
    neighbours = {
        Need.USERS: user.neighbour,
        Need.ORDERS: order.neighbour,
        Need.INVENTORY: inventory.neighbour,
        Need.EVENTS: event.neighbour,
        Need.SMU: smu.neighbour,
        Need.STRIPE: stripe.neighbour,
    }
    if isinstance(publisher, Publisher):
        neighbours[Need.BROKER] = publisher.neighbour
    return Participants(
        users=Users(user, smu, stripe),
        orders=Orders(order),
        events=Events(event),
        inventory=Inventory(inventory, stub, coalescer),
        hold_messages=HoldMessages(publisher),
        seal=Seal(settings.qr_key, settings.qr_previous_key),
        find_live_flow=journal.find_live_flow,
        neighbours=neighbours,
    )


def _create_credential(settings: Settings, called: str) -> Credential:
    return Credential(SERVICE, settings.process.private_key, called)


@dataclass(frozen=True)
class Orchestrator:
    """The parts of one orchestrator process, before it starts."""

    settings: Settings
    db: Database
    publisher: MessagePublisher
    participants: Participants
    journal: Journal
    runner: Runner
    recovery: Recovery
    completion: Completion
    outbox: Outbox
    keys: IdempotencyKeys
    otp: OtpService
    clean_ups: CleanUps
    coalescer: ReserveCoalescer

    def create_app(self, revocations: Revocations) -> Flask:
        """Create the Flask app with all routes behind the access checks."""
        seconds = self.settings.forward_seconds
        context = ApiContext(
            participants=self.participants,
            runner=self.runner,
            otp=self.otp,
            scanner=TicketScanner(self.participants, seconds, self.settings.admission),
            keys=self.keys,
            coalescer=self.coalescer,
            settings=self.settings,
            expensive_calls=ExpensiveCalls(self.settings.expensive_calls, self.settings.expensive_calls_of_address),
        )
        app = web.create_app(self.settings.process, checks={"database": self.db.is_ready}, revocations=revocations)
        for routes in (purchase, transfer, verification, account):
            app.register_blueprint(routes.blueprint(context))
        app.register_blueprint(staff.blueprint(self.db, context))
        app.register_blueprint(docs.blueprint())
        return app

    def create_workers(self) -> list[Background]:
        """Create the background workers."""

        def run_housekeeping() -> None:
            self.journal.delete_stale_heartbeats()
            self.keys.delete_expired()

        return [
            Heartbeat(self.journal),
            Worker("recovery", self.recovery.tick, RECOVERY_SECONDS),
            Worker("completion", self.completion.tick, COMPLETION_SECONDS),
            Worker("outbox", self.outbox.tick, OUTBOX_SECONDS),
            Worker("release of keys", self.keys.release_abandoned, RELEASE_SECONDS),
            self.clean_ups,
            Worker("housekeeping", run_housekeeping, HOUSEKEEPING_SECONDS),
        ]


def compose(settings: Settings, seams: Seams = PRODUCTION) -> Orchestrator:
    """Create the parts of one process. It opens connection pools, so call it after the fork."""
    db = Database(settings.database)
    publisher = seams.publisher or Publisher(settings.broker, SERVICE, settings.process.share)
    coalescer, clean_ups = ReserveCoalescer(), CleanUps()
    journal = seams.journal(db, deadline_seconds=settings.deadline_seconds, park_seconds=settings.park_seconds)
    participants = connect_participants(settings, seams, publisher, coalescer, journal)
    runner = Runner(
        journal,
        participants,
        forward_seconds=settings.forward_seconds,
        resolve_seconds=settings.resolve_seconds,
        observer=seams.observer,
    )
    return Orchestrator(
        settings=settings,
        db=db,
        publisher=publisher,
        participants=participants,
        journal=journal,
        runner=runner,
        recovery=Recovery(journal, runner),
        completion=Completion(participants, runner),
        outbox=Outbox(db, participants.users, settings.notices_at_once),
        keys=IdempotencyKeys(db, journal.instance_id),
        otp=OtpService(participants, settings.forward_seconds, clean_ups),
        clean_ups=clean_ups,
        coalescer=coalescer,
    )


def build(settings: Settings, seams: Seams = PRODUCTION) -> Flask:
    """Create the service with its background workers, ready to serve."""
    orchestrator = compose(settings, seams)
    credential = _create_credential(settings, "user-service")
    revocations = RevocationPoller(HttpPeer("User for revocations", settings.user_url, credential))
    publisher = [orchestrator.publisher] if isinstance(orchestrator.publisher, Publisher) else []
    return web.finish(orchestrator.create_app(revocations), *publisher, revocations, *orchestrator.create_workers())
