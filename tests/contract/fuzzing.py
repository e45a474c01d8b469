"""Schemathesis's engine over one spec: all its phases, all its checks, what came of each call.

Which checks are widened for which operation, and why, is in schemathesis.toml.
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
from tests.contract.callers import Callers, Headers, schemes_of

CONFIG = ROOT / "schemathesis.toml"
TIMES = 10 if os.environ.get("CONTRACT_DEEP") else 1
LONGEST_PASSWORD = 72  # bytes
NEW_ID_OF = {"createOrder": "order_id", "createTransfer": "transfer_id"}
_MADE: set[str] = set()
Document = dict[str, Any]
Reached = tuple[str, str, int]  # method, path, status


@dataclass
class Outcome:
    """What a run found wrong, and what it reached."""

    failures: dict[str, str] = field(default_factory=dict)
    reached: Counter[Reached] = field(default_factory=Counter)
    checks: set[str] = field(default_factory=set)

    def note(self, recorder: ScenarioRecorder) -> None:
        """Take in a scenario's calls and checks."""
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
    callers: Callers,
    user_id: UUID | None,
    *,
    only: set[str] | None = None,
    phases: tuple[str, ...] = ("examples", "coverage", "fuzzing", "stateful"),
) -> Outcome:
    """Run the engine against `url` as `user_id` (a service where the spec asks for one; None: with nothing)."""
    config = SchemathesisConfig.from_path(CONFIG)
    schema = from_dict(document, config=config)
    schema.config.update(base_url=url)
    for phase in ("examples", "coverage", "fuzzing", "stateful"):
        schema.config.phases.get_by_name(name=phase).enabled = phase in phases
    schema.config.generation.update(max_examples=(schema.config.generation.max_examples or 1) * TIMES)
    chosen: BaseSchema = schema if only is None else schema.include(operation_id=sorted(only))
    chosen.auth(refresh_interval=None)(_provider(document, callers, user_id))
    return _noted(from_schema(chosen).execute())


def _noted(stream: Iterator[Any]) -> Outcome:
    outcome = Outcome()
    for event in stream:
        if isinstance(event, events.ScenarioFinished):
            outcome.note(event.recorder)
        elif isinstance(event, events.NonFatalError):
            outcome.failures.setdefault(f"{event.label}: error", str(event.value))
        elif isinstance(event, events.FatalError):
            raise event.exception
    return outcome


def _provider(document: Document, callers: Callers, user_id: UUID | None) -> type[Any]:
    class Provider:
        """Opens each operation the way that its spec says; a new login each time, since one of them ends logins."""

        def get(self, _case: Any, context: Any) -> Headers:
            definition = context.operation.definition.raw
            return callers.headers(definition, schemes_of(document, definition), user_id)

        def set(self, case: Any, data: Headers, _context: Any) -> None:
            case.headers.update(data)

    return Provider


@schemathesis.hook
def before_call(_context: Any, case: schemathesis.Case[Any], _kwargs: Mapping[str, Any]) -> None:
    """Make valid data what JSON Schema cannot say: cents in binary, bytes of a password, keys not sent before."""
    if case.meta is not None and case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid4())
    if isinstance(case.body, dict):
        new = {"key", NEW_ID_OF.get(case.operation.definition.raw.get("operationId", ""))}
        case.body = {name: _news(value) if name in new else _fitting(name, value) for name, value in case.body.items()}


def _news(value: Any) -> Any:
    """A text as long as `value`, and at least a UUID, that was never sent: an effect happens once under its key.

    One that was made here comes back by a link, to undo or to end what was done under it, and stays as it is.
    """
    if not isinstance(value, str) or value in _MADE:
        return value
    made = str(uuid4()) + value[36:]
    _MADE.add(made)
    return made


def _fitting(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 2)
    if name == "password" and isinstance(value, str):
        return value.encode()[:LONGEST_PASSWORD].decode(errors="ignore")
    return value
