"""The workflow runs what the project has: lint, and every suite as a job of its own."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import yaml

from harness.runtime.compose import ROOT

pytestmark = pytest.mark.unit

WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def commands(job: str) -> str:
    return "\n".join(step["run"] for step in JOBS[job]["steps"] if "run" in step)


@pytest.mark.claim("repository/ci-checks")
def test_every_suite_is_a_job_and_lint_is_another() -> None:
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    verified = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "unit or saga or" in line)
    suites = {marker.partition(":")[0] for marker in markers} & set(verified.replace('"', " ").split())
    assert set(JOBS["suite"]["strategy"]["matrix"]["suite"]) == suites >= {"unit", "saga", "e2e"}
    assert "pull_request" in WORKFLOW[True]  # `on:`, as YAML reads it
    assert "make lint" in commands("lint")
    assert "pytest -m ${{ matrix.suite }}" in commands("suite")
    assert JOBS["containers"]["env"] == {"STACK": "docker"}
    assert "make verify" in commands("containers")
    assert "docker compose run --rm tests pytest -m saga" in commands("containers"), "a suite in its own image"


@pytest.mark.parametrize(("job", "written"), [("suite", "--junitxml=reports/"), ("containers", "make verify")])
def test_reports_are_kept_also_when_a_suite_fails(job: str, written: str) -> None:
    assert written in commands(job)
    last = JOBS[job]["steps"][-1]
    assert last["if"] == "always()"
    assert last["with"]["path"] == "reports/"
