"""Limits on wrong passwords, per account and address. A guess is counted before its password is checked.

An address without a wrong guess can always check one password, so guesses never lock out an owner at another address.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from services.chassis import limits
from services.chassis.db import Database
from services.chassis.limits import Count, Counted, Limit
from services.user.settings import Limits

WINDOW_SECONDS = 300
_WHAT = "wrong passwords for this account from your address"


@dataclass(frozen=True)
class Guess:
    """A login that is counted. `account` and `address` are hashes, as logs show them."""

    account: str
    address: str
    counted: list[Counted]


@dataclass(frozen=True)
class LoginGuesses:
    """Counts guesses in the database.

    An account allows some wrong passwords from one address. After many from all addresses, it allows one from each
    address. `key` hashes e-mail addresses and network addresses.
    """

    db: Database
    key: str
    limits: Limits

    def hash(self, text: str) -> str:
        """Hash an address for keys and logs, so that neither contains it. Equal addresses have equal hashes."""
        return hmac.digest(self.key.encode(), text.encode(), "sha256").hex()[:16]

    def begin(self, email: str, address: str) -> Guess:
        """Count a guess. Raises Refused RATE_LIMITED with `retry_after` in seconds."""
        account, hashed_address = self.hash(email), self.hash(address)
        of_account = Count(f"login:{account}", Limit(self.limits.account_login_failures, WINDOW_SECONDS))
        with self.db.transaction() as tx:
            from_all = limits.try_take(tx, of_account)
            number = 1 if from_all is None else self.limits.login_failures
            of_address = Count(f"login:{account}:{hashed_address}", Limit(number, WINDOW_SECONDS), _WHAT)
            counted = limits.take(tx, of_address)
        return Guess(account, hashed_address, counted + ([from_all] if from_all else []))

    def forget(self, guess: Guess) -> None:
        """Stop counting a guess whose password was right."""
        with self.db.transaction() as tx:
            limits.give_back(tx, *guess.counted)
