"""The limits of the fake Stripe: names that Stripe or only the fake lacks, and the bounds of its memory."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
import stripe
import stripe.params
from flask.testing import FlaskClient

from fakes.stripe import app as fake_stripe
from fakes.stripe import events, intents, lists, unsupported
from tests.support.fake_servers import running
from tests.support.fakes_control import Fake
from tests.unit.fakes.stripe_client import TOP_UP, client, post, raw
from tests.unit.fakes.test_stripe import find_misfits

pytestmark = pytest.mark.unit

OPTIONS = {  # fields of the SDK's classes that do not belong to the API
    "api_key", "content_type", "headers", "idempotency_key", "max_network_retries", "stripe_account", "stripe_context",
    "stripe_version",
}  # fmt: skip
CALLS: dict[str, tuple[dict[str, str], Any]] = {
    "create": (intents.CREATE, stripe.params.PaymentIntentCreateParams),
    "confirm": (intents.CONFIRM | {"client_secret": ""}, stripe.params.PaymentIntentConfirmParams),
    "update": (intents.UPDATE, stripe.params.PaymentIntentUpdateParams),
    "cancel": (intents.CANCEL, stripe.params.PaymentIntentCancelParams),
    "list": (lists.LIST_INTENTS, stripe.params.PaymentIntentListParams),
    "search": (lists.SEARCH, stripe.params.PaymentIntentSearchParams),
    "events": (lists.LIST_EVENTS, stripe.params.EventListParams),
}
NOT_IN_THE_SDK = {"client_secret", "payment_method_types"}  # of Stripe.js, and of earlier API versions


# Names that Stripe lacks, and names that only the fake lacks


@pytest.mark.parametrize("name", CALLS)
def test_call_has_every_parameter_of_the_sdk(name: str) -> None:
    allowed, sdk = CALLS[name]
    assert set(allowed) - NOT_IN_THE_SDK == set(sdk.__annotations__) - OPTIONS - NOT_IN_THE_SDK


@pytest.mark.parametrize(
    ("params", "param", "supported"),
    [
        ({"capture_method": "manual"}, "capture_method", "amount"),
        ({"customer": "cus_1"}, "customer", "payment_method"),
        ({"payment_method_options": {"card": {"moto": True}}}, "payment_method_options", "metadata"),
        ({"currency": "jpy"}, "currency", "sgd"),
        ({"payment_method": "pm_card_discover"}, "payment_method", "pm_card_visa"),
        ({"automatic_payment_methods": "", "payment_method_types": ["paynow"]}, "payment_method_types", "card"),
    ],
)
def test_unsupported_value_is_no_typing_error(intents: Any, params: dict[str, Any], param: str, supported: str) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="is not supported by this fake") as refused:
        intents.create(TOP_UP | params)
    assert (refused.value.http_status, refused.value.param, refused.value.code) == (400, param, None)
    assert supported in str(refused.value).partition("It supports: ")[2]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"colour": "red"}, "colour"),
        ({"captur_method": "manual"}, "captur_method"),
        ({"automatic_payment_methods": {"enable": True}}, "automatic_payment_methods[enable]"),
    ],
)
def test_misspelt_parameter_is_unknown(intents: Any, params: dict[str, Any], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Received unknown parameter") as refused:
        intents.create(TOP_UP | params)
    assert (refused.value.param, refused.value.code) == (param, "parameter_unknown")


def test_parameter_of_another_call_is_unknown(intents: Any) -> None:
    made = intents.create(TOP_UP)
    with pytest.raises(stripe.InvalidRequestError, match="Received unknown parameter: amount"):
        intents.cancel(made.id, {"amount": 100})


@pytest.mark.parametrize("path", ["customers", "setup_intents", "refunds", "payment_intents/pi_1/capture"])
def test_unsupported_call_is_no_unknown_url(stripe_server: Fake, path: str) -> None:
    answer = post(stripe_server, f"/v1/{path}")
    assert (answer.status_code, "not supported by this fake" in answer.text) == (404, True)


@pytest.mark.parametrize("path", ["unicorns", "payment_intents/pi_1/paint", "customer"])
def test_call_that_stripe_lacks_is_an_unknown_url(stripe_server: Fake, path: str) -> None:
    assert "Unrecognized request URL" in post(stripe_server, f"/v1/{path}").text


def test_known_resources_are_those_of_the_sdk() -> None:
    found = {name for name in type(client(Fake("http://fake")).v1).__annotations__ if not name.startswith("_")}
    assert "payment_intents" in found
    assert found <= unsupported.RESOURCES | {"events"} | ALIASES


ALIASES = {"invoice_items", "three_d_secure", "apple_pay_domains"}  # of /v1/invoiceitems, 3d_secure, apple_pay/domains


# Keys


@pytest.mark.parametrize("key", ["sk_test_x", "rk_test_x"])
def test_every_secret_test_key_is_accepted(key: str) -> None:
    with running("fakes.stripe", STRIPE_SECRET_KEY="", STRIPE_WEBHOOK_URL="") as server:
        assert client(server, key).v1.payment_intents.create(typing.cast(Any, TOP_UP)).id
        for wrong in ("sk_live_x", "rk_live_x", "xk_test_x", "test"):
            with pytest.raises(stripe.AuthenticationError):
                client(server, wrong).v1.payment_intents.create(typing.cast(Any, TOP_UP))


# Expansion


def test_every_expandable_field_is_accepted(intents: Any) -> None:
    fields = ["application", "customer", "latest_charge", "on_behalf_of", "payment_method", "review", "source"]
    paid = intents.create(TOP_UP | {"confirm": True, "payment_method": "pm_card_visa", "expand": fields})
    assert (paid.customer, paid.latest_charge.object, paid.payment_method.card.last4) == (None, "charge", "4242")
    again = intents.retrieve(paid.id, {"expand": ["latest_charge.payment_intent", "latest_charge.balance_transaction"]})
    assert again.latest_charge.payment_intent.id == paid.id
    listed = intents.list({"expand": ["data.latest_charge", "data.customer"]})
    assert listed.data[0].latest_charge.paid


@pytest.mark.parametrize("path", ["amount", "latest_charge.amount", "colour", "customer.x", "latest_charge." * 4 + "x"])
def test_other_field_cannot_be_expanded(intents: Any, path: str) -> None:
    made = intents.create(TOP_UP)
    with pytest.raises(stripe.InvalidRequestError, match="cannot") as refused:
        intents.retrieve(made.id, {"expand": [path]})
    assert refused.value.param == "expand"


def test_rows_of_a_list_are_expanded_below_data(intents: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=r"try expanding 'data\.latest_charge'"):
        intents.list({"expand": ["latest_charge"]})


def test_charge_expands_its_intent(intents: Any, stripe_server: Fake) -> None:
    paid = intents.create(TOP_UP | {"confirm": True, "payment_method": "pm_card_visa"})
    charge = client(stripe_server).v1.charges.retrieve(paid.latest_charge, {"expand": ["payment_intent", "customer"]})
    assert typing.cast(Any, charge.payment_intent).id == paid.id


# Fields


OTHER_TYPES = {name for name in stripe.PaymentMethod.__annotations__ if name in stripe.PaymentMethod._inner_class_types}


def find_missing(value: dict[str, Any], cls: type, where: str) -> list[str]:
    """Find fields of the SDK's class that an object lacks, also in the objects of its card."""
    optional = OTHER_TYPES - {"card"} if cls is stripe.PaymentMethod else set()
    wanted = {name for name in cls.__annotations__ if name.islower() and not name.startswith("_")} - optional
    found = [f"{where}.{name}" for name in sorted(wanted - set(value) - {"id", "object"})]
    for name in ("outcome", "card", "three_d_secure", "evidence", "evidence_details"):
        if isinstance(value.get(name), dict):
            found += find_missing(value[name], cls._inner_class_types[name], f"{where}.{name}")  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_card_authenticationRequired", "pm_card_chargeDeclined"])
