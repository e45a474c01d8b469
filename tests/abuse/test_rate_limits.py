"""A bot that opens new counts: other spellings of its token, other tokens, other accounts, other addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from harness.api_client import NEW_PASSWORD, ApiResponse
from tests.abuse.addresses import from_address, new_addresses
from tests.abuse.honest_buyers import HonestBuyers
from tests.support.people import Person
from tests.support.running_stack import UNLIMITED, native_only
from tests.support.system import TestSystem

pytestmark = [
    pytest.mark.abuse,
    pytest.mark.usefixtures("invariants"),
    native_only("restarts processes with other limits"),
]

SPELLINGS = ("Bearer {}", "bearer {}", "Bearer   {}", "  Bearer {}")
LIMITED = {"RATE_LIMIT_PER_MINUTE": "60"}
EXPENSIVE = {"EXPENSIVE_CALLS_PER_USER_AND_MINUTE": "20", "EXPENSIVE_CALLS_PER_ADDRESS_AND_MINUTE": "100"}
NOTHING = str(uuid4())
CALLS: dict[str, Callable[[Person], ApiResponse]] = {
    "reserve": lambda bot: bot.reserve(NOTHING),
    "verify-otp": lambda bot: bot.verify_otp("123456", NOTHING),
    "initiate": lambda bot: bot.initiate(NOTHING, bot.user_id, NOTHING, 1),
    "confirm": lambda bot: bot.confirm(NOTHING, seller_otp="123456"),
    "resend": lambda bot: bot.resend(order_id=NOTHING),
    "top-up": lambda bot: bot.top_up(5),
}


@pytest.fixture(scope="module", autouse=True)
def limits(system: TestSystem) -> Iterator[None]:
    """Restart the gateway and the orchestrator with limits, and without them at the end."""
    system.hang_up()
    system.stack.restart("api-gateway", env=UNLIMITED | LIMITED)
    system.stack.restart("orchestrator-service", env=UNLIMITED | EXPENSIVE)
    yield
    for service in ("api-gateway", "orchestrator-service"):
        system.stack.restart(service, env=UNLIMITED)
    system.hang_up()


def test_every_spelling_and_token_of_a_user_shares_one_count(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    bot = system.visitor().register()
    tokens = [str(bot.token), *(bot.post("/api/auth/login", login_of(bot)).must()["access_token"] for _ in range(2))]
    with honest_buyers():
        seen = Counter(
            bot.call("GET", "/api/orders", headers={"Authorization": spelling.format(token)}).status
            for token in tokens
            for spelling in SPELLINGS
            for _ in range(11)
        )
    assert seen.keys() == {200, 429}
    assert seen[200] <= 2 * 60, "a minute may begin in between"


def login_of(bot: Person) -> dict[str, str]:
    return {"email": bot.email, "password": NEW_PASSWORD}


@pytest.mark.parametrize("name", CALLS)
def test_expensive_calls_of_a_user_share_one_count(system: TestSystem, name: str) -> None:
    """The address changes with each call. The gateway's own limit is higher."""
    bot = system.person()
    seen = Counter(CALLS[name](from_address(bot, address)).error_code for address in new_addresses(45))
    assert seen["RATE_LIMITED"] >= 5
    assert seen["GATEWAY_REJECTED"] == 0


def test_expensive_calls_of_many_accounts_share_their_address(
    system: TestSystem, honest_buyers: Callable[[], HonestBuyers]
) -> None:
    (address,) = new_addresses(1)
    with honest_buyers():
        refusals = Counter(from_address(bot, address).reserve(NOTHING).error_code for bot in system.people(230))
    assert refusals.keys() == {"SEAT_NOT_FOUND", "RATE_LIMITED"}
    assert refusals["SEAT_NOT_FOUND"] <= 2 * 100, "a minute may begin in between"
