"""Inventory in this process, with a real gRPC server on a free port of the loopback interface."""

from __future__ import annotations

from services.chassis.db import Database
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import add_InventoryServicer_to_server
from services.inventory.grpc_server import GrpcServer
from services.inventory.servicer import Inventory
from services.inventory.store import holds
from tests.support.service_settings import SERVICE_KEYS


class InventoryServer:
    """The servicer and the sweeper of Inventory."""

    def __init__(self, db: Database) -> None:
        self._db = db
        servicer = Inventory(db, SERVICE_KEYS)
        self._server = GrpcServer(
            "127.0.0.1:0",
            lambda server: add_InventoryServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
            pb.DESCRIPTOR.services_by_name["Inventory"],
            threads=8,
        )
        self._server.start()
        self.address = f"127.0.0.1:{self._server.port}"

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def sweep(self) -> None:
        """Run the sweeper until no expired hold is left."""
        while holds.sweep(self._db, batch=200, grace_seconds=0):
            pass
