"""Inventory over gRPC on a free port, with real credentials and a real database. Each verb is a method."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from services.chassis.clients import GrpcPeer, open_channel
from services.chassis.db import Database
from services.chassis.errors import Refused
from services.chassis.settings import Address, BrokerSettings, DatabaseSettings
from services.chassis.tokens import Credential
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub
from services.inventory.app import build_grpc_server
from services.inventory.settings import Settings
from tests.support import concurrency
from tests.support.databases import LOCK_SECONDS, Databases, be_patient
from tests.support.service_settings import make_credential, new_id, new_key, process_settings, signing_key
from tests.support.waiting import wait_until

HASH = hashlib.sha256(b"a ticket").hexdigest()
EVENT = "e0e0e0e0-0000-0000-0000-000000000001"
NOWHERE = BrokerSettings((Address("127.0.0.1", 1),), "nobody", "nothing")


def settings_for(database: DatabaseSettings, broker: BrokerSettings = NOWHERE, **others: Any) -> Settings:
    fields: dict[str, Any] = {"grpc_port": 0, "grpc_threads": 40, "order_url": "http://127.0.0.1:1"}
    fields |= {"sweep_seconds": 0.05, "sweep_grace_seconds": 0.0, **others}
    return Settings(process=process_settings("inventory-service"), database=database, broker=broker, **fields)


def run_concurrently(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all calls concurrently. The result of a refused call is its error code."""
    return concurrency.run_concurrently([partial(result_or_code, call) for call in calls])


def result_or_code(call: Callable[[], Any]) -> Any:
    """The result of a call, or the error code of its refusal."""
    try:
        return call()
    except Refused as refusal:
        return refusal.code


@contextmanager
def expect_refusal(code: str) -> Iterator[Any]:
    """Assert that the block raises Refused with `code`."""
    with pytest.raises(Refused) as caught:
        yield caught
    assert caught.value.code == code


CALL_SECONDS = 30.0  # a limit that even a busy machine does not reach


