"""The fake Stripe with the official SDK: PaymentIntents, lists, refusals and shapes."""

import typing
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import stripe

from tests.support.fakes_control import Fake
from tests.unit.fakes.stripe_client import KEY, TOP_UP, client, event_types, post, raw

pytestmark = pytest.mark.unit


# The life of a PaymentIntent


def test_created_intent_requires_a_payment_method(intents: Any, stripe_server: Fake) -> None:
    made = intents.create(TOP_UP)
    assert (made.status, made.amount, made.amount_received, made.currency) == (
        "requires_payment_method",
        5000,
        0,
        "sgd",
    )
    assert made.client_secret.startswith(f"{made.id}_secret_")
    assert made.metadata["user_id"] == "u-1"
    assert intents.retrieve(made.id).to_dict() == made.to_dict()
    assert event_types(stripe_server) == ["payment_intent.created"]


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_mastercard", "pm_card_amex"])
def test_valid_card_pays(intents: Any, stripe_server: Fake, card: str) -> None:
    made = intents.create(TOP_UP)
    paid = intents.confirm(made.id, {"payment_method": card, "expand": ["latest_charge"]})
    assert (paid.status, paid.amount_received, paid.latest_charge.paid) == ("succeeded", 5000, True)
    assert event_types(stripe_server) == ["payment_intent.created", "payment_intent.succeeded"]


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "incorrect_cvc"),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", "processing_error"),
    ],
)
def test_declined_card_charges_nothing(
    intents: Any, stripe_server: Fake, card: str, code: str, decline_code: str
) -> None:
    made = intents.create(TOP_UP)
    with pytest.raises(stripe.CardError) as declined:
        intents.confirm(made.id, {"payment_method": card})
    assert declined.value.http_status == 402
    error: Any = declined.value.error
    assert (error.code, error.decline_code) == (code, decline_code)
    left = intents.retrieve(made.id)
    assert (left.status, left.amount_received) == ("requires_payment_method", 0)
    assert left.last_payment_error.code == code
    assert event_types(stripe_server)[-1] == "payment_intent.payment_failed"


def test_another_card_can_pay_after_a_decline(intents: Any) -> None:
    made = intents.create(TOP_UP)
    with pytest.raises(stripe.CardError):
        intents.confirm(made.id, {"payment_method": "pm_card_chargeDeclined"})
    paid = intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    assert (paid.status, paid.last_payment_error) == ("succeeded", None)


@pytest.mark.parametrize(
    ("passed", "status", "event"),
    [(True, "succeeded", "succeeded"), (False, "requires_payment_method", "payment_failed")],
)
def test_3d_secure_waits_for_the_customer(
    intents: Any, stripe_server: Fake, passed: bool, status: str, event: str
) -> None:
    challenged = intents.create(TOP_UP | {"confirm": True, "payment_method": "pm_card_authenticationRequired"})
    assert (challenged.status, challenged.next_action.type) == ("requires_action", "use_stripe_sdk")
    stripe_server.control(f"payment_intents/{challenged.id}/authenticate", passed=passed)
    assert intents.retrieve(challenged.id).status == status
    assert event_types(stripe_server)[-1] == f"payment_intent.{event}"


def test_3d_secure_fails_off_session(intents: Any) -> None:
    card = {"confirm": True, "off_session": True, "payment_method": "pm_card_authenticationRequired"}
    with pytest.raises(stripe.CardError, match="requires authentication"):
        intents.create(TOP_UP | card)


def test_canceled_intent_cannot_be_paid(intents: Any, stripe_server: Fake) -> None:
    made = intents.create(TOP_UP)
    assert intents.cancel(made.id, {"cancellation_reason": "abandoned"}).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        intents.confirm(made.id, {"payment_method": "pm_card_visa"})
    assert refused.value.code == "payment_intent_unexpected_state"
    assert event_types(stripe_server) == ["payment_intent.created", "payment_intent.canceled"]


@pytest.mark.parametrize("verb", ["confirm", "cancel"])
def test_paid_intent_is_final(intents: Any, verb: str) -> None:
    paid = intents.create(TOP_UP | {"confirm": True, "payment_method": "pm_card_visa"})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        getattr(intents, verb)(paid.id)
    assert refused.value.code == "payment_intent_unexpected_state"
    assert refused.value.http_status == 400


def test_update_merges_metadata(intents: Any) -> None:
    made = intents.create(TOP_UP)
    changed = intents.update(made.id, {"metadata": {"user_id": "", "order": "7"}, "amount": 6000})
    assert (changed.metadata.to_dict(), changed.amount) == ({"order": "7"}, 6000)


# Lists and search


def test_lists_are_newest_first_and_paged(intents: Any) -> None:
    made = [intents.create(TOP_UP).id for _ in range(5)]
    page = intents.list({"limit": 2})
    assert ([row.id for row in page.data], page.has_more) == ([made[4], made[3]], True)
    assert [row.id for row in intents.list({"limit": 2}).auto_paging_iter()] == made[::-1]
    before = intents.list({"limit": 2, "ending_before": made[1]})
    assert [row.id for row in before.data] == [made[3], made[2]]


def test_list_is_filtered_by_created(intents: Any, stripe_server: Fake) -> None:
    stripe_server.control("clock", freeze=1_800_000_000)
    old = intents.create(TOP_UP)
    stripe_server.control("clock", advance=100)
    new = intents.create(TOP_UP)
    assert (old.created, new.created) == (1_800_000_000, 1_800_000_100)
    assert [row.id for row in intents.list({"created": {"gt": 1_800_000_000}}).data] == [new.id]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metadata['user_id']:'u-1'", True),
        ('metadata["user_id"]:"u-1" AND status:"requires_payment_method"', True),
        ("metadata['user_id']:'u-1' amount>4999", True),
        ("metadata['user_id']:'u-2' OR currency:'sgd'", True),
        ("metadata['user_id']:'u-2'", False),
        ("-metadata['user_id']:'u-1'", False),
        ("amount<5000", False),
    ],
)
def test_search_finds_by_metadata(intents: Any, query: str, found: bool) -> None:
    made = intents.create(TOP_UP)
    assert [row.id for row in intents.search({"query": query}).data] == [made.id] * found


