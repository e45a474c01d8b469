"""Routes to register, log in, refresh and log out."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from werkzeug.test import TestResponse

from services.chassis.settings import DatabaseSettings
from services.user import passwords
from tests.support.concurrency import run_concurrently
from tests.support.databases import scripts
from tests.support.service_settings import USER_KEY, USER_KEYS, signing_key
from tests.unit.user.user_app import UserApp, error_code, status_codes

pytestmark = pytest.mark.unit

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash at bcrypt's lowest cost, because most tests need several hashes and a production one takes 50 ms."""
    monkeypatch.setattr(passwords, "ROUNDS", 4)


def registration(**changes: Any) -> dict[str, Any]:
    return {"email": f"{uuid4()}@example.com", "phone": "+6591234567", "password": PASSWORD} | changes


def register(users: UserApp, **changes: Any) -> dict[str, Any]:
    """Register a customer and return the request body."""
    person = registration(**changes)
    answer = users.call_public("POST", "/api/auth/register", person)
    assert answer.status_code == 201, answer.text
    return person


def login(users: UserApp, email: str, password: str = PASSWORD) -> TestResponse:
    return users.call_public("POST", "/api/auth/login", {"email": email, "password": password})


def log_in(users: UserApp) -> dict[str, Any]:
    """Register a customer, log in, and return the session."""
    answer = login(users, register(users)["email"])
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.get_json()["data"]
    return session


def read_claims(token: str) -> dict[str, Any]:
    """Verify a token of User and return its claims."""
    return USER_KEYS.verify(token, issuer="ticketremaster")[1]


def post_with_token(users: UserApp, path: str, token: str) -> TestResponse:
    return users.call_public("POST", path, Authorization=f"Bearer {token}")


@pytest.mark.claim("layers/user-over-rest", "testing/login-examples", "token/role")
def test_registered_customer_can_log_in(users: UserApp) -> None:
    person = registration()
    answer = users.call_public("POST", "/api/auth/register", person)
    added = answer.get_json()["data"]
    assert (answer.status_code, added["email"]) == (201, person["email"])
    session = login(users, person["email"]).get_json()["data"]
    assert session["user"] == {
        "user_id": added["user_id"], "email": person["email"], "role": "customer", "credit_balance": 0.0,
    }  # fmt: skip
    assert (session["token_type"], session["expires_in"]) == ("Bearer", 900)


@pytest.mark.claim(
    "token/access-and-refresh",
    "token/names-user-and-role",
    "token/sub",
    "token/role",
    "token/iat",
    "token/exp",
    "token/type",
)
def test_tokens_have_the_claims_of_the_reference(users: UserApp) -> None:
    session = log_in(users)
    for kind, seconds in (("access", 900), ("refresh", 7 * 86400)):
        claims = read_claims(session[f"{kind}_token"])
        assert claims["sub"] == session["user"]["user_id"]
        assert (claims["role"], claims["type"], claims["exp"] - claims["iat"]) == ("customer", kind, seconds)
        assert UUID(claims["jti"])
        assert UUID(claims["sid"])


@pytest.mark.claim("schema/users.email")
@pytest.mark.parametrize("spelling", ["{}", " {}", "{}\n", "\t{} ", " {}\u00a0"], ids=repr)
def test_case_and_blanks_of_an_email_do_not_count(users: UserApp, spelling: str) -> None:
    person = register(users)
    spelled = spelling.format(person["email"].upper())
    assert login(users, spelled).status_code == 200
    again = users.call_public("POST", "/api/auth/register", registration(email=spelled))
    assert (again.status_code, error_code(again)) == (409, "EMAIL_ALREADY_EXISTS")


@pytest.mark.parametrize("spelled", ["+65 9123 4567", " +65-9123-4567\n", "(+65) 9123.4567"])
def test_phone_number_is_stored_in_e164(users: UserApp, spelled: str) -> None:
    session = login(users, register(users, phone=spelled)["email"]).get_json()["data"]
    assert users.account(UUID(session["user"]["user_id"]))["phone"] == "+6591234567"


@pytest.mark.claim("schema/users.email")
def test_concurrent_registrations_of_one_email_succeed_once(users: UserApp) -> None:
    person = registration()
    answers = run_concurrently([lambda: users.call_public("POST", "/api/auth/register", person)] * 5)
    assert status_codes(answers) == [201] + [409] * 4


