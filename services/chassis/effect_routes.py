"""The HTTP route with which the orchestrator lists the effects of a service, for `admin reconcile`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, Response
from msgspec import Meta

from services.chassis import access, effects, web
from services.chassis.db import Database

CENTURY = 3_155_760_000  # seconds
Key = Annotated[str, Meta(min_length=1, max_length=200)]
Age = Annotated[float, Meta(ge=0, le=CENTURY)]


class EffectsBody(msgspec.Struct, forbid_unknown_fields=True):
    keys: Annotated[list[Key], Meta(max_length=effects.MOST_KEYS)] = []
    after: Annotated[str, Meta(max_length=200)] = ""
    max_age: Age = 0.0
    min_age: Age = 0.0


def effect_routes(db: Database) -> Blueprint:
    """Build the route, for the orchestrator only."""
    routes = Blueprint("effects", __name__)

    @routes.post("/effects/list")
    @access.internal("orchestrator-service")
    def list_effects() -> Response:
        query = effects.EffectQuery(**msgspec.structs.asdict(web.body(EffectsBody)))
        outcomes, following = effects.list_outcomes(db, query)
        return web.ok({"outcomes": outcomes, "next": following})

    return routes
