"""SMU, Singapore Management University's notification API (section 9 of the reference): codes, SMS and e-mails."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import requests
from urllib3.exceptions import MaxRetryError, NewConnectionError

from services.chassis import correlation
from services.chassis.clients import CALL_SECONDS, log_call
from services.chassis.errors import NoAnswer, NotSent, Unknown, Unreachable
from services.chassis.neighbours import UNLIMITED, Neighbour
from services.contracts.enums import OtpStatus
from services.user.outside import open_session

logger = logging.getLogger(__name__)

TIMEOUT = (0.4, CALL_SECONDS - 0.6)  # seconds to connect and to read, together less than the CALL_SECONDS of our caller
VERBS = ("SendOTP", "VerifyOTP", "SendSMS", "SendEmail")
NOT_FOUND = re.compile(r"20404|60202|not found|max check attempts", re.IGNORECASE)  # errors of Twilio, which SMU uses


class Smu:
    """SMU's four calls. Thread-safe. Nothing is retried, because each call may send an SMS.

    `slots` is the number of threads that may wait for SMU at once. `name` is that of the neighbour.
    """

    def __init__(self, base_url: str, api_key: str, slots: int = UNLIMITED, name: str = "SMU") -> None:
        self._neighbour = Neighbour(name, slots)
        self._session = open_session(base_url)
        self._session.headers.update({"X-Contacts-Key": api_key, "Accept": "application/json"})
        self._adapter = self._session.get_adapter(base_url)
        self._options: dict[str, Any] = {"verify": self._session.verify, "proxies": self._session.proxies}
        # `requests` would prepare the request at each call, which is most of the cost of a call.
        self._prepared = {
            verb: self._session.prepare_request(requests.Request("POST", f"{base_url}/{verb}", json={}))
            for verb in VERBS
        }

    def send_otp(self, phone: str) -> str:
        """Send a code by SMS and return the sid of its verification.

        Raises NotSent if SMU certainly sent nothing, or Unknown if the code may have been sent.
        """
        answer = self._call("SendOTP", Mobile=phone)
        sid = answer.get("VerificationSid")
        if answer.get("Success") is not True:
            raise NotSent("SMU did not send the code")
        if not isinstance(sid, str) or not sid or not sid.isprintable():  # the database cannot store every text
            raise Unknown("SMU returned no VerificationSid")
        return sid

    def verify_otp(self, verification_sid: str, code: str) -> OtpStatus:
        """Return SMU's verdict on a code. An unknown verification counts as `expired`. Raises Unknown.

        A wrong code gets `Success: true` and `pending`, because `Success` reports only that SMU checked the code.
        """
        answer = self._call("VerifyOTP", VerificationSid=verification_sid, Code=code)
        status = answer.get("Status")
        if answer.get("Success") is True and status in tuple(OtpStatus):
            return OtpStatus(status)
        if answer.get("Success") is False and NOT_FOUND.search(str(answer.get("ErrorMessage"))):
            return OtpStatus.EXPIRED
        raise Unknown("SMU returned no verdict on the code")

    def send_sms(self, phone: str, text: str) -> None:
        """Send an SMS. Raises Unknown."""
        self._check_status("queued", self._call("SendSMS", mobile=phone, message=text))

    def send_email(self, address: str, subject: str, html: str) -> None:
        """Send an e-mail. Raises Unknown."""
        self._check_status("sent", self._call("SendEmail", emailAddress=address, emailSubject=subject, emailBody=html))

    def _check_status(self, expected: str, answer: dict[str, Any]) -> None:
        if answer.get("status") != expected:
            raise Unknown(f"SMU did not return the status {expected}")

    def _call(self, verb: str, **fields: str) -> dict[str, Any]:
        """Call SMU. Only the verb is logged, because bodies contain phone numbers and codes."""
        started = time.perf_counter()
        with self._neighbour.calling():
            answer = self._post(verb, fields)
            log_call("SMU", f"POST /{verb}", answer.status_code, started)
            return _parse(answer)

    def _post(self, verb: str, fields: dict[str, str]) -> requests.Response:
        call = self._prepared[verb].copy()
        call.headers[correlation.HEADER] = correlation.current() or ""
        call.prepare_body(None, None, fields)
        try:
            # The session would look for cookies and redirects, which is half of the cost of a call.
            return self._adapter.send(call, timeout=TIMEOUT, **self._options)
        except requests.RequestException as error:
            logger.warning("← SMU POST /%s: %s", verb, type(error).__name__)
            kind = Unreachable if _was_not_sent(error) else NoAnswer
            raise kind(f"SMU did not answer ({type(error).__name__})") from error


def _parse(answer: requests.Response) -> dict[str, Any]:
    if answer.status_code == requests.codes.not_found:
        return {"Success": False, "ErrorMessage": "not found"}
    if 400 <= answer.status_code < 500:
        raise NotSent(f"SMU refused the call with {answer.status_code}")
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        raise Unknown(f"SMU returned {answer.status_code} with a body that is not JSON") from None
    if answer.status_code != requests.codes.ok or not isinstance(content, dict):
        raise Unknown(f"SMU returned {answer.status_code}")
    return content


def _was_not_sent(error: requests.RequestException) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)
