"""The answers that need a fault underneath: 500 of a saga undone, 503 without databases, 429 at the gateway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import Stack
from harness.dev.spec_bundle import Document, bundle
from tests.contract.callers import CUSTOMER, STAFF, Callers
from tests.contract.exchanges import Listening
from tests.contract.probes import Operation, Prober, all_of
from tests.contract.scenarios import answer, locked, signed
from tests.support import qr
from tests.support.system import TestSystem

UNDONE_SECONDS = 5.0  # longer than a saga asks for (4 s), shorter than it settles (3 s more)


def undone(system: TestSystem) -> None:
    """500 INTERNAL_ERROR: the seat's row is locked until the saga has given up, and everything is taken back."""
    with ThreadPoolExecutor(4) as pool:
        works = (_pay_undone, _confirm_undone, _reverse_undone, _initiate_undone)
        for done in [pool.submit(work, system) for work in works]:
            done.result()


def _pay_undone(system: TestSystem) -> None:
    buyer = system.person()
    seat, order = system.held(buyer)
    with locked(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        answer(buyer.pay(order), 500)


def _confirm_undone(system: TestSystem) -> None:
    seller, buyer = system.people(2)
    seat = system.ticket(seller)
    transfer = system.initiated(seller, buyer, seat)
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
    with locked(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        answer(seller.confirm(transfer, **codes), 500)


def _reverse_undone(system: TestSystem) -> None:
    (seller, buyer), staff = system.people(2), system.staff()
    seat = system.ticket(seller)
    transfer = system.disputed(seller, buyer, seat)
    with locked(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        answer(staff.transfer("reverse", transfer), 500)


def _initiate_undone(system: TestSystem) -> None:
    seller, buyer = system.people(2)
    seat = system.ticket(seller)
    with system.smu.fault("status", "/SendOTP", where={"Mobile": seller.phone}, status=503):
        answer(seller.initiate(seat, seller.user_id, buyer.user_id, 10), 500)


def limited(stack: Stack, pool: Listening, callers: Callers) -> None:
    """429 GATEWAY_REJECTED: one call a minute, for every operation."""
    one = {"RATE_LIMIT_PER_MINUTE": "1", "RATE_LIMIT_PUBLIC_PER_MINUTE": "1"}
    stack.restart("api-gateway", env=one)
    pool.move("gateway", stack.url("api-gateway"))
    try:
        prober = Prober(stack.url("api-gateway"), callers, pool)
        for operation in all_of(bundle("gateway")):
            if 429 in operation.statuses:
                token = callers.headers(operation.definition, operation.schemes, CUSTOMER)
                for _ in range(2):
                    prober.ask(operation, None, headers=token)
    finally:
        stack.restart("api-gateway", env={})
        pool.move("gateway", stack.url("api-gateway"))


def without_databases(
    system: TestSystem, stack: Stack, pool: Listening, callers: Callers, addresses: dict[str, str]
) -> None:
    """503 SERVICE_UNAVAILABLE: every operation that needs a database, with PostgreSQL stopped."""
    key = system.env("orchestrator-service")["QR_ENCRYPTION_KEY"]
    ticket = qr.seal(key, system.seat(), str(CUSTOMER))
    event, signature = signed(system)
    special: dict[str, dict[str, Any]] = {
        "stripeWebhook": {"body": event, "headers": signature},
        "verify": {"body": {"qr_payload": ticket, "hall_id": "HALL-B"}},
    }
    stack.stop("postgres")
    try:
        with ThreadPoolExecutor(8) as several:  # some ask again for seconds before they give up
            for server, url in addresses.items():
                prober = Prober(url, callers, pool)
                for operation in _needing(bundle(server)):
                    user_id = STAFF if "Staff" in operation.definition["tags"] else CUSTOMER
                    several.submit(prober.ask, operation, user_id, **special.get(operation.id, {}))
    finally:
        stack.start("postgres")
        system.until("everybody is well again", system.healthy, 60)


def _needing(document: Document) -> list[Operation]:
    return [operation for operation in all_of(document) if 503 in operation.statuses]
