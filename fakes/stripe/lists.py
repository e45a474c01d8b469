"""Lists with Stripe's cursors, and search with its query language."""

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

from fakes.stripe import objects, unsupported
from fakes.stripe.errors import missing_error, parameter_error, unknown_parameter_error
from fakes.stripe.params import HASH, INTEGER, LIST, TEXT, Params, integer

Json = dict[str, Any]

CURSORS = {"limit": INTEGER, "starting_after": TEXT, "ending_before": TEXT, "expand": LIST}
LIST_INTENTS = unsupported.LIST_INTENTS | CURSORS | {"created": HASH, "customer": TEXT}
LIST_EVENTS = unsupported.LIST_EVENTS | CURSORS | {"created": HASH, "type": TEXT, "types": LIST}
SEARCH = {"query": TEXT, "limit": INTEGER, "page": TEXT, "expand": LIST}
COMPARE: dict[str, Callable[[int, int], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "eq": operator.eq,
}
BOUNDS = ("gt", "gte", "lt", "lte")


def list_page(rows: Iterable[Json], params: Params, url: str, noun: str) -> Json:
    """Return one page, newest first. `rows` are oldest first."""
    found = [row for row in rows if _is_in_bounds(row, params.get("created", {}))]
    found.reverse()
    limit = _limit(params)
    before, after = params.get("ending_before"), params.get("starting_after")
    if after is not None:
        found = found[_position(found, after, "starting_after", noun) + 1 :]
    if before is not None:
        found = found[: _position(found, before, "ending_before", noun)]
        return objects.page(found[-limit:], url, len(found) > limit)
    return objects.page(found[:limit], url, len(found) > limit)


def _limit(params: Params) -> int:
    limit: int = params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise parameter_error("limit", "Limit must be between 1 and 100", "parameter_invalid_integer")
    return limit


def _position(rows: list[Json], object_id: str, param: str, noun: str) -> int:
    for position, row in enumerate(rows):
        if row["id"] == object_id:
            return position
    raise missing_error(noun, object_id, param, 400)


def _is_in_bounds(row: Json, bounds: Params) -> bool:
    for name, value in bounds.items():
        if name not in BOUNDS:
            raise unknown_parameter_error(f"created[{name}]")
        if not COMPARE[name](row["created"], integer(f"created[{name}]", value)):
            return False
    return True


CLAUSE = re.compile(
    r"""\s*(?P<joint>AND\s+|OR\s+)?(?P<not>-)?(?P<field>metadata\[(?P<q>["'])(?P<key>[^"']*)(?P=q)\]|\w+)"""
    r"""\s*(?P<op>:|~|<=|>=|<|>|=)\s*(?P<v>["']?)(?P<value>[^"']*?)(?P=v)(?=\s|$)""",
    re.IGNORECASE,
)
TEXTUAL, NUMERIC = {"status", "currency", "customer"}, {"amount", "created"}
ORDER = {":": "eq", "=": "eq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def search(rows: Iterable[Json], params: Params) -> Json:
    """Search PaymentIntents by metadata, status, currency, customer, amount and created."""
    clauses = _parse(params["query"])
    combine = any if any((c["joint"] or "").strip().upper() == "OR" for c in clauses) else all
    start, limit = max(0, integer("page", params.get("page", "0"))), _limit(params)
    found = [row for row in rows if combine(_matches(row, clause) for clause in clauses)][::-1]
    more = len(found) > start + limit
    page = objects.page(found[start : start + limit], "/v1/payment_intents/search", more)
    return page | {"object": "search_result", "next_page": str(start + limit) if more else None}


def _parse(query: str) -> list[re.Match[str]]:
    clauses, position = [], 0
    while query[position:].strip():
        clause = CLAUSE.match(query, position)
        if clause is None or not _is_searchable(clause):
            message = f"We were unable to parse your search query near '{query[position:].strip()}'."
            raise parameter_error("query", message)
        clauses.append(clause)
        position = clause.end()
    if not clauses:
        raise parameter_error("query", "Search queries must not be empty.")
    return clauses


def _is_searchable(clause: re.Match[str]) -> bool:
    if clause["key"] is not None:
        return clause["op"] in (":", "~")
    if clause["field"] in NUMERIC:
        return clause["op"] != "~" and re.fullmatch(r"\d{1,18}", clause["value"], re.ASCII) is not None
    return clause["field"] in TEXTUAL and clause["op"] == ":"


def _matches(row: Json, clause: re.Match[str]) -> bool:
    value: Any = row["metadata"].get(clause["key"]) if clause["key"] is not None else row[clause["field"]]
    return _matches_value(value, clause["op"], clause["value"].lower()) != bool(clause["not"])


def _matches_value(value: Any, op: str, wanted: str) -> bool:
    if isinstance(value, int):
        return COMPARE[ORDER[op]](value, int(wanted))
    if not isinstance(value, str):
        return False
    return wanted in value.lower() if op == "~" else wanted == value.lower()