def test_objects_have_every_field_of_the_sdk(intents: Any, stripe_server: Fake, card: str) -> None:
    made = intents.create(TOP_UP)
    post(stripe_server, f"/v1/payment_intents/{made.id}/confirm", payment_method=card)
    if card == "pm_card_authenticationRequired":
        stripe_server.control(f"payment_intents/{made.id}/authenticate")
    intent = raw(stripe_server, f"/v1/payment_intents/{made.id}").json()
    charge = raw(stripe_server, f"/v1/charges/{intent['latest_charge']}").json()
    method = raw(stripe_server, f"/v1/payment_methods/{charge['payment_method']}").json()
    event = raw(stripe_server, "/v1/events").json()["data"][0]
    found = find_missing(intent, stripe.PaymentIntent, "payment_intent") + find_missing(charge, stripe.Charge, "charge")
    details = stripe.Charge.PaymentMethodDetails.Card
    found += find_missing(charge["payment_method_details"]["card"], details, "charge.card")
    found += find_missing(method, stripe.PaymentMethod, "payment_method") + find_missing(event, stripe.Event, "event")
    assert found == []


def test_refund_and_dispute_have_the_fields_of_the_sdk(intents: Any, stripe_server: Fake) -> None:
    paid = intents.create(TOP_UP | {"confirm": True, "payment_method": "pm_card_visa"})
    dispute = stripe_server.control(f"payment_intents/{paid.id}/dispute", amount=100)
    refund = stripe_server.control(f"payment_intents/{paid.id}/refund", amount=100)
    found = find_missing(refund, stripe.Refund, "refund") + find_missing(dispute, stripe.Dispute, "dispute")
    found += find_misfits(refund, stripe.Refund, "refund")
    found += find_misfits(dispute, stripe.Dispute, "dispute")
    assert found == []