@pytest.mark.parametrize("query", ["metadata['a']", "colour:'red'", "amount>many", "status>'a'", " "])
def test_invalid_query_is_refused(intents: Any, query: str) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        intents.search({"query": query})


# Refusals


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"amount": 49}, "amount", "amount_too_small"),
        ({"amount": 0}, "amount", "parameter_invalid_integer"),
        ({"amount": "12.5"}, "amount", "parameter_invalid_integer"),
        ({"amount": 100_000_000}, "amount", "amount_too_large"),
        ({"amount": ""}, "amount", "parameter_missing"),
        ({"currency": "xyz"}, "currency", None),
        ({"colour": "red"}, "colour", "parameter_unknown"),
        ({"metadata": "none"}, "metadata", None),
        ({"metadata": {"a": {"b": "c"}}}, "metadata", None),
        ({"confirm": "perhaps"}, "confirm", None),
        ({"payment_method": "pm_nobodys"}, "payment_method", "resource_missing"),
        ({"expand": ["customer.mother"]}, "expand", None),
    ],
)
def test_invalid_parameter_is_named_and_creates_nothing(
    intents: Any, stripe_server: Fake, change: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        intents.create(TOP_UP | change)
    assert (refused.value.http_status, refused.value.param, refused.value.code) == (400, param, code)
    assert refused.value.request_id is not None
    assert event_types(stripe_server) == []


def test_missing_intent_is_404(intents: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent: 'pi_nobodys'") as refused:
        intents.retrieve("pi_nobodys")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


@pytest.mark.parametrize("key", ["sk_test_a_wrong_one", "sk_live_a_real_one", "nonsense"])
def test_wrong_key_is_refused(intents: Any, stripe_server: Fake, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError):
        client(stripe_server, key).v1.payment_intents.create(typing.cast(Any, TOP_UP))


def test_publishable_key_needs_the_client_secret(intents: Any, stripe_server: Fake) -> None:
    made, browser = intents.create(TOP_UP), client(stripe_server, "pk_test_browser").v1.payment_intents
    with pytest.raises(stripe.PermissionError):
        browser.create(typing.cast(Any, TOP_UP))
    with pytest.raises(stripe.PermissionError):
        browser.retrieve(made.id)
    with pytest.raises(stripe.InvalidRequestError):
        browser.retrieve(made.id, {"client_secret": "another"})
    secret = {"client_secret": made.client_secret, "payment_method": "pm_card_visa"}
    assert browser.confirm(made.id, typing.cast(Any, secret)).status == "succeeded"


def test_unknown_route_has_stripes_envelope(intents: Any, stripe_server: Fake) -> None:
    for answer in (raw(stripe_server, "/v1/unicorns"), post(stripe_server, "/v1/events")):
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert answer.headers["Request-Id"].startswith("req_")


def test_json_body_is_refused(intents: Any, stripe_server: Fake) -> None:
    answer = requests.post(f"{stripe_server.url}/v1/payment_intents", json=TOP_UP, auth=(KEY, ""), timeout=5)
    assert (answer.status_code, "form-urlencoded" in answer.text) == (400, True)


# Shapes


def find_misfits(value: Any, cls: type, where: str) -> Iterator[str]:
    """Find fields that the SDK's class does not have, and required fields that are null or missing."""
    for name, hint in cls.__annotations__.items():
        optional = type(None) in typing.get_args(hint)
        if name.islower() and not name.startswith("_") and not optional and value.get(name) is None:
            yield f"{where}.{name} is required"
    for name, inner in value.items():
        if name not in cls.__annotations__ and name not in ("object", "id"):
            yield f"{where}.{name} is unknown"
        nested = getattr(cls, "_inner_class_types", {}).get(name)
        if nested and isinstance(inner, dict):
            yield from find_misfits(inner, nested, f"{where}.{name}")


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_chargeDeclined", "pm_card_authenticationRequired"])
def test_objects_have_the_shapes_of_the_sdk(intents: Any, stripe_server: Fake, card: str) -> None:
    made = intents.create(TOP_UP)
    post(stripe_server, f"/v1/payment_intents/{made.id}/confirm", payment_method=card)
    intent = raw(stripe_server, f"/v1/payment_intents/{made.id}").json()
    found = list(find_misfits(intent, stripe.PaymentIntent, "payment_intent"))
    if intent["latest_charge"]:
        charge = raw(stripe_server, f"/v1/charges/{intent['latest_charge']}").json()
        found += find_misfits(charge, stripe.Charge, "charge")
        method = raw(stripe_server, f"/v1/payment_methods/{charge['payment_method']}").json()
        found += find_misfits(method, stripe.PaymentMethod, "payment_method")
    for event in raw(stripe_server, "/v1/events").json()["data"]:
        found += find_misfits(event, stripe.Event, "event")
    assert found == []


@pytest.mark.negative_control
def test_shape_check_finds_wrong_fields() -> None:
    wrong = {"id": "pi_1", "object": "payment_intent", "amount": None, "colour": "red"}
    found = list(find_misfits(wrong, stripe.PaymentIntent, "pi"))
    assert "pi.amount is required" in found
    assert "pi.colour is unknown" in found
