"""Answers that need an injected fault: 500 of an undone saga, 503 without databases, 429 at the gateway."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import Stack
from harness.dev.spec_bundle import Document, bundle
from tests.contract.credentials import CUSTOMER, STAFF, Credentials, Headers
from tests.contract.exchanges import RecordingPool
from tests.contract.probes import Operation, Prober, list_operations
from tests.contract.scenarios import expect, hold_row_lock, sign_event
from tests.support import qr
from tests.support.system import TestSystem

UNDONE_SECONDS = 5.0  # longer than a saga retries a step (4 s), shorter than with its compensation (3 s more)


def cover_undone_sagas(system: TestSystem) -> None:
    """Get 500 INTERNAL_ERROR: the row of the seat stays hold_row_lock until the saga compensates."""
    works = (_undo_pay, _undo_confirm, _undo_reverse, _undo_refund, _undo_initiate)
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work, system) for work in works]:
            done.result()


def _undo_pay(system: TestSystem) -> None:
    buyer = system.person()
    seat, order = system.hold_seat(buyer)
    with hold_row_lock(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        expect(buyer.pay(order), 500)


def _undo_confirm(system: TestSystem) -> None:
    seller, buyer = system.people(2)
    seat = system.insert_ticket(seller)
    transfer = system.start_transfer(seller, buyer, seat)
    codes = {"seller_otp": system.code(seller), "buyer_otp": system.code(buyer)}
    with hold_row_lock(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        expect(seller.confirm(transfer, **codes), 500)


def _undo_reverse(system: TestSystem) -> None:
    (seller, buyer), staff = system.people(2), system.staff()
    seat = system.insert_ticket(seller)
    transfer = system.dispute_transfer(seller, buyer, seat)
    with hold_row_lock(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        expect(staff.transfer("reverse", transfer), 500)


def _undo_refund(system: TestSystem) -> None:
    buyer, staff = system.person(), system.staff()
    seat, order = system.buy_seat(buyer)
    with hold_row_lock(system, "seats_db", "seats", "seat_id", seat, UNDONE_SECONDS):
        expect(staff.refund(order), 500)


def _undo_initiate(system: TestSystem) -> None:
    seller, buyer = system.people(2)
    seat = system.insert_ticket(seller)
    with system.smu.fault("status", "/SendOTP", where={"Mobile": seller.phone}, status=503):
        expect(seller.initiate(seat, seller.user_id, buyer.user_id, 10), 500)


def cover_rate_limits(stack: Stack, pool: RecordingPool, credentials: Credentials) -> None:
    """Get 429 GATEWAY_REJECTED from every operation, under a limit of one call a minute."""
    stack.restart("api-gateway", env={"RATE_LIMIT_PER_MINUTE": "1", "RATE_LIMIT_PUBLIC_PER_MINUTE": "1"})
    pool.move("gateway", stack.url("api-gateway"))
    try:
        prober = Prober(stack.url("api-gateway"), credentials, pool)
        for operation in list_operations(bundle("gateway")):
            if 429 in operation.statuses:
                token = credentials.headers(operation.document, operation.definition, CUSTOMER)
                for _ in range(2):
                    prober.call(operation, None, headers=token)
    finally:
        stack.restart("api-gateway", env={})
        pool.move("gateway", stack.url("api-gateway"))


def cover_missing_databases(
    system: TestSystem, stack: Stack, pool: RecordingPool, credentials: Credentials, addresses: dict[str, str]
) -> None:
    """Get 503 SERVICE_UNAVAILABLE from every operation that needs a database, while PostgreSQL is stopped."""
    key = system.env("orchestrator-service")["QR_ENCRYPTION_KEY"]
    ticket = qr.seal(key, system.seat(), str(CUSTOMER))
    event, signature = sign_event(system)
    special: dict[str, dict[str, Any]] = {
        "stripeWebhook": {"body": event, "headers": signature},
        "verify": {"body": {"qr_payload": ticket, "hall_id": "HALL-B"}},
    }
    calls = [
        (Prober(url, credentials, pool), operation, {"headers": _make_headers(credentials, operation)})
        for server, url in addresses.items()
        for operation in _list_database_operations(bundle(server))
    ]
    stack.stop("postgres")
    try:
        with ThreadPoolExecutor(8) as threads:  # because some operations retry for seconds
            for prober, operation, headers in calls:
                threads.submit(prober.call, operation, None, **(headers | special.get(operation.id, {})))
    finally:
        stack.start("postgres")
        system.wait_until("every service is healthy again", system.is_healthy, 60)


def _make_headers(credentials: Credentials, operation: Operation) -> Headers:
    user_id = STAFF if "Staff" in operation.definition["tags"] else CUSTOMER
    return credentials.headers(operation.document, operation.definition, user_id)


def _list_database_operations(document: Document) -> list[Operation]:
    return [operation for operation in list_operations(document) if 503 in operation.statuses]
