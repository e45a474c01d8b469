"""Lists with Stripe's cursors."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

from fakes.stripe import objects
from fakes.stripe.errors import missing_error, parameter_error
from fakes.stripe.params import HASH, INTEGER, LIST, TEXT, Params, integer

Json = dict[str, Any]

CURSORS = {"limit": INTEGER, "starting_after": TEXT, "ending_before": TEXT}
LIST_INTENTS = CURSORS | {"created": HASH}
LIST_EVENTS = CURSORS | {"created": HASH, "type": TEXT, "types": LIST}
BOUNDS: dict[str, Callable[[int, int], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


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
        param = f"created[{name}]"
        if name not in BOUNDS:
            raise parameter_error(param, f"Received unknown parameter: {param}", "parameter_unknown")
        if not BOUNDS[name](row["created"], integer(param, value)):
            return False
    return True
