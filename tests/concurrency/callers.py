"""Calls to a service that bypass the gateway and the orchestrator, with the orchestrator's credential."""

from __future__ import annotations

from contextlib import closing
from typing import Any
from uuid import uuid4

from harness import Stack
from services.chassis.clients import GrpcPeer, open_channel
from services.chassis.errors import Refused, Unknown
from services.chassis.keys import SigningKey
from services.chassis.tokens import Credential
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub

ORCHESTRATOR = "orchestrator-service"
TTL_SECONDS = 300


def make_credential(stack: Stack, called: str) -> Credential:
    """Return the credential of the orchestrator for calls to `called`."""
    return Credential(ORCHESTRATOR, SigningKey.parse(stack.env(ORCHESTRATOR)["PRIVATE_KEY"]), called)


class InventoryCaller:
    """A gRPC client of one Inventory process."""

    def __init__(self, stack: Stack, address: str = "") -> None:
        self._peer = GrpcPeer("Inventory", make_credential(stack, "inventory-service"))
        self._channel = open_channel(address or stack.address("inventory-service", 50051))
        self._stub: Any = InventoryStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, method: str, **fields: Any) -> Any:
        """Call a method and return its response. Raises Refused or Unknown."""
        name = {"VerifyTicket": "Seat", "GetSeatOwner": "Seat"}.get(method, method)
        return self._peer.call(getattr(self._stub, method), getattr(pb, f"{name}Request")(**fields))

    def reserve(self, seat: str, user: str = "", hold: str = "") -> str:
        """Hold a seat. Returns OK, the error code of the refusal, or UNKNOWN."""
        user, hold = user or str(uuid4()), hold or str(uuid4())
        try:
            self.call("ReserveSeat", seat_id=seat, user_id=user, hold_id=hold, ttl_seconds=TTL_SECONDS)
        except Refused as refusal:
            return str(refusal.code)
        except Unknown:
            return "UNKNOWN"
        return "OK"

    def read_seat(self, seat: str) -> str:
        """Return the seat as status/order/owner. For a HELD seat these are the hold's id and its user."""
        found = self.call("GetSeatOwner", seat_id=seat)
        order, owner = found.order_id or found.hold_id, found.owner_user_id or found.held_by_user_id
        return f"{found.status}/{order}/{owner}"


def connect_inventory(stack: Stack, address: str = "") -> closing[InventoryCaller]:
    """Return a client of Inventory that is closed when its block ends."""
    return closing(InventoryCaller(stack, address))
