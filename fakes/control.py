"""The state of a fake and `/_control`, by which a test scripts it.

One lock guards everything. The store is plain JSON, so a snapshot is the whole state and nothing else.
"""

import copy
import json
import threading
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from fakes import socket_faults
from fakes.clock import Clock, iso
from fakes.faults import LONGEST_MS, Fault, FaultTable, parse
from fakes.ids import Ids
from fakes.journal import Journal, masked

Store = dict[str, Any]


class Plane:
    """A fake's clock, ids, faults, journal and store. `secret` and `phone` name fields to mask."""

    def __init__(
        self,
        service: str,
        empty: Callable[[], Store],
        *,
        secret: frozenset[str] = frozenset(),
        phone: frozenset[str] = frozenset(),
    ) -> None:
        self.service, self._empty = service, empty
        self._secret, self._phone = secret, phone
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # the store has something new to do
        self._let_go = threading.Event()
        self.clock, self.ids, self.faults, self.journal = Clock(), Ids(), FaultTable(), Journal()
        self.store: Store = empty()

    def arrive(
        self, method: str, path: str, sent: dict[str, Any], key: str | None
    ) -> tuple[dict[str, Any], Fault | None]:
        """Enter a call in the journal and find the fault that hits it."""
        with self.lock:
            when = {"at": iso(self.clock.now())} if self.clock.frozen else {}
            call = self.journal.open(**when, method=method, path=path, idempotency_key=key, sent=self._masked(sent))
            fault = self.faults.claim(method, path, sent)
            call["fault"] = fault.kind if fault else None
            return call, fault

    def note(self, call: dict[str, Any], status: int, answer: Any) -> None:
        with self.lock:
            call["status"], call["answer"] = status, self._masked(answer)

    def _masked(self, value: Any) -> Any:
        return masked(value, self._secret, self._phone)

    def wait(self, ms: int) -> None:
        """Hang for `ms` milliseconds, or until the faults are cleared."""
        self._let_go.wait(ms / 1000)

    def clear_faults(self) -> None:
        with self.lock:
            self.faults.clear()
            self._let_go.set()
            self._let_go = threading.Event()

    def reset(self, seed: str | None) -> None:
        """Back to the start; without a seed the ids differ from any used before."""
        with self.lock:
            self.clear_faults()
            self.journal.clear()
            self.clock, self.ids, self.store = Clock(), Ids(seed), self._empty()
            self.changed.notify_all()

    def _like(self, store: Store) -> Store:
        """`store`, once it has the parts of an empty one."""
        empty = self._empty()
        if {k: type(v) for k, v in store.items()} != {k: type(v) for k, v in empty.items()}:
            raise ValueError("not this fake's store")
        return store

    def snapshot(self) -> dict[str, Any]:
        with self.lock:
            parts = {name: getattr(self, name).dump() for name in ("clock", "ids", "faults", "journal")}
            return {"service": self.service, **parts, "store": copy.deepcopy(self.store)}

    def restore(self, taken: dict[str, Any]) -> None:
        """Take up a snapshot of the same service; raises ValueError, changing nothing, on anything else."""
        if not isinstance(taken, dict) or taken.get("service") != self.service:
            raise ValueError(f"not a snapshot of {self.service}")
        try:
            made = {"clock": Clock(), "ids": Ids(), "faults": FaultTable(), "journal": Journal()}
            for name, part in made.items():
                part.load(taken[name])  # type: ignore[attr-defined]  # the four share dump and load
            store = self._like(taken["store"])
        except (AttributeError, KeyError, TypeError, ValueError) as wrong:
            raise ValueError("a snapshot is what GET /_control/snapshot gave") from wrong
        with self.lock:
            self.clear_faults()
            vars(self).update(made, store=store)
            self.changed.notify_all()


def body() -> dict[str, Any]:
    """The JSON object sent; nothing sent is an empty one."""
    sent = request.get_json(silent=True) if request.get_data() else {}
    if not isinstance(sent, dict):
        raise ValueError("send a JSON object")
    return sent


def known(sent: dict[str, Any], **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """`sent`, once every field is one of `kinds` and of its type; raises ValueError."""
    for name, value in sent.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise ValueError(f"expected {', '.join(kinds)}; {name} is unknown or of the wrong type")
    return sent


def blueprint(plane: Plane) -> Blueprint:
    """The verbs that every fake has under /_control."""
    routes = Blueprint("control", __name__, url_prefix="/_control")

    @routes.errorhandler(ValueError)
    def _wrong(error: ValueError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    _fault_routes(routes, plane)
    _time_routes(routes, plane)
    _state_routes(routes, plane)
    return routes


def _fault_routes(routes: Blueprint, plane: Plane) -> None:
    @routes.get("/faults")
    def _list_faults() -> Response:
        with plane.lock:
            return jsonify(faults=plane.faults.dump())

    @routes.post("/faults")
    def _add_fault() -> tuple[Response, int]:
        fault = parse(request.get_json(silent=True))
        with plane.lock:
            return jsonify(id=plane.faults.add(fault).id), 201

    @routes.delete("/faults")
    def _clear_faults() -> tuple[str, int]:
        plane.clear_faults()
        return "", 204

    @routes.post("/refuse")
    def _refuse() -> Response:
        ms = known(body(), ms=int).get("ms", 1000)
        if not 0 < ms <= LONGEST_MS:
            raise ValueError(f"ms is 1 to {LONGEST_MS}")
        socket_faults.refuse(ms)
        return jsonify(refusing_ms=ms)


def _time_routes(routes: Blueprint, plane: Plane) -> None:
    @routes.get("/clock")
    def _clock() -> Response:
        with plane.lock:
            return jsonify(now=iso(plane.clock.now()), epoch=plane.clock.now(), frozen=plane.clock.frozen)

    @routes.post("/clock")
    def _move_clock() -> Response:
        sent = known(body(), advance=(int, float), freeze=(bool, int, float))
        freeze = sent.get("freeze")
        with plane.lock:
            if freeze is False:
                plane.clock.thaw()
            elif freeze is not None:
                plane.clock.freeze(None if freeze is True else float(freeze))
            plane.clock.advance(sent.get("advance", 0))
            plane.changed.notify_all()
        return _clock()

    @routes.post("/seed")
    def _seed() -> Response:
        with plane.lock:
            plane.ids = Ids(known(body(), seed=str).get("seed"))
            return jsonify(seed=plane.ids.seed)


def _state_routes(routes: Blueprint, plane: Plane) -> None:
    @routes.post("/reset")
    def _reset() -> Response:
        plane.reset(known(body(), seed=str).get("seed"))
        return jsonify(seed=plane.ids.seed)

    @routes.get("/journal")
    def _journal() -> Response:
        with plane.lock:
            text = json.dumps({"calls": plane.journal.calls}, indent=1, sort_keys=True)
        return Response(text + "\n", mimetype="application/json")

    @routes.delete("/journal")
    def _clear_journal() -> tuple[str, int]:
        with plane.lock:
            plane.journal.clear()
        return "", 204

    @routes.get("/snapshot")
    def _snapshot() -> Response:
        return Response(json.dumps(plane.snapshot()), mimetype="application/json")

    @routes.post("/restore")
    def _restore() -> tuple[str, int]:
        plane.restore(body())
        return "", 204
