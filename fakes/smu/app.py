"""The four routes of the SMU Lab Notification API, at the root and under its public base path."""

import hmac
import os
import re
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, Unauthorized, UnsupportedMediaType

from fakes import control, health
from fakes.control import FakeState
from fakes.fault_middleware import FaultMiddleware, wait_for_hang
from fakes.smu import inbox, verify

SERVICE = "fake-smu"
BASE_PATH = "/SMULab_Notification/rest/Notification"
KEY_HEADER = "X-Contacts-Key"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # possible in JSON, impossible in UTF-8


def empty() -> dict[str, Any]:
    return {"verifications": {}, "inbox": {}, "delivered": 0}


def create_app(api_key: str | None = None) -> Flask:
    """Build the fake as a WSGI app. `api_key` defaults to SMU_API_KEY. Without a key, none is checked."""
    key = os.environ.get("SMU_API_KEY", "") if api_key is None else api_key
    state = FakeState(SERVICE, empty, secret=frozenset({"Code", "emailBody"}), phone=frozenset({"Mobile", "mobile"}))
    app = Flask(__name__)
    for routes in (control.blueprint(state), health.blueprint(SERVICE), inbox.blueprint(state)):
        app.register_blueprint(routes)
    app.register_error_handler(HTTPException, _error)
    _routes(app, state, key)
    app.wsgi_app = FaultMiddleware(app.wsgi_app, state, _default_body, lambda answer: answer, BASE_PATH)  # type: ignore[method-assign]
    return app


def _default_body(status: int, message: str | None = "Scripted fault") -> dict[str, Any]:
    """Return the error body of an OutSystems REST service."""
    return {"Errors": [message], "StatusCode": status}


def _error(error: HTTPException) -> Response:
    response = jsonify(_default_body(error.code or 500, error.description))
    response.status_code = error.code or 500
    response.headers.extend(h for h in error.get_headers() if h[0] in ("Allow",))
    return response


def _read_request(key: str, *fields: str) -> dict[str, str]:
    """Return the body of a call. Checks the key first, then the content type, then that each field is a string."""
    if key and not hmac.compare_digest(request.headers.get(KEY_HEADER, "").encode(), key.encode()):
        raise Unauthorized(f"Invalid or missing {KEY_HEADER}")
    if not request.is_json:
        raise UnsupportedMediaType("Content-Type must be application/json")
    sent = request.get_json(silent=True)
    if not isinstance(sent, dict):
        raise BadRequest("The body must be a JSON object")
    for name in fields:
        if not isinstance(sent.get(name), str) or LONE_SURROGATE.search(sent[name]):
            raise BadRequest(f"{name} is mandatory and must be Text")
    wait_for_hang(request.environ)
    return sent


def _routes(app: Flask, state: FakeState, key: str) -> None:
    @app.post("/SendOTP")
    def _send_otp() -> Response:
        mobile = _read_request(key, "Mobile")["Mobile"]
        with state.lock:
            answer, code = verify.send(state, mobile)
            if code is not None:
                text = f"Your SMU Lab verification code is: {code}"
                sid = answer["VerificationSid"]
                inbox.deliver(state, "otp", mobile, text=text, code=code, verification_sid=sid)
        return jsonify(answer)

    @app.post("/VerifyOTP")
    def _verify_otp() -> Response:
        sent = _read_request(key, "VerificationSid", "Code")
        with state.lock:
            return jsonify(verify.check(state, sent["VerificationSid"], sent["Code"]))

    @app.post("/SendSMS")
    def _send_sms() -> Response:
        sent = _read_request(key, "mobile", "message")
        if not verify.E164.fullmatch(sent["mobile"]):
            raise BadRequest("mobile must have the E.164 format, such as +6591234567")
        with state.lock:
            inbox.deliver(state, "sms", sent["mobile"], text=sent["message"])
        return jsonify(status="queued")

    @app.post("/SendEmail")
    def _send_email() -> Response:
        sent = _read_request(key, "emailAddress", "emailSubject", "emailBody")
        to, subject, html = sent["emailAddress"], sent["emailSubject"], sent["emailBody"]
        if "@" not in to.strip("@"):
            raise BadRequest("emailAddress must be an e-mail address")
        with state.lock:
            inbox.deliver(state, "email", to, subject=subject, html=html)
        return jsonify(status="sent")
