"""Keys for ES256 signatures. Each service holds one private key, and every verifier holds public keys only.

A key is one line of text: the base64 of its DER form, without the lines BEGIN and END of a PEM file.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

ALGORITHM = "ES256"


@dataclass(frozen=True)
class SigningKey:
    """The private key of a service. `key_id` names the public key that verifies its signatures."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    key_id: str

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Read a private key in PKCS #8. Raises ValueError."""
        private = load_der_private_key(base64.b64decode(text, validate=True), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise ValueError("not a key of the curve P-256")
        return cls(private, _identify(private.public_key()))

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token with these claims and the id of this key."""
        return jwt.encode(dict(claims), self.private, algorithm=ALGORITHM, headers={"kid": self.key_id})


@dataclass(frozen=True, eq=False)
class PublicKeys:
    """Public keys by id, each with its owner. An owner has two keys while one replaces the other."""

    owners: Mapping[str, str]
    keys: Mapping[str, ec.EllipticCurvePublicKey]

    @classmethod
    def parse(cls, text: str, owner: str = "") -> PublicKeys:
        """Read keys in SubjectPublicKeyInfo, separated by commas. Without `owner`, each is `name=key`.

        Raises ValueError.
        """
        found = {key_id: (name, key) for name, key_id, key in _parse_entries(text, owner)}
        return cls({i: name for i, (name, _) in found.items()}, {i: key for i, (_, key) in found.items()})

    def verify(self, token: str, **checks: Any) -> tuple[str, dict[str, Any]]:
        """Return the owner of the key and the verified claims. Raises jwt.InvalidTokenError."""
        key_id = jwt.get_unverified_header(token).get("kid")
        if key_id is None or key_id not in self.keys:
            raise jwt.InvalidTokenError("no key has this id")
        return self.owners[key_id], jwt.decode(token, self.keys[key_id], algorithms=[ALGORITHM], **checks)


def _parse_entries(text: str, owner: str) -> Iterator[tuple[str, str, ec.EllipticCurvePublicKey]]:
    for entry in text.split(","):
        name, encoded = (owner, entry) if owner else (entry.partition("=")[0], entry.partition("=")[2])
        key = load_der_public_key(base64.b64decode(encoded.strip(), validate=True))
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("not a key of the curve P-256")
        yield name.strip(), _identify(key), key


def _identify(key: ec.EllipticCurvePublicKey) -> str:
    """The id of a key, which the gateway derives in the same way."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:16]
