"""The matrix of callers, tokens and operations: every operation of the specs, with each caller of access.toml.

A cell is one call. The expected answer comes from access.toml, never from the code of the services.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from harness.dev.spec_bundle import bundle
from harness.runtime.compose import ROOT
from tests.contract.probes import Operation, list_operations
from tests.support import inserts
from tests.support.endpoints import CALLERS
from tests.support.people import credential, token
from tests.support.system import TestSystem
from tests.support.waiting import wait_until

SERVERS = ("gateway", "orchestrator", "user", "order", "event", "inventory")
PUBLIC = ("/api/", "/docs")
USERS = ("customer", "staff")
PAST = 1_700_000_000  # a time in 2023
DAY = 24 * 3600
NO_SIGNERS = ("user-service", "unknown-service")  # User's key signs only user tokens, and User calls no service
REPORT = ROOT / "reports" / "access.json"


@dataclass(frozen=True)
class Rule:
    """The entry of one operation in access.toml."""

    callers: tuple[str, ...]
    of: str = ""
    stranger: str = ""

    @classmethod
    def read(cls, entry: Any) -> Rule:
        """Read a string, a list, or a table with `may`, `of` and `stranger`."""
        fields = entry if isinstance(entry, dict) else {"may": entry}
        may = fields["may"]
        return cls((may,) if isinstance(may, str) else tuple(may), fields.get("of", ""), fields.get("stranger", ""))


@dataclass(frozen=True)
class Cell:
    """One call of a caller with a token. `refusal` is the status of the refusal, or 0 if it must be admitted."""

    caller: str
    token: str | None
    refusal: int


@cache
def read_table() -> dict[str, dict[str, Any]]:
    """Return access.toml."""
    return tomllib.loads(Path(__file__).with_name("access.toml").read_text())


def list_all() -> list[tuple[str, Operation]]:
    """Return every operation of every server of the project."""
    return [(server, operation) for server in SERVERS for operation in list_operations(bundle(server))]


def find_rule(server: str, operation: Operation) -> Rule | None:
    """Return the rule of an operation. A service serves public operations too, under the rule of the gateway."""
    table = read_table()
    own = table["gateway"] if operation.path.startswith(PUBLIC) else table.get(server, {})
    entry = own.get(operation.id) or table["every"].get(operation.id)
    return Rule.read(entry) if entry else None


class Tokens:
    """Makes tokens of users and credentials of services, valid ones and each kind of invalid one."""

    def __init__(self, system: TestSystem) -> None:
        self._connect = partial(system.connect, "users_db")
        self._keys = {service: system.env(service)["PRIVATE_KEY"] for service in CALLERS}
        self._people = {role: system.person(role=role) for role in USERS}
        self._revoked = {role: self._revoke(system, role) for role in USERS}

    def _revoke(self, system: TestSystem, role: str) -> str:
        person = system.person(role=role)
        person.post("/api/auth/logout").must(200)
        for service in ("orchestrator-service", "event-service"):
            path = "/api/events" if service == "event-service" else "/api/transfers"
            read = partial(person.at(system.stack.url(service)).get, path)
            wait_until(lambda read=read: read().status == 401, what="the login is revoked")  # type: ignore[misc]
        return str(person.token)

    def valid(self, caller: str, called: str) -> str:
        """Return a new token of a role, a refresh token, or the credential of a service for calls to `called`."""
        if caller == "refresh":
            with closing(self._connect()) as users:
                login = inserts.login(users, self._people["customer"].user_id)
            return self._user("customer", "refresh", **login)
        return self._user(caller) if caller in USERS else self._service(caller, called)

    def invalid(self, caller: str, called: str) -> Iterator[tuple[str, str]]:
        """Yield the kind and the text of each invalid token of a caller."""
        if caller in CALLERS:
            yield "expired", self._service(caller, called, exp=PAST)
            yield "too long", self._service(caller, called, exp=int(time.time()) + DAY)
            yield "forged", forge(self._service(caller, called))
            yield "signed with User's key", credential(self._keys["user-service"], caller, called)
            yield "for another service", self._service(caller, next(name for name in CALLERS if name != called))
            yield "of a user", self._user("staff")
            return
        role, kind = ("customer", "refresh") if caller == "refresh" else (caller, "access")
        user_id = self._people[role].user_id
        yield "expired", self._user(role, kind, exp=PAST)
        yield "too long", self._user(role, kind, exp=int(time.time()) + 30 * DAY)
        yield "forged", forge(self._user(role, kind))
        yield "signed with Order's key", token(self._keys["order-service"], user_id, role, kind)
        yield "for another audience", self._user(role, kind, aud=called)
        yield "of another kind", self._user(role, "access" if kind == "refresh" else "refresh")
        yield "of a service", self._service("orchestrator-service", called)
        if kind == "access":
            yield "revoked", self._revoked[role]

    def _service(self, caller: str, called: str, **claims: Any) -> str:
        key = self._keys.get(caller, self._keys["order-service"])  # a stranger has stolen the key of Order
        return credential(key, caller, called, **claims)

    def _user(self, role: str, kind: str = "access", **claims: Any) -> str:
        return token(self._keys["user-service"], self._people[role].user_id, role, kind, **claims)


def forge(text: str) -> str:
    """Return the same token, signed with a new key under the id of the right one."""
    claims = jwt.decode(text, options={"verify_signature": False})
    key_id = jwt.get_unverified_header(text)["kid"]
    return jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": key_id})


def list_cells(rule: Rule, tokens: Tokens, called: str) -> Iterator[Cell]:
    """Yield every cell of an operation of the service `called`."""
    is_open = rule.callers == ("anyone",)
    yield Cell("nobody", None, 0 if is_open else 401)
    if is_open:
        yield from (Cell(caller, tokens.valid(caller, called), 0) for caller in (*USERS, "order-service"))
        return
    yield Cell("garbage", "garbage", 401)
    is_internal = set(rule.callers) <= set(CALLERS)
    for caller in (*CALLERS, "unknown-service") if is_internal else (*USERS, "refresh"):
        is_identified = caller not in NO_SIGNERS and (caller == "refresh") == ("refresh" in rule.callers)
        refusal = 0 if caller in rule.callers else 403 if is_identified else 401
        yield Cell(caller, tokens.valid(caller, called), refusal)
    for caller in rule.callers:
        yield from (Cell(f"{caller}, {kind}", text, 401) for kind, text in tokens.invalid(caller, called))


class Counts:
    """The number of cells by server, for the report."""

    def __init__(self) -> None:
        self._operations: Counter[str] = Counter()
        self._admitted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def add(self, server: str, refusals: Sequence[int]) -> None:
        """Count one operation with the refusal of each of its cells, which is 0 for an admitted call."""
        self._operations[server] += 1
        self._admitted[server] += sum(refusal == 0 for refusal in refusals)
        self._refused[server] += sum(refusal != 0 for refusal in refusals)

    def write(self) -> None:
        """Write reports/access.json."""
        REPORT.parent.mkdir(exist_ok=True)
        kinds = {"operations": self._operations, "admitted": self._admitted, "refused": self._refused}
        rows = {s: {kind: counter[s] for kind, counter in kinds.items()} for s in SERVERS if self._operations[s]}
        REPORT.write_text(json.dumps(rows, indent=1) + "\n")
