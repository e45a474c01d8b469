"""Run Schemathesis over one spec, with all its phases and checks, and collect the result of each call.

schemathesis.toml lists the checks that accept more statuses for an operation, with the reasons.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder
from schemathesis.generation import GenerationMode
from schemathesis.openapi import from_dict
from schemathesis.schemas import BaseSchema

from harness.runtime.compose import ROOT
from tests.contract.credentials import Credentials, Headers
from tests.contract.exchanges import AnswerId

CONFIG = ROOT / "schemathesis.toml"
TIMES = 10 if os.environ.get("CONTRACT_DEEP") else 1
LONGEST_PASSWORD = 72  # bytes
NEW_ID_OF = {"createOrder": "order_id", "createTransfer": "transfer_id"}
_MADE: set[str] = set()
Document = dict[str, Any]


@dataclass
class Outcome:
    """The failures of a run, and the answers that it reached."""

    failures: dict[str, str] = field(default_factory=dict)
    reached: Counter[AnswerId] = field(default_factory=Counter)
    checks: set[str] = field(default_factory=set)

    def add(self, recorder: ScenarioRecorder) -> None:
        """Add the calls and checks of a scenario."""
        for case_id, call in recorder.interactions.items():
            case = recorder.cases[case_id].value
            if call.response is not None and call.request.method == case.operation.method.upper():
                self.reached[call.request.method, case.operation.path, call.response.status_code] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                self.checks.add(check.name)
                if check.failure_info is not None:
                    self._fail(recorder, case_id, check.name, check.failure_info.failure)

    def _fail(self, recorder: ScenarioRecorder, case_id: str, name: str, failure: Any) -> None:
        case, call = recorder.cases[case_id].value, recorder.interactions.get(case_id)
        got = call.response.content[:300] if call and call.response is not None and call.response.content else b""
        sent = {"path": case.path_parameters, "query": case.query, "body": case.body, "headers": case.headers}
        title = f"{case.operation.label}: {name}: {failure.title}"
        self.failures.setdefault(title, f"{failure.message}\nsent {str(sent)[:600]}\ngot {got!r}")


def fuzz(
    document: Document,
    url: str,
    credentials: Credentials,
    user_id: UUID | None,
    *,
    only: set[str] | None = None,
    phases: tuple[str, ...] = ("examples", "coverage", "fuzzing", "stateful"),
) -> Outcome:
    """Run the engine against `url` as `user_id`, or without a token if `user_id` is None.

    Internal operations always get the credential of a service.
    """
    config = SchemathesisConfig.from_path(CONFIG)
    schema = from_dict(document, config=config)
    schema.config.update(base_url=url)
    for phase in ("examples", "coverage", "fuzzing", "stateful"):
        schema.config.phases.get_by_name(name=phase).enabled = phase in phases
    schema.config.generation.update(max_examples=(schema.config.generation.max_examples or 1) * TIMES)
    chosen: BaseSchema = schema if only is None else schema.include(operation_id=sorted(only))
    chosen.auth(refresh_interval=None)(_make_provider(document, credentials, user_id))
    return _collect(from_schema(chosen).execute())


def _collect(stream: Iterator[Any]) -> Outcome:
    outcome = Outcome()
    for event in stream:
        if isinstance(event, events.ScenarioFinished):
            outcome.add(event.recorder)
        elif isinstance(event, events.NonFatalError):
            outcome.failures.setdefault(f"{event.label}: error", str(event.value))
        elif isinstance(event, events.FatalError):
            raise event.exception
    return outcome


def _make_provider(document: Document, credentials: Credentials, user_id: UUID | None) -> type[Any]:
    class Provider:
        """The headers that open each operation. Each call gets a new login, because one operation ends logins."""

        def get(self, _case: Any, context: Any) -> Headers:
            return credentials.headers(document, context.operation.definition.raw, user_id)

        def set(self, case: Any, data: Headers, _context: Any) -> None:
            case.headers.update(data)

    return Provider


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case[Any], _kwargs: Mapping[str, Any]) -> None:
    """Repair generated data that JSON Schema cannot describe: whole cents, password length in bytes, unused keys."""
    if case.meta is not None and case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid4())
    if isinstance(case.body, dict):
        new = {"key", NEW_ID_OF.get(case.operation.definition.raw.get("operationId", ""))}
        case.body = {
            name: _replace_used(value) if name in new else _repair(name, value) for name, value in case.body.items()
        }


def _replace_used(value: Any) -> Any:
    """Return a new text of at least the length of a UUID, because a key has one effect only.

    A text that this function made returns through an OpenAPI link to undo its effect, so it stays unchanged.
    """
    if not isinstance(value, str) or value in _MADE:
        return value
    made = str(uuid4()) + value[36:]
    _MADE.add(made)
    return made


def _repair(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if name == "password" and isinstance(value, str):
        return value.encode()[:LONGEST_PASSWORD].decode(errors="ignore")
    return value
