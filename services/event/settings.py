"""The settings of Event."""

from __future__ import annotations

from dataclasses import dataclass

from services.chassis.settings import DatabaseSettings, Env, ProcessSettings


@dataclass(frozen=True)
class Settings:
    """Event's settings."""

    process: ProcessSettings
    database: DatabaseSettings
    inventory_http_url: str
    user_service_url: str

    @classmethod
    def read(cls, env: Env) -> Settings:
        """Read the process's and database's settings, `INVENTORY_HTTP_URL` and `USER_SERVICE_URL`."""
        return cls(
            process=ProcessSettings.read(env, "event-service", 5002),
            database=DatabaseSettings.read(env),
            inventory_http_url=env.text("INVENTORY_HTTP_URL"),
            user_service_url=env.text("USER_SERVICE_URL"),
        )
