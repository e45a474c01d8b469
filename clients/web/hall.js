// The seats of an event by category and row. A small hall shows all seats. A large hall shows each row as a strip.
import {computed, nextTick, reactive, shallowRef} from "/lib/vue.js";
import {loadEvent, newKey, post, untilKnown} from "./api.js";
import {alert, button, heading, html, loading, money, spoken, usePolling, useAction, waiting, when} from "./ui.js";

const REFRESH_MS = 2000;
const ROWS_OF_A_SMALL_HALL = 8;
const STATUS = {AVAILABLE: "free", HELD: "held", SOLD: "sold", CHECKED_IN: "sold"};
const keys = new Map(); // seat id → key of a reservation whose result is not known yet

export default {
  props: ["given"],
  setup(props) {
    const event = shallowRef(null);
    const chosen = reactive({category: "", row: null, seat: null});
    const rows = computed(() => groupRows(event.value?.seats ?? []));
    const shown = computed(() => rows.value.filter(row => !chosen.category || row.category === chosen.category));
    const isSmall = computed(() => rows.value.length <= ROWS_OF_A_SMALL_HALL);
    const openRow = computed(() => rows.value.find(row => row.name === chosen.row));
    const seat = computed(() => event.value?.seats.find(each => each.seat_id === chosen.seat));
    const [state, refresh] = usePolling(async () => { event.value = await loadEvent(props.given[0]); }, REFRESH_MS);
    const [reserving, reserve] = useAction(async () => {
      const id = seat.value.seat_id;
      keys.has(id) || keys.set(id, newKey());
      try {
        const held = await untilKnown(() => post("/api/reserve", {seat_id: id}, keys.get(id)), {onWait: reserving.wait});
        keys.delete(id);
        location.hash = `#/orders/${held.order_id}`;
      } catch (error) {
        if (!error.isUnknown) keys.delete(id); // a final refusal: the next request is a new one
        refresh();
        throw error;
      }
    });
    const openOne = async name => {
      Object.assign(chosen, {row: name, seat: null});
      await nextTick();
      document.querySelector(".sheet .seats button:not(:disabled)")?.focus();
    };
    const choose = id => { chosen.seat = id; reserving.error = ""; };

    return () => html`
      ${heading(event.value?.name ?? "Choose a seat")}
      ${event.value && html`<p class="muted">${when(event.value.event_date)} · ${event.value.venue.name} · ${event.value.hall_id}</p>`}
      ${loading(state)}
      ${event.value && html`
        <div class="chips hall" role="group" aria-label="Category">${listCategories(event.value, rows.value).map(each => html`
          <button key=${each.name} class=${`chip ${each.name}`} aria-pressed=${chosen.category === each.name}
            onClick=${() => { chosen.category = each.name; }}>
            ${each.name || "All"}${each.price && html` <b>${Number(each.price)}</b>`}<small>${each.free} free</small></button>`)}</div>
        <p class="legend" aria-hidden="true"><i class="free"></i>free <i class="held"></i>held by somebody <i class="sold"></i>sold</p>
        <div class="stage" aria-hidden="true">Stage</div>
        ${isSmall.value
          ? shown.value.map(row => showRow(row, chosen.seat, choose))
          : html`<div class="strips">${shown.value.map(row => showStrip(row, chosen.row, openOne))}</div>`}
        ${(seat.value || openRow.value) && html`<section class="sheet" aria-label="Your choice">
          ${openRow.value && showRow(openRow.value, chosen.seat, choose)}
          ${alert(reserving.error)}${waiting(reserving, "No answer yet. Checking whether the seat is yours…")}
          ${seat.value
            ? html`<div class="row spread"><p aria-live="polite"><b>Row ${seat.value.row_number}, seat ${seat.value.seat_number}</b>
                <span class="muted"> · ${seat.value.category} · ${money(seat.value.price)} credits</span></p>
                ${button("Reserve this seat", reserving, {onClick: reserve})}</div>`
            : html`<p class="muted">Choose a seat of this row.</p>`}
        </section>`}`}`;
  },
};

function groupRows(seats) {
  const rows = new Map();
  for (const seat of seats) {
    const name = seat.row_number;
    rows.has(name) || rows.set(name, {name, category: seat.category, price: seat.price, seats: [], free: 0});
    rows.get(name).seats.push(seat);
    rows.get(name).free += seat.status === "AVAILABLE";
  }
  return [...rows.values()];
}

function listCategories(event, rows) {
  const count = name => rows.reduce((sum, row) => sum + (!name || row.category === name ? row.free : 0), 0);
  return ["", ...Object.keys(event.pricing_tiers)].map(name => ({name, price: event.pricing_tiers[name], free: count(name)}));
}

const showStrip = (row, open, openOne) => html`
  <button key=${row.name} class=${`strip ${row.category}`} aria-expanded=${open === row.name} onClick=${() => openOne(row.name)}>
    <span>${spoken("Row ")}${row.name}${spoken(` ${row.category}, ${money(row.price)} credits, `)}</span>
    <i style=${{backgroundImage: paint(row.seats)}}></i><small>${row.free}${spoken(" seats free")}</small>
  </button>`;

/** The seats of a row as one gradient, because 5,000 elements would be slow. */
function paint(seats) {
  const width = 100 / seats.length;
  const parts = seats.map(({status}, at) => `var(--${STATUS[status]}) ${at * width}% ${(at + 1) * width}%`);
  const gaps = `repeating-linear-gradient(to right, transparent 0 calc(${width}% - 1px), var(--page) 0 ${width}%)`;
  return `${gaps}, linear-gradient(to right, ${parts.join(", ")})`;
}

function showRow(row, chosenId, choose) {
  const entry = (row.seats.find(seat => seat.seat_id === chosenId) ?? row.seats.find(seat => seat.status === "AVAILABLE"))?.seat_id;
  return html`
    <div key=${row.name} class=${`hallrow ${row.category}`} role="group" aria-label=${`Row ${row.name}, ${row.category}`} onKeydown=${moveFocus}>
      <p class="rowname" aria-hidden="true">${row.name}<small>${row.category}</small></p>
      <div class="seats">${row.seats.map(seat => html`
        <button key=${seat.seat_id} class=${STATUS[seat.status]} disabled=${seat.status !== "AVAILABLE"} onClick=${() => choose(seat.seat_id)}
          tabindex=${seat.seat_id === entry ? 0 : -1} aria-pressed=${seat.seat_id === chosenId} data-seat=${seat.seat_id}
          aria-label=${`Row ${row.name}, seat ${seat.seat_number}, ${STATUS[seat.status]}`}>${seat.seat_number}</button>`)}</div>
    </div>`;
}

/** Arrow keys move between the free seats of a row and between rows, so that Tab passes a row in one step. */
function moveFocus(event) {
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: "next", ArrowUp: "previous"}[event.key];
  if (!step || !event.target.matches("[data-seat]")) return;
  event.preventDefault();
  const row = event.currentTarget, free = [...row.querySelectorAll("button:enabled")];
  const other = row[`${step}ElementSibling`];
  const target = typeof step === "number" ? free[free.indexOf(event.target) + step]
    : other?.querySelectorAll("button:enabled")[Math.min(free.indexOf(event.target), other.querySelectorAll("button:enabled").length - 1)];
  target?.focus();
}