@pytest.mark.claim("token/any-password")
@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "nobody"}, {"email": "a@b"}, {"email": "a b@example.com"}, {"email": "@example.com"}, {"email": ""},
        {"email": "ü@example.com"}, {"email": "a@ex ample.com"}, {"email": "a" * 250 + "@example.com"}, {"email": 7},
        {"phone": "91234567"}, {"phone": "+0912345678"}, {"phone": "+65 9123 456x"}, {"phone": "+65" + "9" * 14},
        {"phone": " "}, {"phone": "65+91234567"}, {"phone": "+٦٥٩١٢٣٤٥٦٧"}, {"phone": None},
        {"password": "seven77"}, {"password": "x" * 73}, {"password": "é" * 37}, {"password": 12345678},
        {"password": "password123"}, {"password": "QWERTYUIOP"},
        {"role": "staff"}, {"credit_balance": 1000000},
    ],
    ids=str,
)  # fmt: skip
def test_invalid_registration_is_refused(users: UserApp, wrong: dict[str, Any]) -> None:
    answer = users.call_public("POST", "/api/auth/register", registration(**wrong))
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("password", ["eight 88", "x" * 72, "é" * 36], ids=["8 bytes", "72 bytes", "72 bytes of UTF-8"])
def test_password_has_8_to_72_bytes(users: UserApp, password: str) -> None:
    person = register(users, password=password)
    assert login(users, person["email"], password).status_code == 200


@pytest.mark.claim("token/login-checks-password")
@pytest.mark.parametrize("password", ["wrong horse", "", "x" * 1000, PASSWORD + " ", PASSWORD.upper()], ids=repr)
def test_wrong_password_is_401(users: UserApp, password: str) -> None:
    answer = login(users, register(users)["email"], password)
    assert (answer.status_code, error_code(answer)) == (401, "UNAUTHORIZED")


def test_bytes_that_bcrypt_ignores_still_count(users: UserApp) -> None:
    person = register(users, password="x" * 72)
    assert login(users, person["email"], "x" * 73).status_code == 401


def test_unknown_email_gets_the_answer_of_a_wrong_password(users: UserApp) -> None:
    unknown, wrong = login(users, "nobody@example.com"), login(users, register(users)["email"], "wrong horse")
    assert (unknown.status_code, unknown.get_json()["message"]) == (401, wrong.get_json()["message"])


