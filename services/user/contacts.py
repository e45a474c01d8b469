"""The normal form of an e-mail address and a phone number, so that two spellings of one are equal.

Every address and number from outside passes through this module before it is stored or compared.
"""

from __future__ import annotations

import re

MAX_EMAIL_CHARS = 255  # users.email
_EMAIL = re.compile(r"[!-?A-~]+@[!-?A-~]+\.[!-?A-~]+")
_PHONE = re.compile(r"\+[1-9][0-9]{7,14}")  # E.164
_SEPARATORS = re.compile(r"[\s().-]+")


def normalize_email(text: str) -> str:
    """The address in lower case without surrounding blanks. It may be no valid address."""
    return text.strip().lower()


def read_email(text: str) -> str:
    """The normal form of a valid address. Raises ValueError."""
    email = normalize_email(text)
    if not _EMAIL.fullmatch(email) or len(email) > MAX_EMAIL_CHARS:
        raise ValueError("email must be an address such as ada@example.com")
    return email


def read_phone(text: str) -> str:
    """The number in E.164 without blanks, hyphens, dots and brackets. Raises ValueError."""
    phone = _SEPARATORS.sub("", text)
    if not _PHONE.fullmatch(phone):
        raise ValueError("phone must have a country code, such as +65 9876 5432")
    return phone


def mask_email(email: str) -> str:
    """The address without most of its local part, as other users see it: `a…a@example.com`."""
    local, _, domain = email.rpartition("@")
    return f"{local[:1]}…{local[-1:]}@{domain}"
