"""The pictures of docs/img that show facts of the code: the map, sequences, states, and the fault matrix."""

from __future__ import annotations

from collections.abc import Mapping

from services.orchestrator.saga.definition import Pivot
from services.orchestrator.saga.flows import PAY
from tests.doc_pages.svg import AMBER, BLUE, GREEN, GREY, PANEL, RED, Canvas, Message, draw_sequence
from tests.saga.in_process.faults import Kind
from tests.saga.matrix.expected_outcomes import read_table

CLIENT, ORCHESTRATOR, USER, ORDER, INVENTORY = "Client", "Orchestrator", "User", "Order", "Inventory"
PAY_SERVICES = {"deduct_credits": USER, "confirm_order": ORDER, "confirm_seat": INVENTORY}
END_COLOURS = {"D": GREEN, "A": "#7fb894", "U": AMBER, "u": "#d9b26a", "E": "#b9bec7", "V": "#d9b26a", "N": "#dfe2e7"}
CELL, FLOW_GAP, COLUMNS = 8, 17, 3  # of the fault matrix: pixels, pixels, number
Row = tuple[str, str]  # flow and edge
END_WORDS = {
    "D": "done",
    "A": "done by a later attempt",
    "U": "undone",
    "u": "undone before a row existed",
    "E": "ended before its first step",
    "N": "no saga begun",
}


def draw_all() -> dict[str, str]:
    """Return every picture by its file name."""
    return {
        "map": draw_map(),
        "fault-matrix": draw_matrix(),
        "pay": draw_pay(),
        "saga-states": draw_states(),
        "idempotency": draw_idempotency(),
        "locking": draw_locking(),
        "expiry": draw_expiry(),
    }


def draw_map() -> str:
    """Draw the processes and their calls."""
    canvas = Canvas(920, 600, "TicketRemaster: the services and their calls")
    canvas.rect(30, 20, 860, 58, fill=PANEL)
    canvas.text(460, 43, "Kong", bold=True, size=15)
    canvas.text(
        460, 62, "tokens, rate limits, CORS, correlation ids. The native stand-in is fakes/kong", size=11, colour=GREY
    )
    canvas.box(60, 190, 190, 92, "User", ("accounts, credits, codes,", "top-ups, notices · users_db"))
    canvas.box(360, 190, 200, 92, "Orchestrator", ("sagas, journal, recovery,", "QR, scans · sagas_db"))
    canvas.box(680, 190, 190, 92, "Event", ("venues, prices, halls,", "seat maps · events_db"))
    canvas.box(60, 400, 190, 92, "Order", ("orders, transfers,", "OTP attempts · orders_db"))
    canvas.box(360, 400, 200, 92, "Inventory", ("seats, holds, sales,", "entry log · seats_db"))
    canvas.box(680, 400, 190, 92, "RabbitMQ", ("hold queue, then the", "dead-letter exchange"))
    canvas.box(60, 550, 86, 30, "SMU", dash=True)
    canvas.box(164, 550, 86, 30, "Stripe", dash=True)
    canvas.text(262, 570, "external APIs, played by fakes/", anchor="start", size=11, colour=GREY)
    for x, words in ((155, "/api/auth, Stripe's webhook"), (460, "the rest of /api"), (775, "/api/events")):
        canvas.arrow([(x, 78), (x, 188)])
        canvas.text(x + 8, 136, words, anchor="start", size=11, colour=GREY)
    canvas.arrow([(358, 225), (252, 225)])
    canvas.text(305, 216, "credits, codes", size=11, colour=GREY)
    canvas.arrow([(562, 225), (678, 225)])
    canvas.text(620, 216, "price, hall", size=11, colour=GREY)
    canvas.arrow([(400, 283), (240, 398)])
    canvas.text(300, 338, "orders, transfers", anchor="end", size=11, colour=GREY)
    canvas.arrow([(440, 283), (440, 398)])
    canvas.text(448, 344, "gRPC: hold,", anchor="start", size=11, colour=GREY)
    canvas.text(448, 358, "confirm, check in", anchor="start", size=11, colour=GREY)
    canvas.arrow([(540, 283), (690, 398)])
    canvas.text(612, 326, "hold message", anchor="start", size=11, colour=GREY)
    canvas.arrow([(678, 445), (562, 445)], dash=True)
    canvas.text(620, 437, "wake-up", size=11, colour=GREY)
    canvas.arrow([(358, 445), (252, 445)], dash=True)
    canvas.text(305, 437, "expired hold", size=11, colour=GREY)
    canvas.arrow([(845, 283), (845, 340), (905, 340), (905, 520), (520, 520), (520, 494)])
    canvas.text(712, 514, "seats of a map (HTTP)", size=11, colour=GREY)
    canvas.arrow([(62, 236), (24, 236), (24, 565), (58, 565)])
    canvas.text(48, 340, "codes,", anchor="start", size=11, colour=GREY)
    canvas.text(48, 354, "notices", anchor="start", size=11, colour=GREY)
    canvas.arrow([(62, 256), (40, 256), (40, 526), (207, 526), (207, 548)])
    canvas.text(124, 520, "PaymentIntents", size=11, colour=GREY)
    canvas.arrow([(207, 582), (207, 592), (10, 592), (10, 48), (28, 48)], dash=True)
    return canvas.render()


