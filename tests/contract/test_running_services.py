"""The running services match their specs: Schemathesis finds nothing, and every documented answer is reached."""

from __future__ import annotations

import re

import pytest

from harness.api_client import Api
from harness.dev.spec_bundle import SHARED
from tests.contract import coverage_report
from tests.contract.conftest import RUNS, Session
from tests.contract.exchanges import Contract, Exchange

pytestmark = pytest.mark.contract

EVERY_CHECK = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "positive_data_acceptance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
    "missing_required_header",
    "object_level_authorization",
}


@pytest.mark.parametrize("run", RUNS)
def test_schemathesis_finds_nothing(session: Session, run: str) -> None:
    failures = session.outcome(run).failures
    assert not failures, "\n\n".join(f"{title}\n{found}" for title, found in failures.items())


def test_every_check_of_schemathesis_runs(session: Session) -> None:
    assert session.outcome("gateway by a customer").checks >= EVERY_CHECK


def test_refusal_of_a_large_body_arrives_before_the_connection_ends(session: Session) -> None:
    caller, large = session.system.person(), b'"' + b"x" * 500_000 + b'"'
    statuses = {caller.call("POST", "/api/pay", large, {"Content-Type": "application/json"}).status for _ in range(100)}
    assert statuses == {413}


@pytest.mark.claim("testing/tries-by-hand")
def test_docs_page_loads_nothing_from_other_sites(session: Session) -> None:
    visitor = Api(session.url("gateway"))
    parts = re.findall(r'(?:href|src)="([^"]+)"', visitor.get("/docs").body.decode())
    assert len(parts) == 4
    for part in [*parts, *(f"/docs/{name}.yaml" for name in ("gateway", *SHARED))]:
        assert (part.startswith("/docs/"), visitor.get(part).status) == (True, 200), part
    assert visitor.get("/docs/..%2f..%2fetc%2fpasswd").status == 404
    assert visitor.get("/docs/user.yaml").error_code == "NOT_FOUND"


def test_every_recorded_answer_matches_its_spec(exchanges: list[Exchange], contracts: dict[str, Contract]) -> None:
    problems = [problem for exchange in exchanges for problem in contracts[exchange.server].violations(exchange)]
    assert not problems, "\n".join(problems)


def test_every_operation_and_documented_status_is_reached(
    exchanges: list[Exchange], contracts: dict[str, Contract]
) -> None:
    coverage_report.write_report(exchanges, contracts)
    for server, answers in coverage_report.find_reached(exchanges, contracts).items():
        missing = contracts[server].documented - answers
        assert not missing, f"{server}: no scenario reached {sorted(missing)}"