# Memory


LIMIT = 20


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A fake that stores the latest 20 objects of each kind."""
    monkeypatch.setattr(events, "MAX_STORED", LIMIT)
    monkeypatch.setattr("fakes.journal.MAX_CALLS", LIMIT)
    monkeypatch.setenv("STRIPE_WEBHOOK_URL", "http://localhost:1")
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)
    fake = fake_stripe.create_app().test_client()
    fake.post("/_control/webhooks", json={"hold": True})
    return fake


def pay(fake: FlaskClient, number: int) -> str:
    """Pay, refund a part and open a dispute, each payment with its own idempotency key."""
    form = {"amount": "5000", "currency": "sgd", "confirm": "true", "payment_method": "pm_card_visa"}
    headers = {"Authorization": "Bearer sk_test_x", "Idempotency-Key": f"{number:08d}"}
    paid = fake.post("/v1/payment_intents", data=form, headers=headers)
    intent_id = str(paid.get_json()["id"])
    assert fake.post(f"/_control/payment_intents/{intent_id}/refund", json={"amount": 5}).status_code == 201
    assert fake.post(f"/_control/payment_intents/{intent_id}/dispute").status_code == 201
    return intent_id


def measure(fake: FlaskClient) -> int:
    """The size of the whole state. Only the numbers of the journal and the times may change their length."""
    snapshot = fake.get("/_control/snapshot").get_json()
    for name in ("intents", "charges", "methods", "refunds", "disputes", "events", "keys", "queue", "deliveries"):
        assert len(snapshot["store"][name]) <= LIMIT, name
    assert len(snapshot["journal"]["calls"]) <= LIMIT
    return len(json.dumps(snapshot))


def test_memory_does_not_grow_beyond_its_bound(small: FlaskClient) -> None:
    for number in range(2 * LIMIT):
        pay(small, number)
    full = measure(small)
    for number in range(2 * LIMIT, 6 * LIMIT):
        pay(small, number)
    assert measure(small) < 1.02 * full


def test_oldest_objects_are_deleted_first(small: FlaskClient) -> None:
    paid = [pay(small, number) for number in range(LIMIT + 1)]
    headers = {"Authorization": "Bearer sk_test_x"}
    found = [small.get(f"/v1/payment_intents/{intent_id}", headers=headers).status_code for intent_id in paid]
    assert found == [404] + [200] * LIMIT


def test_intent_outlives_its_payment_method(small: FlaskClient) -> None:
    """The refusal of a payment method that was deleted is Stripe's own, and no 500."""
    headers = {"Authorization": "Bearer sk_test_x"}
    form = {"amount": "5000", "currency": "sgd", "payment_method": "pm_card_visa"}
    made = small.post("/v1/payment_intents", data=form, headers=headers).get_json()
    for _ in range(LIMIT):
        small.post(f"/v1/payment_intents/{made['id']}", data={"payment_method": "pm_card_visa"}, headers=headers)
    other = small.post("/v1/payment_intents", data=form, headers=headers).get_json()
    for _ in range(LIMIT):
        small.post(f"/v1/payment_intents/{made['id']}", data={"payment_method": "pm_card_visa"}, headers=headers)
    answer = small.post(f"/v1/payment_intents/{other['id']}/confirm", headers=headers)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "resource_missing")
