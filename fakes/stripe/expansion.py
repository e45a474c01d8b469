"""Expansion of ids into objects, by the parameter `expand` with paths such as `latest_charge.payment_intent`."""

from collections.abc import Iterable
from typing import Any

from fakes.saved_state import Store
from fakes.stripe.errors import parameter_error

Json = dict[str, Any]

MAX_DEPTH = 4


def _nulls(names: str) -> dict[str, str | None]:
    return dict.fromkeys(names.split())


# The expandable fields of each object. A field without a collection is null in this fake, and null stays null.
_OF_A_REFUND = _nulls("balance_transaction failure_balance_transaction source_transfer_reversal transfer_reversal") | {
    "charge": "charges",
    "payment_intent": "intents",
}
EXPANDABLE: dict[str, dict[str, str | None]] = {
    "payment_intent": _nulls("application customer on_behalf_of review source")
    | {"latest_charge": "charges", "payment_method": "methods"},
    "charge": _nulls(
        "application application_fee balance_transaction customer failure_balance_transaction on_behalf_of refunds"
        " review source_transfer transfer"
    )
    | {"payment_intent": "intents"},
    "payment_method": {"customer": None},
    "refund": _OF_A_REFUND,
    "dispute": {"charge": "charges", "payment_intent": "intents"},
    "event": {},
}


def expand(store: Store, row: Json, paths: Iterable[str]) -> Json:
    """Copy an object and replace the ids that `paths` name by their objects. Raises Stripe's error for other fields."""
    copied = dict(row)
    for path in paths:
        check_path(row["object"], path)
        _expand_path(store, copied, path.split("."))
    return copied


def expand_rows(store: Store, page: Json, paths: Iterable[str], kind: str) -> Json:
    """Expand the rows of a list. The paths begin with `data.`, also for an empty list."""
    inner = []
    for path in paths:
        if not path.startswith("data."):
            raise _refuse(path, f" You may want to try expanding 'data.{path}'.")
        inner.append(path.removeprefix("data."))
        check_path(kind, inner[-1])
    return page | {"data": [expand(store, row, inner) for row in page["data"]]}


def check_path(kind: str, path: str) -> None:
    """Raise Stripe's error unless each part of the path is expandable."""
    parts = path.split(".")
    if len(parts) > MAX_DEPTH:
        raise parameter_error("expand", f"You cannot expand more than {MAX_DEPTH} levels of a property ({path}).")
    for name in parts:
        if name not in EXPANDABLE.get(kind, {}):
            raise _refuse(path)
        kind = KINDS.get(EXPANDABLE[kind][name] or "", "")


KINDS = {"charges": "charge", "methods": "payment_method", "intents": "payment_intent"}


def _expand_path(store: Store, row: Json, parts: list[str]) -> None:
    name, *rest = parts
    collection = EXPANDABLE[row["object"]][name]
    if collection is not None and isinstance(row[name], str):
        stored = store[collection].get(row[name])
        if stored is None:
            return  # deleted as one of the oldest: the id stays
        row[name] = dict(stored["object"] if collection == "methods" else stored)
    if rest and isinstance(row[name], dict) and row[name].get("object") in EXPANDABLE:
        _expand_path(store, row[name], rest)


def _refuse(path: str, hint: str = "") -> Exception:
    return parameter_error("expand", f"This property cannot be expanded ({path}).{hint}")
