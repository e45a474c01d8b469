"""Routes that move credits, for the sagas. Each movement has a key and happens at most once (R2, R4)."""

from __future__ import annotations

import logging
from typing import Annotated
from uuid import UUID

import msgspec
from flask import Blueprint, Response
from msgspec import Meta

from services.chassis import access, effects, web
from services.chassis.db import Database, Transaction
from services.chassis.effects import Answer
from services.contracts.money import Amount
from services.user.contacts import mask_email
from services.user.store import credit_checks, credits, reversals
from services.user.store.credit_checks import CreditCheck

logger = logging.getLogger(__name__)

Key = Annotated[str, Meta(min_length=1, max_length=512)]


class CheckRequest(msgspec.Struct, forbid_unknown_fields=True):
    seller_user_id: UUID
    buyer_user_id: UUID
    initiator_id: UUID
    amount: Amount


class DeductRequest(msgspec.Struct, forbid_unknown_fields=True):
    key: Key
    user_id: UUID
    amount: Amount


class FreezeRequest(DeductRequest, forbid_unknown_fields=True):
    at_most: bool = False


class UndoRequest(msgspec.Struct, forbid_unknown_fields=True):
    key: Key


class TransferRequest(msgspec.Struct, forbid_unknown_fields=True):
    key: Key
    hold_keys: Annotated[list[Key], Meta(min_length=1, max_length=10)]
    to_user_id: UUID


def credit_routes(db: Database, refused_buyers_per_day: int) -> Blueprint:
    """Build the routes to check, deduct, refund, freeze, unfreeze and transfer, for the orchestrator only."""
    routes = Blueprint("credits", __name__, url_prefix="/credits")
    orchestrator = access.internal("orchestrator-service")

    @routes.post("/check")
    @orchestrator
    def check() -> Response:
        transfer = CreditCheck(**msgspec.structs.asdict(web.body(CheckRequest)))
        seller, buyer = credit_checks.check(db, transfer, refused_buyers_per_day)
        return web.ok({"seller": mask_email(seller), "buyer": mask_email(buyer)})

    @routes.post("/deduct")
    @orchestrator
    def deduct() -> Response:
        return web.ok(_deduct(db, web.body(DeductRequest)))

    @routes.post("/refund")
    @orchestrator
    def refund() -> Response:
        return web.ok(_refund(db, web.body(UndoRequest).key))

    @routes.post("/freeze")
    @orchestrator
    def freeze() -> Response:
        return web.ok(_freeze(db, web.body(FreezeRequest)))

    @routes.post("/unfreeze")
    @orchestrator
    def unfreeze() -> Response:
        return web.ok(_unfreeze(db, web.body(UndoRequest).key))

    @routes.post("/transfer")
    @orchestrator
    def transfer() -> Response:
        return web.ok(_transfer(db, web.body(TransferRequest)))

    return routes


def _deduct(db: Database, movement: DeductRequest) -> Answer:
    answer = effects.apply_recorded(
        db, movement.key, lambda: credits.deduct(db, movement.key, movement.user_id, movement.amount)
    )
    logger.info("Charged %s credits to user %s (%s)", answer["amount"], movement.user_id, movement.key)
    return answer


def _refund(db: Database, key: str) -> Answer:
    def reverse(tx: Transaction, answer: Answer) -> None:
        logger.warning("Compensating: refund of %s credits (%s)", answer["amount"], key)
        reversals.collect(tx, credits.refund(tx, key))

    effects.undo(db, key, reverse)
    return {}


def _freeze(db: Database, movement: FreezeRequest) -> Answer:
    answer = effects.apply(
        db,
        movement.key,
        lambda tx: credits.freeze(tx, movement.key, movement.user_id, movement.amount, at_most=movement.at_most),
    )
    logger.info("Froze %s credits of user %s (%s)", answer["amount"], movement.user_id, movement.key)
    return answer


def _unfreeze(db: Database, key: str) -> Answer:
    def reverse(tx: Transaction, answer: Answer) -> None:
        logger.warning("Compensating: unfreeze of %s credits (%s)", answer["amount"], key)
        user_id = credits.unfreeze(tx, key, answer)
        if user_id is not None:
            reversals.collect(tx, user_id)

    effects.undo(db, key, reverse)
    return {}


def _transfer(db: Database, movement: TransferRequest) -> Answer:
    def move(tx: Transaction) -> Answer:
        moved = credits.transfer(tx, movement.key, movement.hold_keys, movement.to_user_id)
        reversals.collect(tx, movement.to_user_id)
        return moved

    answer = effects.apply(db, movement.key, move)
    logger.info("Transferred %s credits to user %s (%s)", answer["amount"], movement.to_user_id, movement.key)
    return answer
