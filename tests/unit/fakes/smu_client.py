"""A client of the fake SMU notification API and of its inbox."""

from typing import Any

import requests

from tests.support.fakes_control import Fake

KEY = "the-smu-key"
MOBILE = "+6591234567"


class Smu:
    def __init__(self, server: Fake) -> None:
        self.server = server

    def post(self, path: str, timeout: float = 5, **body: Any) -> requests.Response:
        headers = {"X-Contacts-Key": KEY}
        return requests.post(self.server.url + path, json=body, headers=headers, timeout=timeout)

    def send(self, mobile: str = MOBILE) -> tuple[str, str]:
        """Send a code, and return the sid and the code."""
        sid = self.post("/SendOTP", Mobile=mobile).json()["VerificationSid"]
        return sid, self.inbox(mobile=mobile)[0]["code"]

    def check(self, sid: str, code: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("/VerifyOTP", VerificationSid=sid, Code=code).json()
        return answer

    def inbox(self, **query: str) -> list[dict[str, Any]]:
        answer = requests.get(f"{self.server.url}/inbox", params=query, timeout=5)
        messages: list[dict[str, Any]] = answer.json()["messages"]
        return messages


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"
