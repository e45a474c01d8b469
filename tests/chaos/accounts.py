"""The visit of a new customer: their account, its logins and password, and the commands of staff about it."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import TYPE_CHECKING

import jwt

from harness.api_client import NEW_PASSWORD
from tests.chaos.client import Client

if TYPE_CHECKING:
    from tests.chaos.visits import Town

NUMBERS = count(1)


class AccountVisit:
    """Opens an account, uses every call about it, and lets its logins end."""

    def __init__(self, town: Town, rng: Random) -> None:
        self._town, self._ledger, self._rng = town, town.ledger, rng
        self._number = next(NUMBERS)
        self._email = f"chaos-{self._number}@example.com"
        self._password = NEW_PASSWORD

    def run(self) -> None:
        """Register, log in twice, change the password, and end the login in one of four ways."""
        phone = f"+65880{self._number:05d}"
        visitor = self._visitor()
        account = {"email": self._email, "phone": phone, "password": self._password}
        visitor.insist("register", lambda: visitor.post("/api/auth/register", account))
        first, second = self._log_in(), self._log_in()
        if first is None or second is None:
            return
        self._refresh(first)
        first.insist("balance", lambda: first.get("/api/credits/balance"))
        first.insist("logins", lambda: first.get("/api/auth/logins"))
        self._change_password(first, second)
        self._rng.choice((self._log_out, self._log_out_everywhere, self._let_staff_end, self._let_staff_lock))(first)

    def _visitor(self) -> Client:
        staff = self._town.staff
        return Client(staff.url, book=staff.book, pool=staff.pool)

    def _log_in(self) -> Client | None:
        visitor, account = self._visitor(), {"email": self._email, "password": self._password}
        login = visitor.insist("login", lambda: visitor.post("/api/auth/login", account))
        if not login.is_done:
            return None
        data = login.answer.data
        visitor.user, visitor.token, visitor.refresh_token = data["user"], data["access_token"], data["refresh_token"]
        self._ledger.accounts[self._email] = visitor.user_id
        self._ledger.passwords[self._email] = self._password
        return visitor

    def _refresh(self, visitor: Client) -> None:
        old = visitor.refresh_token
        refreshed = visitor.insist("refresh", lambda: visitor.call("POST", "/api/auth/refresh", token=old))
        if refreshed.is_done:
            visitor.token = refreshed.answer.data["access_token"]

    def _change_password(self, visitor: Client, other: Client) -> None:
        """Change the password, which ends the other login."""
        new = f"{NEW_PASSWORD} {self._number}"
        body = {"current_password": self._password, "new_password": new}
        changed = visitor.insist("password", lambda: visitor.post("/api/auth/password", body))
        if changed.is_done:
            self._ledger.passwords[self._email] = new
            self._end(other)
        elif changed.is_doubtful:  # a retry after the change has the wrong password
            self._ledger.passwords.pop(self._email)

    # ── the end of the login

    def _log_out(self, visitor: Client) -> None:
        if visitor.insist("logout", lambda: visitor.post("/api/auth/logout")).is_done:
            self._end(visitor)

    def _log_out_everywhere(self, visitor: Client) -> None:
        if visitor.insist("logout", lambda: visitor.post("/api/auth/logout-everywhere")).is_done:
            self._end(visitor)

    def _let_staff_end(self, visitor: Client) -> None:
        if self._command("logout", "end_logins", visitor):
            self._end(visitor)

    def _let_staff_lock(self, visitor: Client) -> None:
        """Lock the account, and perhaps unlock it. Both can be repeated."""
        user = visitor.user_id
        if not self._command("lock", "lock", visitor):
            self._ledger.passwords.pop(self._email, None)
            return
        self._end(visitor)
        self._ledger.locks[user] = True
        if self._rng.random() < 0.5:
            if self._command("unlock", "unlock", visitor):
                self._ledger.locks[user] = False
            else:
                self._ledger.locks.pop(user)
                self._ledger.passwords.pop(self._email, None)

    def _command(self, verb: str, action: str, visitor: Client) -> bool:
        """Let staff give a command. Returns whether it was acknowledged."""
        staff, path = self._town.staff, f"/api/auth/users/{visitor.user_id}/{verb}"
        self._town.renew(staff)
        is_done = staff.insist(verb, lambda: staff.post(path)).is_done
        if is_done:
            self._ledger.commands.append((action, visitor.user_id))
        return is_done

    def _end(self, visitor: Client) -> None:
        self._ledger.logouts.append(get_session(str(visitor.token)))
        self._town.ended_tokens.append(str(visitor.token))


def get_session(access_token: str) -> str:
    """Return the id of a token's login."""
    return str(jwt.decode(access_token, options={"verify_signature": False})["sid"])
