"""The lists of hosts and ports in the settings."""

from __future__ import annotations

import pytest

from services.chassis.errors import ConfigurationError
from services.chassis.settings import Address, BrokerSettings, DatabaseSettings, Env

pytestmark = pytest.mark.unit

REST = {
    "DB_HOST": "db",
    **dict.fromkeys(("DB_NAME", "DB_USER", "DB_PASS", "RABBITMQ_USER", "RABBITMQ_PASS"), "x"),
}


def read(hosts: str, ports: str | None) -> tuple[Address, ...]:
    """Read both settings, which have the same rules."""
    found = {"RABBITMQ_HOST": hosts, "DB_HOST": hosts}
    found |= {} if ports is None else {"RABBITMQ_PORT": ports, "DB_PORT": ports}
    broker = BrokerSettings.read(Env({**REST, **found})).addresses
    database = DatabaseSettings.read(Env({**REST, **found})).addresses
    assert [each.host for each in broker] == [each.host for each in database]
    assert ports is None or broker == database
    return database


@pytest.mark.parametrize(
    ("hosts", "ports", "addresses"),
    [
        ("db", None, [("db", 5432)]),
        ("db", "6000", [("db", 6000)]),
        ("a,b,c", None, [("a", 5432), ("b", 5432), ("c", 5432)]),
        ("a, b", "6000", [("a", 6000), ("b", 6000)]),
        ("a,b,c", "1,2, 3", [("a", 1), ("b", 2), ("c", 3)]),
    ],
)
def test_one_port_is_that_of_every_host(hosts: str, ports: str | None, addresses: list[tuple[str, int]]) -> None:
    assert list(read(hosts, ports)) == addresses


@pytest.mark.parametrize(
    ("hosts", "ports", "complaint"),
    [
        ("a,,b", None, "DB_HOST='a,,b' has an empty entry"),
        ("a,", None, "DB_HOST='a,' has an empty entry"),
        ("a,b", "1,", "DB_PORT='1,' has an empty entry"),
        ("a,b,c", "1,2", "DB_PORT lists 2 ports, and DB_HOST 3 hosts: set one port or one for each"),
        ("a", "1,2", "DB_PORT lists 2 ports, and DB_HOST 1 hosts"),
        ("a,b", "1,http", "DB_PORT='http' is not a number"),
        ("a,b", "1,70000", "DB_PORT=70000 is outside 1..65535"),
    ],
)
def test_wrong_lists_are_refused_in_one_line(hosts: str, ports: str | None, complaint: str) -> None:
    found = {"DB_HOST": hosts} | ({} if ports is None else {"DB_PORT": ports})
    with pytest.raises(ConfigurationError) as caught:
        DatabaseSettings.read(Env({**REST, **found}))
    assert str(caught.value).startswith(complaint)
