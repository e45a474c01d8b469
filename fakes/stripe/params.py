"""Form-encoded parameters with nested brackets: the parser, and the check of each call."""

import re
from collections.abc import Iterable
from typing import Any

from fakes.stripe.errors import StripeError, parameter_error, unknown_parameter_error, unsupported_error
from fakes.stripe.unsupported import UNSUPPORTED

TEXT, INTEGER, FLAG, HASH, LIST = "string", "integer", "boolean", "object", "array"

Params = dict[str, Any]
NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
DIGITS = re.compile(r"-?\d{1,18}", re.ASCII)
FLAGS = {"true": True, "false": False}


def nest(pairs: Iterable[tuple[str, str]]) -> Params:
    """Nest `a[b]=1`, `c[]=2` and `c[0]=2`. Lists are mappings by position until `check`."""
    root: Params = {}
    for name, value in pairs:
        parts = NAME.fullmatch(name)
        if parts is None:
            raise parameter_error(name, f"Invalid parameter name: {name}")
        _put(root, [parts[1], *re.findall(r"\[([^\[\]]*)\]", parts[2])], value, name)
    return root


def _put(node: Params, keys: list[str], value: str, name: str) -> None:
    for key in keys[:-1]:
        node = node.setdefault(key or str(len(node)), {})
        if not isinstance(node, dict):
            raise parameter_error(name, f"Invalid hash: {name}")
    last = keys[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise parameter_error(name, f"Invalid hash: {name}")
    node[last] = value


def check(sent: Params, allowed: dict[str, str], required: Iterable[str] = ()) -> Params:
    """Convert each value to its kind in `allowed`. Raises Stripe's errors."""
    for name in required:
        if not sent.get(name):
            raise parameter_error(name, f"Missing required param: {name}.", "parameter_missing")
    return {name: _convert(name, value, allowed) for name, value in sent.items()}


def _convert(name: str, value: Any, allowed: dict[str, str]) -> Any:
    kind = allowed.get(name)
    if kind is None:
        raise unknown_parameter_error(name)
    if kind == UNSUPPORTED:
        supported = (other for other, kind in allowed.items() if kind != UNSUPPORTED)
        raise unsupported_error(name, f"The parameter {name}", supported)
    if kind in (HASH, LIST):
        return _convert_collection(name, value, kind)
    if not isinstance(value, str):
        raise parameter_error(name, f"Invalid {kind}")
    if kind == INTEGER:
        return integer(name, value)
    if kind == FLAG and value not in FLAGS:
        raise parameter_error(name, f"Invalid boolean: {value}")
    return FLAGS[value] if kind == FLAG else value


def _convert_collection(name: str, value: Any, kind: str) -> Any:
    if value == "":
        return {} if kind == HASH else []
    is_flat = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if not is_flat:  # a top-up sends no deeper nesting
        raise parameter_error(name, f"Invalid {kind}")
    return value if kind == HASH else list(value.values())


def integer(name: str, value: Any) -> int:
    if not isinstance(value, str) or not DIGITS.fullmatch(value):
        raise parameter_error(name, f"Invalid integer: {value}", "parameter_invalid_integer")
    return int(value)


def metadata(old: dict[str, str], sent: Params) -> dict[str, str]:
    """Merge `sent` into `old` within Stripe's limits. An empty value removes its key."""
    for key, value in sent.items():
        if len(key) > 40 or len(value) > 500:
            raise parameter_error(f"metadata[{key}]", "Metadata keys have up to 40 characters, values 500")
    merged = {key: value for key, value in (old | sent).items() if value != ""}
    if len(merged) > 50:
        raise parameter_error("metadata", "Metadata has up to 50 keys")
    return merged


def form(content_type: str | None, body: bytes, pairs: Iterable[tuple[str, str]]) -> Params:
    """Parse the nested parameters of a POST."""
    if body and content_type != "application/x-www-form-urlencoded":
        raise StripeError(
            400, "Invalid request (check that your POST content type is application/x-www-form-urlencoded)."
        )
    return nest(pairs)
