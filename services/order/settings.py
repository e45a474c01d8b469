"""Order's settings, from environment variables."""

from __future__ import annotations

from dataclasses import dataclass

from services.chassis.settings import DatabaseSettings, Env, ProcessSettings


@dataclass(frozen=True)
class Settings:
    """Order's settings. Times are in seconds, and `dispute_window_days` is in days (0: no limit).

    `wrong_codes_per_day` are those of other users that a user enters.
    """

    process: ProcessSettings
    database: DatabaseSettings
    sweep_seconds: float = 5.0
    grace_seconds: float = 5.0
    dispute_window_days: int = 30
    wrong_codes_per_day: int = 3

    @classmethod
    def read(cls, env: Env) -> Settings:
        """Read the process and database settings, `SWEEP_*` and the limits."""
        return cls(
            process=ProcessSettings.read(env, "order-service", 5001),
            database=DatabaseSettings.read(env),
            sweep_seconds=env.number("SWEEP_SECONDS", 5, low=0.05, high=3600),
            grace_seconds=env.number("SWEEP_GRACE_SECONDS", 5, low=0, high=3600),
            dispute_window_days=env.integer("DISPUTE_WINDOW_DAYS", 30, high=3650),
            wrong_codes_per_day=env.integer("WRONG_CODES_OF_OTHERS_PER_DAY", 3),
        )
