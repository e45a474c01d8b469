"""What the unit tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.unit.user_app import UserApp, user_settings


@pytest.fixture
def users(database_for: Callable[[str], DatabaseSettings]) -> Iterator[UserApp]:
    """The User service; whatever a test does to credits, the ledger has to agree with the balances at its end."""
    service = UserApp(user_settings(database_for("user")))
    yield service
    crooked = service.crooked_accounts()
    service.db.close()
    assert crooked == []
