"""The workflows run lint and every suite, on every supported Python and system, with pinned actions."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from harness.runtime.compose import ROOT, load, variables_of
from harness.runtime.stack import COMPOSE
from harness.runtime.variables import resolve

pytestmark = pytest.mark.unit

WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
JOBS: dict[str, Any] = WORKFLOWS["ci"]["jobs"]
ALL_JOBS = [
    pytest.param(job, id=f"{name}-{key}") for name, found in WORKFLOWS.items() for key, job in found["jobs"].items()
]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def uses(job: dict[str, Any], action: str) -> list[dict[str, Any]]:
    return [step for step in job["steps"] if step.get("uses", "").startswith(f"{action}@")]


@pytest.mark.claim("repository/ci-checks")
def test_lint_and_every_suite_have_a_job() -> None:
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    suites = {marker.partition(":")[0] for marker in markers} - {"deep", "negative_control"}
    assert set(JOBS["suite"]["strategy"]["matrix"]["suite"]) == suites >= {"unit", "saga", "e2e"}
    assert ' -m "not deep"' in (ROOT / "Makefile").read_text()  # `make verify`
    assert "pull_request" in WORKFLOWS["ci"][True]  # `on:`, as YAML reads it
    assert "make lint" in commands(JOBS["lint"])
    assert 'pytest -m "${{ matrix.suite }} and not deep"' in commands(JOBS["suite"])


def test_known_faults_of_every_lock_are_looked_up() -> None:
    audited = commands(JOBS["audit"])
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert f"pip-audit --require-hashes --disable-pip --requirement {lock}" in audited
    for folder in ("clients", "specs/postman"):
        assert f"npm audit --prefix {folder}" in audited


def test_every_suite_runs_on_every_supported_python() -> None:
    assert JOBS["suite"]["strategy"]["matrix"]["python"] == PYTHONS
    (setup,) = uses(JOBS["suite"], "actions/setup-python")
    assert setup["with"]["python-version"] == "${{ matrix.python }}"
    assert WORKFLOWS["ci"]["env"]["PYTHON"] == "python", "without it, the newest Python of the runner is chosen"


def test_the_demo_runs_on_every_supported_system() -> None:
    runners = JOBS["runner"]["strategy"]["matrix"]["os"]
    images = JOBS["distribution"]["strategy"]["matrix"]["image"]
    assert {*runners, *images} == {"ubuntu-22.04", "ubuntu-24.04", "debian:12", "debian:13", "ubuntu:24.04"}
    assert JOBS["distribution"]["env"]["PYTHON"] == "", "there the distribution's own Python is chosen"
    assert not uses(JOBS["distribution"], "actions/setup-python")
    for job in (JOBS["runner"], JOBS["distribution"]):
        assert "make demo" in commands(job)


def test_a_job_runs_every_suite_with_the_real_kong() -> None:
    job = JOBS["containers"]
    kong = load(COMPOSE, resolve({}, {}, variables_of(COMPOSE)))["api-gateway"].image
    assert job["env"] == {"STACK": "docker"}
    assert f"docker pull {kong}" in commands(job)
    assert "make verify" in commands(job)
    assert "docker compose run --rm tests pytest -m saga" in commands(job), "one suite runs in its own image"


def test_both_commands_run_every_night_from_an_empty_clone() -> None:
    assert "schedule" in WORKFLOWS["nightly"][True]
    job = WORKFLOWS["nightly"]["jobs"]["empty-clone"]
    assert job["strategy"]["matrix"]["suite"] == ["bookworm", "trixie"]
    for user in ("sudo ", "sudo AS_USER=1 "):
        for command in ("make demo", "make verify"):
            assert f"{user}harness/dev/debian_chroot.sh ${{{{ matrix.suite }}}} {command}" in commands(job)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_action_is_pinned_by_its_digest(workflow: str) -> None:
    """A tag can be moved to other code. The comment has the version, which a digest does not show."""
    lines = (ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text().splitlines()
    used = [line.partition("uses: ")[2] for line in lines if "uses: " in line]
    assert used
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


@pytest.mark.parametrize("job", ALL_JOBS)
def test_no_checkout_keeps_the_token_on_disk(job: dict[str, Any]) -> None:
    (checkout,) = uses(job, "actions/checkout")
    assert checkout["with"]["persist-credentials"] is False


@pytest.mark.parametrize("job", ALL_JOBS)
def test_lint_gets_the_whole_history(job: dict[str, Any]) -> None:
    """The prose check reads the subjects of the commits. `make verify` begins with lint."""
    (checkout,) = uses(job, "actions/checkout")
    if re.search(r"make (lint|verify)", commands(job)):
        assert checkout["with"]["fetch-depth"] == 0


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_a_workflow_may_only_read(workflow: str) -> None:
    assert WORKFLOWS[workflow]["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(
    ("job", "written", "path"),
    [
        ("suite", "--report=reports --junitxml=reports/", "reports/"),
        ("containers", "make verify", "reports/"),
        ("coverage", "make coverage", "reports/coverage.json"),
    ],
)
def test_reports_are_uploaded_also_after_a_failure(job: str, written: str, path: str) -> None:
    assert written in commands(JOBS[job])
    (upload,) = uses(JOBS[job], "actions/upload-artifact")
    assert upload["if"] == "always()"
    assert upload["with"]["path"] == path
