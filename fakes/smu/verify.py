"""One-time codes by the rules of Twilio Verify, which the SMU platform uses: six digits, ten minutes'
life, five checks, and an approved code is gone.

Callers hold the plane's lock.
"""

import re
from typing import Any

from fakes.control import Plane

LIFE_SECONDS = 600
CHECKS = 5
KEPT = 10_000  # verifications remembered; the oldest go first

E164 = re.compile(r"\+[1-9]\d{7,14}", re.ASCII)

# Twilio's error numbers lead the texts, so that a caller can tell them apart.
INVALID_MOBILE = "60200: Invalid parameter `To`"
NOT_FOUND = "20404: The requested verification was not found"
TOO_MANY_CHECKS = "60202: Max check attempts reached"

Answer = dict[str, Any]


def send(plane: Plane, mobile: str) -> tuple[Answer, str | None]:
    """A new verification and its code; (answer, None) for a number that is not E.164.

    Every call makes another verification; the earlier ones stay good until they expire.
    """
    if not E164.fullmatch(mobile):
        return {"VerificationSid": "", "Success": False, "ErrorMessage": INVALID_MOBILE}, None
    sid, code = "VE" + plane.ids.draw("0123456789abcdef", 32), plane.ids.digits(6)
    verifications = plane.store["verifications"]
    verifications[sid] = {"code": code, "sent_at": plane.clock.now(), "checks": 0, "approved": False}
    if len(verifications) > KEPT:
        del verifications[next(iter(verifications))]
    return {"VerificationSid": sid, "Success": True, "ErrorMessage": ""}, code


def check(plane: Plane, sid: str, code: str) -> Answer:
    """Judge one guess. `Success: false` means that no guess was judged: the sid is unknown or used up."""
    verification = plane.store["verifications"].get(sid)
    if verification is None or verification["approved"]:
        return _refused(NOT_FOUND)
    if plane.clock.now() >= verification["sent_at"] + LIFE_SECONDS:
        return _judged("expired")
    if verification["checks"] >= CHECKS:
        return _refused(TOO_MANY_CHECKS)
    verification["checks"] += 1
    verification["approved"] = code == verification["code"]
    return _judged("approved" if verification["approved"] else "pending")


def _judged(status: str) -> Answer:
    return {"Success": True, "Status": status, "ErrorMessage": ""}


def _refused(message: str) -> Answer:
    return {"Success": False, "Status": "", "ErrorMessage": message}
