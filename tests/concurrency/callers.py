"""Straight at a service, past gateway and orchestrator, with the orchestrator's credential."""

from __future__ import annotations

from contextlib import closing
from typing import Any
from uuid import uuid4

from harness import Stack
from services.chassis.clients import GrpcPeer, open_channel
from services.chassis.errors import Refused, Unknown
from services.chassis.tokens import Credential
from services.contracts.pb import inventory_pb2 as pb
from services.contracts.pb.inventory_pb2_grpc import InventoryStub

ORCHESTRATOR = "orchestrator-service"
TTL_SECONDS = 300


def credential(stack: Stack) -> Credential:
    """The orchestrator's own."""
    return Credential(ORCHESTRATOR, stack.env(ORCHESTRATOR)["INTERNAL_JWT_SECRET"])


class InventoryCaller:
    """Inventory's calls at one address."""

    def __init__(self, stack: Stack, address: str = "") -> None:
        self._peer = GrpcPeer("Inventory", credential(stack))
        self._channel = open_channel(address or stack.address("inventory-service", 50051))
        self._stub: Any = InventoryStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, verb: str, **fields: Any) -> Any:
        """One call, as the contract has it. Raises Refused, Unknown."""
        name = {"VerifyTicket": "Seat", "GetSeatOwner": "Seat"}.get(verb, verb)
        return self._peer.call(getattr(self._stub, verb), getattr(pb, f"{name}Request")(**fields))

    def answer(self, verb: str, **fields: Any) -> str:
        """OK, the code of the refusal, or UNKNOWN."""
        try:
            self.call(verb, **fields)
        except Refused as refusal:
            return str(refusal.code)
        except Unknown:
            return "UNKNOWN"
        return "OK"

    def reserve(self, seat: str, user: str = "", hold: str = "") -> str:
        """Hold a seat for somebody."""
        user, hold = user or str(uuid4()), hold or str(uuid4())
        return self.answer("ReserveSeat", seat_id=seat, user_id=user, hold_id=hold, ttl_seconds=TTL_SECONDS)

    def look(self, seat: str) -> str:
        """How the seat stands: status/order/owner; a hold's id and holder while it is HELD."""
        found = self.call("GetSeatOwner", seat_id=seat)
        order, owner = found.order_id or found.hold_id, found.owner_user_id or found.held_by_user_id
        return f"{found.status}/{order}/{owner}"


def inventory(stack: Stack, address: str = "") -> closing[InventoryCaller]:
    """A caller, closed at the end of the block."""
    return closing(InventoryCaller(stack, address))
