"""One-time codes by the rules of Twilio Verify, which SMU uses.

A code has six digits, ten minutes and five checks, and can be approved once. Callers hold the state's lock.
"""

import re
from typing import Any

from fakes.control import FakeState

LIFE_SECONDS = 600
MAX_CHECKS = 5
MAX_STORED = 10_000  # verifications. The oldest are deleted first.

E164 = re.compile(r"\+[1-9]\d{7,14}", re.ASCII)

# The texts begin with Twilio's error numbers, so that a caller can distinguish them.
INVALID_MOBILE = "60200: Invalid parameter `To`"
NOT_FOUND = "20404: The requested verification was not found"
TOO_MANY_CHECKS = "60202: Max check attempts reached"

Json = dict[str, Any]


def send(state: FakeState, mobile: str) -> tuple[Json, str | None]:
    """Create a verification, and return the answer and the code. The code is None for an invalid number.

    Each call creates another verification. Earlier ones stay valid until they expire.
    """
    if not E164.fullmatch(mobile):
        return {"VerificationSid": "", "Success": False, "ErrorMessage": INVALID_MOBILE}, None
    sid, code = "VE" + state.ids.draw("0123456789abcdef", 32), state.ids.draw_digits(6)
    verifications = state.store["verifications"]
    verifications[sid] = {"code": code, "sent_at": state.clock.now(), "checks": 0, "approved": False}
    if len(verifications) > MAX_STORED:
        del verifications[next(iter(verifications))]
    return {"VerificationSid": sid, "Success": True, "ErrorMessage": ""}, code


def check(state: FakeState, sid: str, code: str) -> Json:
    """Check one guess. `Success: false` means that the sid is unknown or used up, so no guess was checked."""
    verification = state.store["verifications"].get(sid)
    if verification is None or verification["approved"]:
        return _failure(NOT_FOUND)
    if state.clock.now() >= verification["sent_at"] + LIFE_SECONDS:
        return _verdict("expired")
    if verification["checks"] >= MAX_CHECKS:
        return _failure(TOO_MANY_CHECKS)
    verification["checks"] += 1
    verification["approved"] = code == verification["code"]
    return _verdict("approved" if verification["approved"] else "pending")


def _verdict(status: str) -> Json:
    return {"Success": True, "Status": status, "ErrorMessage": ""}


def _failure(message: str) -> Json:
    return {"Success": False, "Status": "", "ErrorMessage": message}