def draw_matrix() -> str:
    """Draw the outcome of each cell of the fault matrix: flows and edges down, faults across."""
    table = read_table()
    rows = list(dict.fromkeys((flow, edge) for flow, edge, _ in table))
    flows = list(dict.fromkeys(flow for flow, _ in rows))
    columns = _split(rows)
    canvas = Canvas(965, int(118 + max(map(_height, columns))), f"The fault matrix: {len(table):,} cells")
    counts = f"{len(table):,} cells: {len(flows)} flows, {len(rows)} calls, {len(Kind)} faults"
    canvas.text(20, 30, counts, anchor="start", bold=True, size=15)
    caption = (
        "A row is one call of a flow, a square one fault in it. The colour is the end state that a run must reach."
    )
    canvas.text(20, 50, caption, anchor="start", colour=GREY)
    for number, (end, words) in enumerate(END_WORDS.items()):
        _draw_legend(canvas, 20 + 190 * (number % 3), 62 + 18 * (number // 3), end, words)
    for number, kind in enumerate(Kind):
        x, y = 656 + 162 * (number // 7), 26 + 11 * (number % 7)
        canvas.text(x, y, f"{number + 1}", anchor="end", size=8, bold=True)
        canvas.text(x + 5, y, kind, anchor="start", size=8, colour=GREY)
    for number, column in enumerate(columns):
        _draw_column(canvas, 20 + 318 * number, column, table)
    return canvas.render()


def _draw_legend(canvas: Canvas, x: float, y: float, end: str, words: str) -> None:
    canvas.shapes.append(f'<rect x="{x:g}" y="{y:g}" width="9" height="9" rx="2" fill="{END_COLOURS[end]}"/>')
    canvas.text(x + 14, y + 9, words, anchor="start", size=11, colour=GREY)


def _draw_column(canvas: Canvas, left: float, rows: list[Row], table: Mapping[tuple[str, str, Kind], str]) -> None:
    y, shown = 104.0, ""
    for place in range(len(Kind)):
        canvas.text(left + 176 + place * (CELL + 2), y + FLOW_GAP, f"{place + 1}", size=7, colour=GREY)
    for flow, edge in rows:
        if flow != shown:
            y += FLOW_GAP
            canvas.text(left, y, flow, anchor="start", size=11, bold=True)
            y, shown = y + 5, flow
        canvas.text(left, y + CELL, edge.replace("{id}", "…"), anchor="start", size=8, colour=GREY)
        for place, kind in enumerate(Kind):
            if code := table.get((flow, edge, kind)):
                spot = f'x="{left + 172 + place * (CELL + 2):g}" y="{y:g}" width="{CELL}" height="{CELL}"'
                canvas.shapes.append(f'<rect {spot} rx="1.5" fill="{END_COLOURS[code[-1]]}"/>')
        y += CELL + 3


def _split(rows: list[Row]) -> list[list[Row]]:
    """Split the rows into columns of about the same length, between flows."""
    columns: list[list[Row]] = [[]]
    for before, row in zip([rows[0], *rows], rows, strict=False):
        if before[0] != row[0] and len(columns[-1]) >= len(rows) / COLUMNS - 3 and len(columns) < COLUMNS:
            columns.append([])
        columns[-1].append(row)
    return columns


def _height(rows: list[Row]) -> float:
    return len(rows) * (CELL + 3) + len({flow for flow, _ in rows}) * (FLOW_GAP + 5)


def draw_pay() -> str:
    """Draw `pay` with a lost reply of the pivot: settle decides between going forward and undoing."""
    messages = [
        Message(CLIENT, ORCHESTRATOR, "POST /api/pay"),
        Message(ORCHESTRATOR, ORCHESTRATOR, "journal: begin", BLUE),
    ]
    for step in PAY.steps:
        service = PAY_SERVICES[step.name]
        messages.append(Message(ORCHESTRATOR, service, step.name))
        if isinstance(step, Pivot):
            messages.append(Message(service, ORCHESTRATOR, "reply", is_failed=True))
    messages.append(Message(ORCHESTRATOR, ORCHESTRATOR, "no reply: unknown", RED))
    messages.append(Message(ORCHESTRATOR, INVENTORY, "Settle(key of confirm_seat)", BLUE))
    messages.append(Message(ORCHESTRATOR, ORCHESTRATOR, "DONE: repeat forward", GREEN))
    messages.append(Message(ORCHESTRATOR, ORCHESTRATOR, "VOIDED: undo, last first", AMBER))
    for step in reversed(PAY.steps):
        if step.undo is not None:
            messages.append(Message(ORCHESTRATOR, PAY_SERVICES[step.name], step.undo.__name__, AMBER))
    messages.append(Message(ORCHESTRATOR, ORCHESTRATOR, "journal: end", BLUE))
    messages.append(Message(ORCHESTRATOR, CLIENT, "200 or 500"))
    return draw_sequence("pay with a lost reply of its pivot", [CLIENT, ORCHESTRATOR, USER, ORDER, INVENTORY], messages)


def draw_states() -> str:
    """Draw the states of a saga in the journal."""
    canvas = Canvas(860, 250, "The states of a saga")
    canvas.box(40, 95, 130, 56, "RUNNING", ("begin write",))
    places = {"DONE": (330, 20), "REFUSED": (330, 95), "UNDONE": (330, 170)}
    words = {"DONE": "every step took effect", "REFUSED": "a definite refusal", "UNDONE": "failed, fully undone"}
    for name, (x, y) in places.items():
        canvas.box(x, y, 190, 56, name, (words[name],))
        canvas.arrow([(170, 123), (328, y + 28)])
    canvas.box(660, 95, 160, 56, "PARKED", ("keeps failing",))
    canvas.arrow([(105, 153), (105, 240), (740, 240), (740, 153)], colour=RED)
    canvas.text(590, 234, "after SAGA_PARK_SECONDS", size=11, colour=RED)
    canvas.arrow([(660, 110), (522, 50)], colour=BLUE)
    canvas.arrow([(660, 136), (522, 196)], colour=BLUE)
    canvas.text(640, 84, "operator", size=11, colour=BLUE)
    canvas.text(60, 84, "adopted: epoch + 1", anchor="start", size=11, colour=GREY)
    return canvas.render()


def draw_idempotency() -> str:
    """Draw a late call that meets the tombstone of its undo."""
    messages = [
        Message(ORCHESTRATOR, USER, "deduct (key K)", is_failed=True),
        Message(ORCHESTRATOR, ORCHESTRATOR, "no reply: unknown", RED),
        Message(ORCHESTRATOR, USER, "refund (key K)", AMBER),
        Message(USER, USER, "no effect under K: tombstone", BLUE),
        Message(ORCHESTRATOR, USER, "the late deduct (key K) arrives", GREY),
        Message(USER, ORCHESTRATOR, "refused: STEP_VOIDED", GREEN),
    ]
    return draw_sequence("An undo that overtakes its step", [ORCHESTRATOR, USER], messages, width=620)


def draw_locking() -> str:
    """Draw two reserves of one seat: NOWAIT refuses the loser at once."""
    first, second = "Reserve A", "Reserve B"
    messages = [
        Message(first, INVENTORY, "SELECT … FOR UPDATE NOWAIT"),
        Message(INVENTORY, INVENTORY, "the row is locked by A", BLUE),
        Message(second, INVENTORY, "SELECT … FOR UPDATE NOWAIT"),
        Message(INVENTORY, second, "409 SEAT_UNAVAILABLE at once", AMBER),
        Message(INVENTORY, first, "HELD, commit", GREEN),
    ]
    return draw_sequence("Two reserves of one seat", [first, INVENTORY, second], messages, width=760)


def draw_expiry() -> str:
    """Draw the ways in which an expired hold ends."""
    queue, sweeper = "RabbitMQ", "Sweeper"
    messages = [
        Message(ORCHESTRATOR, queue, "hold message with a TTL", GREY),
        Message(INVENTORY, INVENTORY, "held_until passes", BLUE),
        Message(queue, INVENTORY, "dead letter: wake-up (TTL + 2 s)", GREEN),
        Message(sweeper, INVENTORY, "no message: sweep (TTL + 60 s)", AMBER),
        Message(INVENTORY, INVENTORY, "release, void the hold's key", BLUE),
    ]
    return draw_sequence("The end of an expired hold", [ORCHESTRATOR, queue, INVENTORY, sweeper], messages)