def test_unknown_email_costs_as_much_as_a_wrong_password(users: UserApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # use production's cost
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def note_check(given: bytes, stored: bytes) -> bool:
        checked.append(stored)
        return real(given, stored)

    monkeypatch.setattr(bcrypt, "checkpw", note_check)
    login(users, "nobody@example.com")
    login(users, register(users)["email"], "wrong horse")
    assert [stored[:7] for stored in checked] == [b"$2b$10$", b"$2b$10$"]


@pytest.mark.parametrize("path", ["/api/auth/register", "/api/auth/login"])
@pytest.mark.parametrize("body", [b"", b"null", b"{", b'{"email":"\\ud800@a.b"}', b'{"email":"a\\u0000@b.cd"}'])
def test_malformed_body_is_a_validation_error(users: UserApp, path: str, body: bytes) -> None:
    answer = users.call_public("POST", path, body)
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("password", [r"C:\u0000 path", r"\\u0000 twice", r"u0000 \u0000", r"\ud800 no surrogate"])
def test_password_with_an_escaped_backslash_is_accepted(users: UserApp, password: str) -> None:
    """In JSON, a backslash is escaped too, so the bytes look like an escape of NUL."""
    email = register(users, password=password)["email"]
    assert login(users, email, password).status_code == 200
    assert login(users, email, password + "!").status_code == 401


@pytest.mark.parametrize("password", ["eight ch\0", "\\\0 after a backslash"])
def test_password_with_a_nul_is_refused(users: UserApp, password: str) -> None:
    answer = login(users, "a@b.cd", password)
    assert (answer.status_code, error_code(answer)) == (400, "VALIDATION_ERROR")


@pytest.mark.claim("token/refresh-without-login", "token/refresh-gives-access")
def test_refresh_returns_an_access_token_of_the_same_session(users: UserApp) -> None:
    session = log_in(users)
    answer = post_with_token(users, "/api/auth/refresh", session["refresh_token"])
    renewed = answer.get_json()["data"]
    assert (answer.status_code, renewed["expires_in"]) == (200, 900)
    old, new = (read_claims(t["access_token"]) for t in (session, renewed))
    assert (new["sid"], new["sub"], new["type"]) == (old["sid"], old["sub"], "access")


def test_refresh_uses_the_current_role(users: UserApp) -> None:
    session = log_in(users)
    with users.db.transaction() as tx:
        tx.run("UPDATE users SET role = 'staff' WHERE email = %(email)s", email=session["user"]["email"])
    renewed = post_with_token(users, "/api/auth/refresh", session["refresh_token"]).get_json()["data"]
    assert read_claims(renewed["access_token"])["role"] == "staff"


def test_access_token_cannot_refresh(users: UserApp) -> None:
    assert post_with_token(users, "/api/auth/refresh", log_in(users)["access_token"]).status_code == 401


def test_refresh_token_can_only_refresh(users: UserApp) -> None:
    assert post_with_token(users, "/api/auth/logout", log_in(users)["refresh_token"]).status_code == 401


@pytest.mark.parametrize("path", ["/api/auth/refresh", "/api/auth/logout"])
@pytest.mark.parametrize(
    "change",
    [{"exp": 1}, {"iss": "somebody"}, {"sub": "nobody"}, {"role": "king"}, {"type": "other"}, {"sid": None}],
    ids=str,
)
def test_token_with_a_wrong_claim_is_401(users: UserApp, path: str, change: dict[str, Any]) -> None:
    session = log_in(users)
    token = session["refresh_token" if path.endswith("refresh") else "access_token"]
    claims = read_claims(token) | change
    forged = USER_KEY.sign({name: value for name, value in claims.items() if value is not None})
    assert post_with_token(users, path, forged).status_code == 401


@pytest.mark.claim("token/guards-routes")
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic x", "Bearer a.b.c"])
@pytest.mark.parametrize("path", ["/api/auth/refresh", "/api/auth/logout"])
def test_missing_token_is_401(users: UserApp, path: str, header: str | None) -> None:
    answer = users.call_public("POST", path, **({} if header is None else {"Authorization": header}))
    assert (answer.status_code, error_code(answer)) == (401, "UNAUTHORIZED")


def test_token_of_another_algorithm_or_key_is_401(users: UserApp) -> None:
    claims = read_claims(log_in(users)["access_token"])
    kid = {"kid": USER_KEY.key_id}
    public = USER_KEY.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forged = [jwt.encode(claims, base64.b64encode(public), algorithm="HS256", headers=kid)]
    forged.append(jwt.encode(claims, None, algorithm="none", headers=kid))  # type: ignore[arg-type]
    forged += [signing_key(service).sign(claims) for service in ("orchestrator-service", "order-service")]
    forged.append(replace(signing_key("order-service"), key_id=USER_KEY.key_id).sign(claims))
    assert {post_with_token(users, "/api/auth/logout", token).status_code for token in forged} == {401}


@pytest.mark.claim("token/exp")
def test_expired_token_has_its_own_code(users: UserApp) -> None:
    claims = read_claims(log_in(users)["access_token"]) | {"exp": 1}
    assert error_code(post_with_token(users, "/api/auth/logout", USER_KEY.sign(claims))) == "TOKEN_EXPIRED"


@pytest.mark.claim("token/logout-revokes")
def test_logout_revokes_both_tokens(users: UserApp) -> None:
    session = log_in(users)
    answer = post_with_token(users, "/api/auth/logout", session["access_token"])
    assert (answer.status_code, answer.get_json()["data"]) == (200, {})
    assert post_with_token(users, "/api/auth/refresh", session["refresh_token"]).status_code == 401
    assert post_with_token(users, "/api/auth/logout", session["access_token"]).status_code == 401


def test_logout_revokes_one_session_only(users: UserApp) -> None:
    person = register(users)
    here, there = (login(users, person["email"]).get_json()["data"] for _ in range(2))
    post_with_token(users, "/api/auth/logout", here["access_token"])
    assert post_with_token(users, "/api/auth/refresh", there["refresh_token"]).status_code == 200


def test_concurrent_logouts_are_idempotent(users: UserApp) -> None:
    token = log_in(users)["access_token"]
    answers = run_concurrently([lambda: post_with_token(users, "/api/auth/logout", token)] * 5)
    assert set(status_codes(answers)) <= {200, 401}


@pytest.mark.claim("seed/users")
@pytest.mark.parametrize("email", ["user1@example.com", "user2@example.com"])
def test_seeded_customers_can_log_in(users: UserApp, email: str) -> None:
    session = login(users, email, "password123").get_json()["data"]
    assert session["user"]["role"] == "customer"


def test_seed_matches_the_documents_and_is_idempotent(
    users: UserApp, database_for: Callable[[str], DatabaseSettings]
) -> None:
    before = [users.account(UUID(int=number)) for number in (1, 2)]
    with users.db.transaction() as tx:
        for script in scripts("user"):
            tx.run(script.read_text().replace("%", "%%"))
    assert before == [users.account(UUID(int=number)) for number in (1, 2)]
    facts = [(user["phone"], user["is_flagged"], user["role"], user["credit_balance"]) for user in before]
    assert facts == [
        ("+6591234567", False, "customer", 1000),
        ("+6591234568", True, "customer", 500),
    ]


@pytest.mark.claim("schema/users.password_hash")
def test_password_is_stored_as_a_bcrypt_hash(users: UserApp) -> None:
    email, password = f"{uuid4()}@example.com", "a password to keep"
    body = {"email": email, "phone": "+6591234567", "password": password}
    assert users.call_public("POST", "/api/auth/register", body).status_code == 201
    with users.db.transaction() as tx:
        stored = tx.only("SELECT password_hash FROM users WHERE email = %(email)s", email=email)["password_hash"]
    assert re.fullmatch(r"\$2b\$\d\d\$.{53}", stored)
