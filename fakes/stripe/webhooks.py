"""Deliveries to the webhook endpoint, signed and retried with backoff. A script can make them fail.

Signatures use the wall clock even if the fake's clock was moved, because receivers compare it with their own.
"""

import hashlib
import hmac
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import urllib3

from fakes.control import FakeState
from fakes.stripe import events

STALE_SECONDS = 600  # twice the tolerance of Stripe's libraries
TIMEOUT_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 30.0
SIGNATURES = ("good", "bad", "stale", "none")

Json = dict[str, Any]


def sign(payload: bytes, secret: str, timestamp: int) -> str:
    """Return the value of `Stripe-Signature`."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


class WebhookSender:
    """Delivers due events from the queue, one at a time. Copies of one event are sent in parallel."""

    def __init__(self, state: FakeState, secret: str) -> None:
        self._state, self._secret = state, secret
        self._http = urllib3.PoolManager(maxsize=32, retries=False, timeout=TIMEOUT_SECONDS)
        self._posts = ThreadPoolExecutor(32, "webhook")

    def start(self) -> None:
        threading.Thread(target=self._run, name="sender", daemon=True).start()

    def send(self, event: Json, url: str, signatures: list[str], attempt: int) -> list[int | None]:
        """Post one copy per signature, in parallel. Returns the statuses, None for no answer."""
        payload = json.dumps(event, indent=2).encode()
        statuses = list(self._posts.map(lambda kind: self._post(payload, url, kind), signatures))
        with self._state.lock:
            log = self._state.store["deliveries"]
            for kind, status in zip(signatures, statuses, strict=True):
                about = {"event": event["id"], "type": event["type"]}
                log.append(about | {"attempt": attempt, "signature": kind, "status": status})
            del log[: -events.MAX_STORED]
        return statuses

    def _run(self) -> None:
        while True:
            job = self._take_next()
            try:
                self._deliver(job)
            except Exception:  # no answer of an endpoint may end this thread
                logging.getLogger(self._state.service).exception("webhook delivery failed")
                with self._state.lock:
                    self._drop(job)

    def _take_next(self) -> Json:
        """Wait until a job is due. It stays in the queue until it is finished, because the process can be killed."""
        with self._state.changed:
            while True:
                queue = self._state.store["queue"]
                first = min((job for job in queue if job["due"] is not None), key=lambda job: job["due"], default=None)
                wait = None if first is None else first["due"] - time.time()
                if first is not None and wait is not None and wait <= 0:
                    return dict(first)
                self._state.changed.wait(wait)

    def _deliver(self, job: Json) -> None:
        with self._state.lock:
            event, url = self._state.store["events"].get(job["event"]), self._state.store["webhooks"]["url"]
            if event is None or not url:
                self._drop(job)
                return
        signatures = job["signatures"]
        kind = signatures[min(job["attempt"], len(signatures)) - 1]
        statuses = self.send(event, url, [kind] * job["copies"], job["attempt"])
        self._finish(job, event, any(status is not None and 200 <= status < 300 for status in statuses))

    def _finish(self, job: Json, event: Json, is_delivered: bool) -> None:
        with self._state.changed:
            script, store = self._state.store["webhooks"], self._state.store
            if store["events"].get(event["id"]) is not event:
                return  # the state was reset or restored meanwhile
            self._drop(job)
            if is_delivered:
                event["pending_webhooks"] = 0
            elif job["attempt"] < script["max_attempts"]:
                backoff = script["backoff_ms"] / 1000 * 2 ** min(job["attempt"] - 1, 20)
                due = time.time() + min(backoff, MAX_BACKOFF_SECONDS)
                store["queue"].append(job | {"attempt": job["attempt"] + 1, "due": due})
                self._state.changed.notify_all()
        self._state.save()

    def _drop(self, job: Json) -> None:
        """Take a job from the queue, unless a restored queue has replaced it."""
        with suppress(ValueError):
            self._state.store["queue"].remove(job)

    def _post(self, payload: bytes, url: str, kind: str) -> int | None:
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        now = int(time.time())
        if kind != "none":
            secret = "whsec_of_another_account" if kind == "bad" else self._secret
            headers["Stripe-Signature"] = sign(payload, secret, now - STALE_SECONDS if kind == "stale" else now)
        try:
            return self._http.request("POST", url, body=payload, headers=headers, redirect=False).status
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            logging.getLogger(self._state.service).warning("no answer from the webhook endpoint: %s", error)
            return None
