"""The credit verbs of the sagas. Each has a key and happens at most once under it (R2, R4)."""

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
from services.user.store import credits

logger = logging.getLogger(__name__)

Key = Annotated[str, Meta(min_length=1, max_length=512)]


class Movement(msgspec.Struct, forbid_unknown_fields=True):
    key: Key
    user_id: UUID
    amount: Amount


class Freeze(Movement, forbid_unknown_fields=True):
    at_most: bool = False


class Undo(msgspec.Struct, forbid_unknown_fields=True):
    key: Key


class Handover(msgspec.Struct, forbid_unknown_fields=True):
    key: Key
    hold_keys: Annotated[list[Key], Meta(min_length=1, max_length=10)]
    to_user_id: UUID


def credit_routes(db: Database) -> Blueprint:
    """Deduct and refund, freeze and unfreeze, transfer: for the orchestrator only."""
    routes = Blueprint("credits", __name__, url_prefix="/credits")
    orchestrator = access.internal("orchestrator-service")

    @routes.post("/deduct")
    @orchestrator
    def deduct() -> Response:
        return web.ok(_deduct(db, web.body(Movement)))

    @routes.post("/refund")
    @orchestrator
    def refund() -> Response:
        return web.ok(_refund(db, web.body(Undo).key))

    @routes.post("/freeze")
    @orchestrator
    def freeze() -> Response:
        return web.ok(_freeze(db, web.body(Freeze)))

    @routes.post("/unfreeze")
    @orchestrator
    def unfreeze() -> Response:
        return web.ok(_unfreeze(db, web.body(Undo).key))

    @routes.post("/transfer")
    @orchestrator
    def transfer() -> Response:
        return web.ok(_transfer(db, web.body(Handover)))

    return routes


def _deduct(db: Database, asked: Movement) -> Answer:
    answer = effects.apply_recorded(db, asked.key, lambda: credits.deduct(db, asked.key, asked.user_id, asked.amount))
    logger.info("Charged %s credits to user %s (%s)", answer["amount"], asked.user_id, asked.key)
    return answer


def _refund(db: Database, key: str) -> Answer:
    def reverse(tx: Transaction, answer: Answer) -> None:
        logger.warning("Compensating: refunding %s credits (%s)", answer["amount"], key)
        credits.refund(tx, key)

    effects.undo(db, key, reverse)
    return {}


def _freeze(db: Database, asked: Freeze) -> Answer:
    answer = effects.apply(
        db,
        asked.key,
        lambda tx: credits.freeze(tx, asked.key, asked.user_id, asked.amount, at_most=asked.at_most),
    )
    logger.info("Froze %s credits of user %s (%s)", answer["amount"], asked.user_id, asked.key)
    return answer


def _unfreeze(db: Database, key: str) -> Answer:
    def reverse(tx: Transaction, answer: Answer) -> None:
        logger.warning("Compensating: unfreezing %s credits (%s)", answer["amount"], key)
        credits.unfreeze(tx, key, answer)

    effects.undo(db, key, reverse)
    return {}


def _transfer(db: Database, asked: Handover) -> Answer:
    answer = effects.apply(db, asked.key, lambda tx: credits.transfer(tx, asked.key, asked.hold_keys, asked.to_user_id))
    logger.info("Transferred %s credits to user %s (%s)", answer["amount"], asked.to_user_id, asked.key)
    return answer
