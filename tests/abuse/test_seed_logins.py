"""An attacker reads the repository and tries its passwords on the staff account."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from harness.api_client import Api
from harness.runtime.compose import ROOT
from tests.abuse.addresses import from_address, new_addresses
from tests.support.system import TestSystem

pytestmark = [pytest.mark.abuse, pytest.mark.usefixtures("invariants")]

STAFF = "staff@example.com"
PAGES = [ROOT / "README.md", ROOT / "API.md", *(ROOT / "docs").glob("**/*.md"), *(ROOT / "specs").glob("**/*.json")]
WORDS = re.compile(r'password"?[`:= ]+[`"\\]*([^\s`"\\,}]{8,72})', re.IGNORECASE)


def list_public_passwords(pages: list[Path]) -> set[str]:
    """Return every value that a page of the repository gives a password."""
    return {found for page in pages for found in WORDS.findall(page.read_text())}


def test_no_public_password_opens_the_staff_account(system: TestSystem) -> None:
    """The negative control is the seed customer, whom the reference gives this password."""
    attacker = from_address(system.visitor(), new_addresses(1)[0])
    found = list_public_passwords(PAGES)
    assert "password123" in found
    for password in found:
        assert attacker.post("/api/auth/login", {"email": STAFF, "password": password}).status in (401, 429)
    assert attacker.post("/api/auth/login", {"email": "user1@example.com", "password": "password123"}).status == 200


def test_staff_account_opens_with_the_password_of_the_environment(system: TestSystem) -> None:
    staff = Api(system.stack.url("api-gateway")).login(STAFF, system.env("user-service")["STAFF_PASSWORD"])
    assert staff.user["role"] == "staff"


def add_staff(system: TestSystem, email: str, password: str) -> subprocess.CompletedProcess[str]:
    """Run the documented command with the environment of User."""
    command = [sys.executable, "-m", "services.user.add_staff", email, "+6591230000"]
    env = system.env("user-service")
    return subprocess.run(
        command, input=f"{password}\n", env=env, cwd=ROOT, text=True, capture_output=True, check=False
    )


def test_command_adds_a_staff_account_once(system: TestSystem) -> None:
    email, password = f"staff-{uuid4()}@example.org", "a gate with 4 lanes"
    added = add_staff(system, email, password)
    again = add_staff(system, email, "another gate, 2 lanes")
    assert added.returncode == 0, added
    assert (again.returncode, again.stderr) == (1, "an account with this e-mail address exists\n")
    staff = Api(system.stack.url("api-gateway")).login(email, password)
    assert staff.user["role"] == "staff"


def test_command_refuses_a_common_password(system: TestSystem) -> None:
    refused = add_staff(system, "second-staff@example.org", "password123")
    assert (refused.returncode, refused.stderr) == (1, "many people use this password, so choose another one\n")
