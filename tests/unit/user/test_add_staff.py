"""The staff account of the examples, which has a password of the environment (D73)."""

from __future__ import annotations

import pytest

from services.chassis.errors import ConfigurationError
from services.chassis.settings import Env
from services.user import passwords
from services.user.add_staff import SEED_EMAIL, SEED_ID, SEED_PHONE, ensure_seed_account
from services.user.settings import Settings
from services.user.store import accounts
from tests.unit.user.test_access import ENVIRONMENT
from tests.unit.user.test_auth import login
from tests.unit.user.user_app import UserApp

pytestmark = pytest.mark.unit

PASSWORD = "a gate with 4 lanes"
OLD_SEED_HASH = "$2b$10$FnkOOyBjJLabDamFupmc1Oax.UNTFWouyvwef.O2bh5ZTPSAbszRu"  # of password123


@pytest.fixture(autouse=True)
def without_staff(users: UserApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without the account, and hash at bcrypt's lowest cost."""
    monkeypatch.setattr(passwords, "ROUNDS", 4)
    with users.db.transaction() as tx:
        tx.run("DELETE FROM users WHERE email = %(email)s", email=SEED_EMAIL)


@pytest.mark.claim("seed/users")
def test_account_is_created_once_and_keeps_its_password(users: UserApp) -> None:
    ensure_seed_account(users.db, PASSWORD)
    ensure_seed_account(users.db, "another gate, 2 lanes")
    session = login(users, SEED_EMAIL, PASSWORD).get_json()["data"]
    assert (session["user"]["role"], session["user"]["user_id"]) == ("staff", str(SEED_ID))


def test_second_process_of_user_starts_with_the_account_of_the_first(
    users: UserApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes read before either one writes, as in the first start of a cluster."""
    monkeypatch.setattr(accounts, "find_by_email", lambda *_: None)
    ensure_seed_account(users.db, PASSWORD)
    ensure_seed_account(users.db, PASSWORD)


def test_public_password_of_an_older_seed_is_replaced(users: UserApp) -> None:
    accounts.add(users.db, SEED_EMAIL, SEED_PHONE, OLD_SEED_HASH, user_id=SEED_ID)
    assert login(users, SEED_EMAIL, "password123").status_code == 200
    ensure_seed_account(users.db, PASSWORD)
    assert login(users, SEED_EMAIL, "password123").status_code == 401
    assert login(users, SEED_EMAIL, PASSWORD).status_code == 200


@pytest.mark.parametrize("password", ["password123", "seven77", "x" * 73, "change_me please"])
def test_bad_password_stops_the_start(password: str) -> None:
    assert Settings.read(Env(ENVIRONMENT)).staff_password == ""
    with pytest.raises(ConfigurationError, match="STAFF_PASSWORD"):
        Settings.read(Env({**ENVIRONMENT, "STAFF_PASSWORD": password}))
