"""What the unit tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.unit.user.user_app import UserApp, user_settings


@pytest.fixture(scope="module")
def user_service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[UserApp]:
    """The User service, built once for a module: its routes take longer than most tests."""
    service = UserApp(user_settings(database_for("user")))
    yield service
    service.db.close()


@pytest.fixture
def users(user_service: UserApp) -> Iterator[UserApp]:
    """The User service; whatever a test does to credits, the ledger has to agree with the balances at its end."""
    yield user_service
    assert user_service.crooked_accounts() == []
