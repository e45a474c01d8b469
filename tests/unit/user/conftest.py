"""Fixtures of the User unit tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.chassis.settings import DatabaseSettings
from tests.unit.user.user_app import UserApp, user_settings


@pytest.fixture(scope="module")
def user_service(database_for: Callable[[str], DatabaseSettings]) -> Iterator[UserApp]:
    """The User service, built once for a module because that takes longer than most tests."""
    service = UserApp(user_settings(database_for("user")))
    yield service
    service.db.close()


@pytest.fixture
def users(user_service: UserApp) -> Iterator[UserApp]:
    """The User service. After each test, every balance must equal the sum of its ledger entries."""
    yield user_service
    assert user_service.find_unbalanced_accounts() == []
