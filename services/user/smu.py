"""The SMU Lab Notification API (§9): codes by SMS, texts, e-mails."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, NewConnectionError

from services.chassis import correlation
from services.chassis.clients import CALL_SECONDS, log_call
from services.chassis.errors import Unknown
from services.contracts.enums import OtpStatus

logger = logging.getLogger(__name__)

TIMEOUT = (0.4, CALL_SECONDS - 0.6)  # seconds to connect, to read: our own caller waits CALL_SECONDS and no longer
CONNECTIONS = 32
VERBS = ("SendOTP", "VerifyOTP", "SendSMS", "SendEmail")
GONE = re.compile(r"20404|60202|not found|max check attempts", re.IGNORECASE)  # Twilio's numbers and words, behind SMU


class NotSent(Unknown):
    """SMU has not done it, and says so or was never reached."""


class Smu:
    """SMU's four calls. Thread-safe; nothing is asked twice, since every ask may send an SMS."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS, max_retries=0))
        self._session.headers.update({"X-Contacts-Key": api_key, "Accept": "application/json"})
        # What requests would do at each call, for most of its cost, is done once: the environment's proxies are looked
        # up, and a call is made ready but for its body.
        around = self._session.merge_environment_settings(base_url, {}, None, None, None)
        self._session.proxies.update(around["proxies"])
        self._session.verify = around["verify"]
        self._session.trust_env = False
        self._ready = {
            verb: self._session.prepare_request(requests.Request("POST", f"{base_url}/{verb}", json={}))
            for verb in VERBS
        }

    def send_otp(self, phone: str) -> str:
        """Send a code by SMS; the verification's sid. Raises NotSent, or Unknown when it may have been sent."""
        answer = self._ask("SendOTP", Mobile=phone)
        sid = answer.get("VerificationSid")
        if answer.get("Success") is not True:
            raise NotSent("SMU did not send the code")
        if not isinstance(sid, str) or not sid:
            raise Unknown("SMU gave no VerificationSid")
        return sid

    def verify_otp(self, verification_sid: str, code: str) -> OtpStatus:
        """What SMU says of a code; `expired` also when it knows no such verification any more. Raises Unknown.

        `Success: true` alone says only that SMU judged the code: a wrong one comes back as `pending`.
        """
        answer = self._ask("VerifyOTP", VerificationSid=verification_sid, Code=code)
        status = answer.get("Status")
        if answer.get("Success") is True and status in tuple(OtpStatus):
            return OtpStatus(status)
        if answer.get("Success") is False and GONE.search(str(answer.get("ErrorMessage"))):
            return OtpStatus.EXPIRED
        raise Unknown("SMU did not judge the code")

    def send_sms(self, phone: str, text: str) -> None:
        """Send an SMS. Raises Unknown."""
        self._expect("queued", self._ask("SendSMS", mobile=phone, message=text))

    def send_email(self, address: str, subject: str, html: str) -> None:
        """Send an e-mail. Raises Unknown."""
        self._expect("sent", self._ask("SendEmail", emailAddress=address, emailSubject=subject, emailBody=html))

    def _expect(self, status: str, answer: dict[str, Any]) -> None:
        if answer.get("status") != status:
            raise Unknown(f"SMU did not answer that it is {status}")

    def _ask(self, verb: str, **fields: str) -> dict[str, Any]:
        """One call; bodies carry phones and codes, so only the verb is logged."""
        started = time.perf_counter()
        answer = self._sent(verb, fields)
        log_call("SMU", f"POST /{verb}", answer.status_code, started)
        return _understood(answer)

    def _sent(self, verb: str, fields: dict[str, str]) -> requests.Response:
        call = self._ready[verb].copy()
        call.headers[correlation.HEADER] = correlation.current() or ""
        call.prepare_body(None, None, fields)
        try:
            return self._session.send(call, timeout=TIMEOUT, allow_redirects=False)
        except requests.RequestException as error:
            logger.warning("← SMU POST /%s: %s", verb, type(error).__name__)
            kind = NotSent if _never_left(error) else Unknown
            raise kind(f"SMU did not answer ({type(error).__name__})") from error


def _understood(answer: requests.Response) -> dict[str, Any]:
    if answer.status_code == requests.codes.not_found:
        return {"Success": False, "ErrorMessage": "not found"}
    if 400 <= answer.status_code < 500:
        raise NotSent(f"SMU refused the call with {answer.status_code}")
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        raise Unknown(f"SMU answered {answer.status_code} with something that is not JSON") from None
    if answer.status_code != requests.codes.ok or not isinstance(content, dict):
        raise Unknown(f"SMU answered {answer.status_code}")
    return content


def _never_left(error: requests.RequestException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)
