"""The four endpoints of the SMU Lab Notification API, at the root and under its public base path."""

import hmac
import os
import re
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, Unauthorized, UnsupportedMediaType

from fakes import control, health
from fakes.control import Plane
from fakes.gate import Gate, hold
from fakes.smu import inbox, verify

SERVICE = "fake-smu"
BASE_PATH = "/SMULab_Notification/rest/Notification"
KEY_HEADER = "X-Contacts-Key"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell it, UTF-8 cannot


def empty() -> dict[str, Any]:
    return {"verifications": {}, "inbox": [], "delivered": 0}


def create_app(api_key: str | None = None) -> Flask:
    """The fake as a WSGI app; `api_key` defaults to SMU_API_KEY, and no key means none is checked."""
    key = os.environ.get("SMU_API_KEY", "") if api_key is None else api_key
    plane = Plane(SERVICE, empty, secret=frozenset({"Code", "emailBody"}), phone=frozenset({"Mobile", "mobile"}))
    app = Flask(__name__)
    for routes in (control.blueprint(plane), health.blueprint(SERVICE), inbox.blueprint(plane)):
        app.register_blueprint(routes)
    app.register_error_handler(HTTPException, _error)
    _routes(app, plane, key)
    app.wsgi_app = Gate(app.wsgi_app, plane, _excuse, lambda answer: answer, BASE_PATH)  # type: ignore[method-assign]
    return app


def _excuse(status: int, message: str | None = "Scripted fault") -> dict[str, Any]:
    """The error body of an OutSystems REST service."""
    return {"Errors": [message], "StatusCode": status}


def _error(error: HTTPException) -> Response:
    response = jsonify(_excuse(error.code or 500, error.description))
    response.status_code = error.code or 500
    response.headers.extend(h for h in error.get_headers() if h[0] in ("Allow",))
    return response


def _admit(key: str, *fields: str) -> dict[str, str]:
    """The checked body of a call: the key first, then the content type, then each field a string."""
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
    hold(request.environ)
    return sent


def _routes(app: Flask, plane: Plane, key: str) -> None:
    @app.post("/SendOTP")
    def _send_otp() -> Response:
        mobile = _admit(key, "Mobile")["Mobile"]
        with plane.lock:
            answer, code = verify.send(plane, mobile)
            if code is not None:
                text = f"Your SMU Lab verification code is: {code}"
                sid = answer["VerificationSid"]
                inbox.deliver(plane, "otp", mobile, text=text, code=code, verification_sid=sid)
        return jsonify(answer)

    @app.post("/VerifyOTP")
    def _verify_otp() -> Response:
        sent = _admit(key, "VerificationSid", "Code")
        with plane.lock:
            return jsonify(verify.check(plane, sent["VerificationSid"], sent["Code"]))

    @app.post("/SendSMS")
    def _send_sms() -> Response:
        sent = _admit(key, "mobile", "message")
        if not verify.E164.fullmatch(sent["mobile"]):
            raise BadRequest("mobile must be in E.164 form")
        with plane.lock:
            inbox.deliver(plane, "sms", sent["mobile"], text=sent["message"])
        return jsonify(status="queued")

    @app.post("/SendEmail")
    def _send_email() -> Response:
        sent = _admit(key, "emailAddress", "emailSubject", "emailBody")
        to, subject, html = sent["emailAddress"], sent["emailSubject"], sent["emailBody"]
        if "@" not in to.strip("@"):
            raise BadRequest("emailAddress must be an e-mail address")
        with plane.lock:
            inbox.deliver(plane, "email", to, subject=subject, html=html)
        return jsonify(status="sent")