class InventoryService:
    """The calls of Inventory, with the credential of `caller`. A statement waits `lock_seconds` for a lock."""

    def __init__(
        self, databases: Databases, caller: str = "orchestrator-service", lock_seconds: float = LOCK_SECONDS
    ) -> None:
        self._databases = databases
        settings = databases.database_for("inventory")
        self.db = Database(replace(be_patient(settings, lock_seconds), pool_size=40))
        self._server = build_grpc_server(settings_for(settings), self.db)
        self._server.start()
        self.channel = open_channel(f"127.0.0.1:{self._server.port}")
        self._stub = InventoryStub(self.channel)  # type: ignore[no-untyped-call]
        self._peer = GrpcPeer("Inventory", make_credential(caller, "inventory-service"))

    def close(self) -> None:
        self.channel.close()
        self._server.stop()
        self.db.close()

    def peer_for(self, caller: str, signer: str = "", called: str = "inventory-service") -> GrpcPeer:
        """Return a peer with the name of `caller`. By default, its credential is signed with the key of `caller`."""
        return GrpcPeer("Inventory", Credential(caller, signing_key(signer or caller), called))

    def call(self, verb: str, **fields: Any) -> Any:
        return self.call_as(self._peer, verb, **fields)

    def call_as(self, peer: GrpcPeer, verb: str, **fields: Any) -> Any:
        request = "SeatRequest" if verb in ("VerifyTicket", "GetSeatOwner") else f"{verb}Request"
        return peer.call(getattr(self._stub, verb), getattr(pb, request)(**fields), CALL_SECONDS)

    # ── verbs

    def reserve(
        self, seat_id: str, user_id: str | None = None, hold_id: str | None = None, ttl: int = 300, replaces: str = ""
    ) -> Any:
        fields = {"seat_id": seat_id, "user_id": user_id or new_id(), "hold_id": hold_id or new_id()}
        return self.call("ReserveSeat", **fields, ttl_seconds=ttl, replaces_hold_id=replaces)

    def release(self, seat_id: str, hold_id: str) -> bool:
        return bool(self.call("ReleaseSeat", seat_id=seat_id, hold_id=hold_id).released)

    def confirm(self, seat_id: str, hold_id: str, user_id: str, key: str | None = None, **fields: str) -> Any:
        sale = {"order_id": hold_id, "price": "350.00", "qr_code_hash": HASH, **fields}
        key = key or new_key("confirm_seat")
        return self.call("ConfirmSeat", key=key, seat_id=seat_id, hold_id=hold_id, user_id=user_id, **sale)

    def update_owner(self, seat_id: str, order_id: str, old: str, new: str, key: str | None = None) -> Any:
        sale = {"seat_id": seat_id, "order_id": order_id, "expected_owner_id": old}
        return self.call("UpdateOwner", key=key or new_key("owner"), **sale, new_owner_id=new, qr_code_hash=HASH)

    def cancel_sale(self, seat_id: str, order_id: str, owner: str, key: str | None = None) -> Any:
        sale = {"seat_id": seat_id, "order_id": order_id, "expected_owner_id": owner}
        return self.call("CancelSale", key=key or new_key("cancel"), **sale)

    def settle(self, key: str) -> bool:
        return bool(self.call("Settle", key=key).done)

    def check_in(self, seat_id: str, order_id: str, owner: str, **facts: str) -> Any:
        sale = {"seat_id": seat_id, "order_id": order_id, "expected_owner_id": owner}
        return self.call("MarkCheckedIn", **sale, facts=self.facts(**facts))

    def log_entry(self, seat_id: str, result: str, **facts: str) -> Any:
        return self.call("LogEntry", seat_id=seat_id, result=result, facts=self.facts(**facts))

    @staticmethod
    def facts(**facts: str) -> pb.ScanFacts:
        halls = {"hall_id_presented": "HALL-A", "hall_id_expected": "HALL-A", "hall_id_staff": "HALL-A"}
        return pb.ScanFacts(**{"scan_id": new_id(), "staff_id": new_id(), **halls, **facts})

    # ── test data and reads

    def new_seat(self, event_id: str = EVENT) -> str:
        """Insert an AVAILABLE seat."""
        seat_id = new_id()
        insert = """INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
            VALUES (%(seat_id)s, %(event_id)s, 'T', %(number)s, 'CAT1')"""
        with self.db.transaction() as tx:
            tx.run(insert, seat_id=seat_id, event_id=event_id, number=uuid4().int % 2**31)
        return seat_id

    def held_seat(self, **hold: Any) -> tuple[str, str, str]:
        """Insert and hold a seat. Returns seat, hold and user."""
        seat_id, hold_id, user_id = self.new_seat(), new_id(), new_id()
        self.reserve(seat_id, user_id, hold_id, **hold)
        return seat_id, hold_id, user_id

    def sold_seat(self) -> tuple[str, str, str]:
        """Insert and sell a seat. Returns seat, order and owner."""
        seat_id, hold_id, user_id = self.held_seat()
        self.confirm(seat_id, hold_id, user_id)
        return seat_id, hold_id, user_id

    def seat(self, seat_id: str) -> Any:
        return self.call("VerifyTicket", seat_id=seat_id)

    def row(self, sql: str, **params: Any) -> Any:
        with self.db.transaction() as tx:
            return tx.one(sql, **params)

    def rows(self, sql: str, **params: Any) -> Any:
        with self.db.transaction() as tx:
            return tx.all(sql, **params)

    def expire(self, seat_id: str) -> None:
        """Move the expiry of the seat's hold to a second ago."""
        with self.db.transaction() as tx:
            assert tx.run(
                "UPDATE seats SET held_until = app_now() - interval '1 second' WHERE seat_id = %(seat_id)s",
                seat_id=seat_id,
            )

    @contextmanager
    def lock_row(self, seat_id: str) -> Iterator[None]:
        """Lock the seat's row in another transaction for the block."""
        with self.db.transaction() as tx:
            tx.one("SELECT 1 FROM seats WHERE seat_id = %(seat_id)s FOR UPDATE", seat_id=seat_id)
            yield

    def run_at_locked_row(self, seat_id: str, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Start all calls while the seat's row is locked, and unlock it when all of them wait for it."""
        with ThreadPoolExecutor(len(calls)) as pool:
            with self.lock_row(seat_id):
                futures = [pool.submit(result_or_code, call) for call in calls]
                wait_until(lambda: self.count_waiting() == len(calls), LOCK_SECONDS - 1)
            return [future.result() for future in futures]

    def count_waiting(self) -> int:
        """The number of connections that wait for a lock."""
        blocked = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'seats_db'"
        return int(self.row(blocked)["n"])

    @contextmanager
    def clock_at(self, seconds: float) -> Iterator[None]:
        """Move app_now() by `seconds` for the block."""
        self._databases.shift_clock("inventory", seconds)
        try:
            yield
        finally:
            self._databases.shift_clock("inventory", 0)
