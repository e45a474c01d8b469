"""Deliveries to the webhook endpoint: signed, retried with backoff, and scripted to go wrong.

Signatures carry the wall clock, also under a moved clock of the fake: receivers compare them with theirs.
"""

import hashlib
import hmac
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from fakes.control import Plane

STALE_SECONDS = 600  # twice the tolerance of Stripe's libraries
TIMEOUT_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 30.0
KEPT = 10_000
SIGNATURES = ("good", "bad", "stale", "none")

Json = dict[str, Any]


def sign(payload: bytes, secret: str, timestamp: int) -> str:
    """The value of `Stripe-Signature`."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + payload, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


class Courier:
    """Takes what is due from the store's queue, one event at a time; copies of one event go out at once."""

    def __init__(self, plane: Plane, secret: str) -> None:
        self._plane, self._secret = plane, secret
        self._http = urllib3.PoolManager(maxsize=32, retries=False, timeout=TIMEOUT_SECONDS)
        self._posts = ThreadPoolExecutor(32, "webhook")

    def start(self) -> None:
        threading.Thread(target=self._run, name="courier", daemon=True).start()

    def send(self, event: Json, url: str, signatures: list[str], attempt: int) -> list[int | None]:
        """Post one copy for each signature, all at once. Returns the statuses, None for no answer."""
        payload = json.dumps(event, indent=2).encode()
        statuses = list(self._posts.map(lambda kind: self._post(payload, url, kind), signatures))
        with self._plane.lock:
            log = self._plane.store["deliveries"]
            for kind, status in zip(signatures, statuses, strict=True):
                about = {"event": event["id"], "type": event["type"]}
                log.append(about | {"attempt": attempt, "signature": kind, "status": status})
            del log[:-KEPT]
        return statuses

    def _run(self) -> None:
        while True:
            job = self._next()
            try:
                self._deliver(job)
            except Exception:  # the thread must outlive whatever an endpoint does to it
                logging.getLogger(self._plane.service).exception("webhook delivery failed")

    def _next(self) -> Json:
        """Wait for the job that is due first and take it from the queue."""
        with self._plane.changed:
            while True:
                queue = self._plane.store["queue"]
                first = min((job for job in queue if job["due"] is not None), key=lambda job: job["due"], default=None)
                wait = None if first is None else first["due"] - time.time()
                if first is not None and wait is not None and wait <= 0:
                    queue.remove(first)
                    return dict(first)
                self._plane.changed.wait(wait)

    def _deliver(self, job: Json) -> None:
        with self._plane.lock:
            event, url = self._plane.store["events"].get(job["event"]), self._plane.store["webhooks"]["url"]
        if event is None or not url:
            return
        signatures = job["signatures"]
        kind = signatures[min(job["attempt"], len(signatures)) - 1]
        statuses = self.send(event, url, [kind] * job["copies"], job["attempt"])
        self._settle(job, event, any(status is not None and 200 <= status < 300 for status in statuses))

    def _settle(self, job: Json, event: Json, delivered: bool) -> None:
        with self._plane.changed:
            script, store = self._plane.store["webhooks"], self._plane.store
            if store["events"].get(event["id"]) is not event:
                return  # reset or restored meanwhile
            if delivered:
                event["pending_webhooks"] = 0
            elif job["attempt"] < script["max_attempts"]:
                backoff = script["backoff_ms"] / 1000 * 2 ** min(job["attempt"] - 1, 20)
                due = time.time() + min(backoff, LONGEST_BACKOFF_SECONDS)
                store["queue"].append(job | {"attempt": job["attempt"] + 1, "due": due})
                self._plane.changed.notify_all()

    def _post(self, payload: bytes, url: str, kind: str) -> int | None:
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        now = int(time.time())
        if kind != "none":
            secret = "whsec_of_somebody_else" if kind == "bad" else self._secret
            headers["Stripe-Signature"] = sign(payload, secret, now - STALE_SECONDS if kind == "stale" else now)
        try:
            return self._http.request("POST", url, body=payload, headers=headers, redirect=False).status
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            logging.getLogger(self._plane.service).warning("no answer from the webhook endpoint: %s", error)
            return None
