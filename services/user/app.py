"""User's composition root: accounts, sessions, credits, codes by SMS, payments by card."""

from __future__ import annotations

from flask import Flask

from services.chassis.clean_ups import CleanUps
from services.chassis.db import Database
from services.chassis.effect_routes import effect_routes
from services.chassis.web import create_app, finish
from services.user.add_staff import ensure_seed_account
from services.user.passwords import Hashing
from services.user.payments import Payments
from services.user.routes.auth import auth_routes
from services.user.routes.credits import credit_routes
from services.user.routes.logins import login_routes
from services.user.routes.notifications import AT_ONCE, notification_routes
from services.user.routes.otp import otp_routes
from services.user.routes.passwords import password_routes
from services.user.routes.topup import topup_routes
from services.user.routes.users import user_routes
from services.user.settings import Settings
from services.user.smu import Smu
from services.user.store.code_quota import CodeQuota
from services.user.store.login_guesses import LoginGuesses
from services.user.store.revocations import StoredRevocations


def build(settings: Settings, database: Database | None = None) -> Flask:
    """Build the app. It reads revoked sessions from its own database, so it polls no list."""
    db = database or Database(settings.database)
    if settings.staff_password:
        ensure_seed_account(db, settings.staff_password)
    slots = settings.process.share
    smu = Smu(settings.smu_url, settings.smu_key, slots)
    payments = Payments(settings.stripe_key, settings.stripe_webhook_secret, settings.stripe_base, slots)
    app = create_app(settings.process, checks={"database": db.is_ready}, revocations=StoredRevocations(db))
    hashing, guesses = Hashing(settings.limits.passwords_at_once), LoginGuesses(db, settings.hash_key, settings.limits)
    app.register_blueprint(auth_routes(db, settings.process, hashing, guesses))
    app.register_blueprint(login_routes(db))
    app.register_blueprint(password_routes(db, smu, hashing, guesses))
    app.register_blueprint(user_routes(db))
    app.register_blueprint(credit_routes(db, settings.limits.refused_buyers))
    app.register_blueprint(effect_routes(db))
    app.register_blueprint(otp_routes(db, smu, CodeQuota(db, settings.limits), clean_ups := CleanUps()))
    app.register_blueprint(topup_routes(db, payments))
    # Notices have slots of their own, so that a slow SMU delays no code because of them.
    app.register_blueprint(notification_routes(db, Smu(settings.smu_url, settings.smu_key, AT_ONCE, "SMU for notices")))
    return finish(app, clean_ups)
