"""The restore of users_db from a backup, as docs/operations.md describes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from uuid import uuid4

import pytest

from services.chassis.clients import HttpPeer
from services.chassis.revocations import RevocationPoller
from services.chassis.tokens import Credential
from services.user.store import revocations
from tests.support.databases import Databases
from tests.support.service_settings import make_credential
from tests.support.stubs import check_response
from tests.unit.user.test_webhook import deliver, event, intent
from tests.unit.user.user_app import UserApp, user_settings

pytestmark = pytest.mark.unit

POLLERS = ("orchestrator-service", "event-service")


class BackedUpUser:
    """The User service over its own server, and the pollers of all other services."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self.users = UserApp(user_settings(databases.database_for("user")))
        self.pollers = [
            RevocationPoller(HttpPeer("User", "http://user", self._credential(n), self._send)) for n in POLLERS
        ]

    def back_up(self) -> None:
        self.users.db.close()
        self._databases.back_up("user")

    def restore(self) -> None:
        """Restore the backup. User reconnects on its next call."""
        self.users.db.close()
        self._databases.restore("user")

    def revoke(self) -> str:
        sid = str(uuid4())
        revocations.revoke(self.users.db, sid, uuid4())
        return sid

    def poll(self) -> None:
        for poller in self.pollers:
            while poller.poll():
                pass

    def who_refuses(self, sid: str) -> list[bool]:
        return [poller.is_revoked(sid) for poller in self.pollers]

    def _send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        answer = self.users.call_public(method, url.removeprefix("http://user"), body, **headers)
        return check_response("user", method, url, answer.status_code, answer.data)

    @staticmethod
    def _credential(name: str) -> Credential:
        return make_credential(name, "user-service")


@pytest.fixture
def user() -> Iterator[BackedUpUser]:
    databases = Databases()
    try:
        user = BackedUpUser(databases)
        yield user
        user.users.db.close()
    finally:
        databases.close()


def test_logout_after_a_restore_reaches_every_service(user: BackedUpUser) -> None:
    """The list is as long as before the restore, so its length alone does not show the restore."""
    user.revoke()
    user.back_up()
    lost = [user.revoke() for _ in range(3)]
    user.poll()
    user.restore()
    later = [user.revoke() for _ in range(3)]
    user.poll()
    assert [user.who_refuses(sid) for sid in later] == [[True] * len(POLLERS)] * 3
    assert [user.who_refuses(sid) for sid in lost] == [[True] * len(POLLERS)] * 3, "the pollers still have these"
    one_more = user.revoke()
    user.poll()
    assert user.who_refuses(one_more) == [True] * len(POLLERS)


def test_logout_after_a_restore_of_an_empty_list_is_listed(user: BackedUpUser) -> None:
    user.back_up()
    user.revoke()
    user.poll()
    user.restore()
    user.poll()
    later = user.revoke()
    user.poll()
    assert user.who_refuses(later) == [True] * len(POLLERS)


def test_repeated_events_after_a_restore_credit_and_take_once(user: BackedUpUser) -> None:
    """Stripe repeats the events of the last days, those before the backup too."""
    payer = user.users.new_user("0.00")
    before, after = intent(payer, 1000), intent(payer, 2000)
    refund = {"id": f"ch_{uuid4().hex}", "payment_intent": before["id"], "amount_refunded": 400, "currency": "sgd"}
    events = [event(before), event(after), event(refund, "charge.refunded")]
    assert deliver(user.users, events[0]).status_code == 200
    user.back_up()
    for sent in events[1:]:
        assert deliver(user.users, sent).status_code == 200
    expected = user.users.balance(payer)
    user.restore()
    for sent in events:
        assert deliver(user.users, sent).status_code == 200
    assert user.users.balance(payer) == expected
    assert user.users.find_unbalanced_accounts() == []
