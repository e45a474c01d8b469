"""newman runs the whole Postman collection against the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import Stack
from tests.support.newman import newman, run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def command() -> list[str]:
    return newman()


@pytest.mark.claim("testing/postman-collection", "testing/end-to-end")
def test_every_assertion_of_the_collection_holds(stack: Stack, command: list[str], tmp_path: Path) -> None:
    report = run(command, stack, tmp_path / "report.json")
    failures = [f"{failure['source']['name']}: {failure['error']['message']}" for failure in report["run"]["failures"]]
    assert failures == []
    assert report["exit_code"] == 0
    assert report["run"]["stats"]["assertions"]["total"] > 110


@pytest.mark.negative_control
def test_a_wrong_answer_makes_the_run_fail(stack: Stack, command: list[str], tmp_path: Path) -> None:
    report = run(command, stack, tmp_path / "report.json", "--folder", "Auth", "--env-var", "password=short")
    assert report["exit_code"] == 1
    assert report["run"]["failures"]
