"""Order's composition root.

Only services call Order (D32), never users with tokens, so Order needs no list of revoked sessions.
"""

from __future__ import annotations

from flask import Flask

from services.chassis.db import Database
from services.chassis.effect_routes import effect_routes
from services.chassis.web import create_app, finish
from services.chassis.worker import Worker
from services.order.order_routes import order_routes
from services.order.otp_routes import otp_routes
from services.order.settings import Settings
from services.order.sweeper import Sweeper
from services.order.transfer_routes import transfer_routes


def build(settings: Settings, database: Database | None = None) -> Flask:
    """Build the app. Its sweeper starts with the server."""
    db = database or Database(settings.database)
    app = create_app(settings.process, checks={"database": db.is_ready})
    app.register_blueprint(order_routes(db))
    app.register_blueprint(effect_routes(db))
    app.register_blueprint(transfer_routes(db, settings.dispute_window_days))
    app.register_blueprint(otp_routes(db, settings.wrong_codes_per_day))
    sweeper = Sweeper(db, grace_seconds=settings.grace_seconds)
    return finish(app, Worker("order-sweeper", sweeper.sweep, settings.sweep_seconds))
