"""The state of a fake, and `/_control`, the routes by which a test scripts the fake.

One lock guards the whole state. The store is plain JSON, so a snapshot contains exactly the state.
"""

import copy
import json
import os
import threading
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request

from fakes import socket_faults
from fakes.clock import Clock, iso
from fakes.faults import MAX_MS, Fault, FaultTable, parse_fault
from fakes.ids import Ids
from fakes.journal import Journal, mask
from fakes.saved_state import StateFile, Store, track


class FakeState:
    """A fake's clock, ids, faults, journal and store.

    `secret` and `phone` name the fields to mask. `logs` names the parts of the store that are not saved. The file of
    STATE_FILE keeps the others, the clock and the ids over a restart.
    """

    def __init__(
        self,
        service: str,
        empty: Callable[[], Store],
        *,
        secret: frozenset[str] = frozenset(),
        phone: frozenset[str] = frozenset(),
        logs: frozenset[str] = frozenset(),
    ) -> None:
        self.service, self._empty = service, empty
        self._secret, self._phone = secret, phone
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # notified when the webhook queue or the clock changes
        self._cleared = threading.Event()
        self.clock, self.ids, self.faults, self.journal = Clock(), Ids(), FaultTable(), Journal()
        self._logs = logs
        path = os.environ.get("STATE_FILE")
        self._file = StateFile(path) if path else None
        self.store = self._track(empty())
        if self._file:
            self._load(self._file.read())

    def record_call(
        self, method: str, path: str, sent: dict[str, Any], key: str | None
    ) -> tuple[dict[str, Any], Fault | None]:
        """Record a call in the journal and return it with the fault that hits it, if any."""
        with self.lock:
            when = {"at": iso(self.clock.now())} if self.clock.is_frozen else {}
            call = self.journal.open(**when, method=method, path=path, idempotency_key=key, sent=self._mask(sent))
            fault = self.faults.take_due(method, path, sent)
            call["fault"] = fault.kind if fault else None
            return call, fault

    def record_answer(self, call: dict[str, Any], status: int, answer: Any) -> None:
        with self.lock:
            call["status"], call["answer"] = status, self._mask(answer)

    def _mask(self, value: Any) -> Any:
        return mask(value, self._secret, self._phone)

    def wait(self, ms: int) -> None:
        """Wait for `ms` milliseconds, or until the faults are cleared."""
        self._cleared.wait(ms / 1000)

    def clear_faults(self) -> None:
        with self.lock:
            self.faults.clear()
            self._cleared.set()
            self._cleared = threading.Event()

    def reset(self, seed: str | None) -> None:
        """Return to the initial state. Without a seed, the new ids differ from all earlier ones."""
        with self.lock:
            self.clear_faults()
            self.journal.clear()
            self.clock, self.ids, self.store = Clock(), Ids(seed), self._track(self._empty())
            self._replace_file()
            self.changed.notify_all()

    def save(self) -> None:
        """Write what changed to the file, if there is one. It runs before the answer to a call leaves."""
        if self._file:
            with self.lock:
                self._file.append(self._list_saved())

    def _track(self, store: Store) -> Store:
        return track(store, self._empty()) if self._file else store

    def _list_saved(self) -> Store:
        kept = {name: part for name, part in self.store.items() if name not in self._logs}
        return {"clock": self.clock.dump(), "ids": self.ids.dump(), **kept}

    def _load(self, saved: Store) -> None:
        if saved:
            self.clock.load(saved.pop("clock"))
            self.ids.load(saved.pop("ids"))
            self.store = self._track(self._empty() | saved)
        self._replace_file()

    def _replace_file(self) -> None:
        if self._file:
            self._file.replace(self._list_saved())

    def _check_store(self, store: Store) -> Store:
        """Return `store` if it has the parts of an empty one. Raises ValueError otherwise."""
        empty = self._empty()
        if {k: type(v) for k, v in store.items()} != {k: type(v) for k, v in empty.items()}:
            raise ValueError("this store is of another fake")
        return store

    def snapshot(self) -> dict[str, Any]:
        with self.lock:
            parts = {name: getattr(self, name).dump() for name in ("clock", "ids", "faults", "journal")}
            return {"service": self.service, **parts, "store": copy.deepcopy(self.store)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Restore a snapshot of the same service. Raises ValueError, without a change, for any other value."""
        if not isinstance(snapshot, dict) or snapshot.get("service") != self.service:
            raise ValueError(f"not a snapshot of {self.service}")
        try:
            parts = {"clock": Clock(), "ids": Ids(), "faults": FaultTable(), "journal": Journal()}
            for name, part in parts.items():
                part.load(snapshot[name])  # type: ignore[attr-defined]  # the four share dump and load
            store = self._check_store(snapshot["store"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError("send the answer of GET /_control/snapshot") from error
        with self.lock:
            self.clear_faults()
            vars(self).update(parts, store=self._track(store))
            self._replace_file()
            self.changed.notify_all()


def read_body() -> dict[str, Any]:
    """Return the JSON object of the request. An empty body is an empty object."""
    sent = request.get_json(silent=True) if request.get_data() else {}
    if not isinstance(sent, dict):
        raise ValueError("send a JSON object")
    return sent


def check_fields(sent: dict[str, Any], **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """Return `sent` if each field is in `kinds` and has its type. Raises ValueError otherwise."""
    for name, value in sent.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise ValueError(f"{name} is unknown or has the wrong type. The fields are {', '.join(kinds)}")
    return sent


def blueprint(state: FakeState) -> Blueprint:
    """Build the routes that every fake has under /_control."""
    routes = Blueprint("control", __name__, url_prefix="/_control")

    @routes.errorhandler(ValueError)
    def _wrong(error: ValueError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    _fault_routes(routes, state)
    _time_routes(routes, state)
    _state_routes(routes, state)
    return routes


def _fault_routes(routes: Blueprint, state: FakeState) -> None:
    @routes.get("/faults")
    def _list_faults() -> Response:
        with state.lock:
            return jsonify(faults=state.faults.dump())

    @routes.post("/faults")
    def _add_fault() -> tuple[Response, int]:
        fault = parse_fault(request.get_json(silent=True))
        with state.lock:
            return jsonify(id=state.faults.add(fault).id), 201

    @routes.delete("/faults")
    def _clear_faults() -> tuple[str, int]:
        state.clear_faults()
        return "", 204

    @routes.post("/refuse")
    def _refuse() -> Response:
        ms = check_fields(read_body(), ms=int).get("ms", 1000)
        if not 0 < ms <= MAX_MS:
            raise ValueError(f"ms must be 1 to {MAX_MS}")
        socket_faults.refuse(ms)
        return jsonify(refusing_ms=ms)


def _time_routes(routes: Blueprint, state: FakeState) -> None:
    @routes.get("/clock")
    def _clock() -> Response:
        with state.lock:
            return jsonify(now=iso(state.clock.now()), epoch=state.clock.now(), frozen=state.clock.is_frozen)

    @routes.post("/clock")
    def _move_clock() -> Response:
        sent = check_fields(read_body(), advance=(int, float), freeze=(bool, int, float))
        freeze = sent.get("freeze")
        with state.lock:
            if freeze is False:
                state.clock.thaw()
            elif freeze is not None:
                state.clock.freeze(None if freeze is True else float(freeze))
            state.clock.advance(sent.get("advance", 0))
            state.changed.notify_all()
        return _clock()

    @routes.post("/seed")
    def _seed() -> Response:
        with state.lock:
            state.ids = Ids(check_fields(read_body(), seed=str).get("seed"))
            return jsonify(seed=state.ids.seed)


def _state_routes(routes: Blueprint, state: FakeState) -> None:
    @routes.post("/reset")
    def _reset() -> Response:
        state.reset(check_fields(read_body(), seed=str).get("seed"))
        return jsonify(seed=state.ids.seed)

    @routes.get("/journal")
    def _journal() -> Response:
        with state.lock:
            text = json.dumps({"calls": state.journal.calls}, indent=1, sort_keys=True)
        return Response(text + "\n", mimetype="application/json")

    @routes.delete("/journal")
    def _clear_journal() -> tuple[str, int]:
        with state.lock:
            state.journal.clear()
        return "", 204

    @routes.get("/snapshot")
    def _snapshot() -> Response:
        return Response(json.dumps(state.snapshot()), mimetype="application/json")

    @routes.post("/restore")
    def _restore() -> tuple[str, int]:
        state.restore(read_body())
        return "", 204
