// The seats of an event by category and row. A small hall shows all seats. A large hall shows each row as a strip.
import {computed, nextTick, onUnmounted, reactive, shallowRef} from "/lib/vue.js";
import {get, loadEvent, newKey, post, untilKnown} from "./api.js";
import {alert, button, clockText, heading, html, loading, money, seatName, secondsUntil, spoken, usePolling, useAction, waiting, when} from "./ui.js";

const REFRESH_MS = 2000;
const ROWS_OF_A_SMALL_HALL = 8;
const STATUS = {AVAILABLE: "free", HELD: "held", SOLD: "sold", CHECKED_IN: "sold", OWN: "own"};
const LEGEND = {free: "free", "free chosen": "selected", own: "held for you", held: "held by somebody else", sold: "sold"};
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
    let known; // the answer of the API that the page shows
    const [state, refresh] = usePolling(async () => {
      const found = await loadEvent(props.given[0]);
      if (found === known) return;
      const orders = new Map((await get("/api/orders?per_page=50")).filter(each => each.status === "PENDING").map(each => [each.seat_id, each]));
      const mark = each => (each.status === "HELD" && orders.has(each.seat_id) ? {...each, status: "OWN", order: orders.get(each.seat_id)} : each);
      event.value = {...found, seats: found.seats.map(mark)};
      known = found;
    }, REFRESH_MS);
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
    const choose = id => {
      reserving.error = "";
      const {order} = event.value.seats.find(each => each.seat_id === id);
      if (order) location.hash = `#/orders/${order.order_id}`;
      else chosen.seat = id;
    };
    const close = () => {
      const from = document.querySelector(".strip[aria-expanded=true], [data-seat][aria-pressed=true]");
      Object.assign(chosen, {row: null, seat: null});
      from?.focus();
    };
    const closeByKey = ({key}) => { if (key === "Escape") close(); };
    addEventListener("keydown", closeByKey);
    onUnmounted(() => removeEventListener("keydown", closeByKey));

    return () => html`
      ${heading(event.value?.name ?? "Choose a seat")}
      ${event.value && html`<p class="muted">${when(event.value.event_date)} · ${event.value.venue.name} · ${event.value.hall_id}</p>`}
      ${loading(state)}
      ${event.value?.seats.filter(each => each.order).map(each => html`<${Held} key=${each.order.order_id} seat=${each} />`)}
      ${event.value && html`
        <div class="chips" role="group" aria-label="Category">${listCategories(event.value, rows.value).map(each => html`
          <button key=${each.name} class=${`chip ${each.name}`} aria-pressed=${chosen.category === each.name}
            onClick=${() => { chosen.category = each.name; }}>
            ${each.name || "All"}${each.price && html` <b>${Number(each.price)}</b>`}<small>${each.free.toLocaleString("en-SG")} free</small></button>`)}</div>
        <p class="legend" aria-hidden="true">${Object.entries(LEGEND).map(([look, text]) => html`<span><i class=${look}></i> ${text}</span>`)}</p>
        <div class="stage" aria-hidden="true">Stage</div>
        ${isSmall.value
          ? shown.value.map(row => showRow(row, chosen.seat, choose))
          : html`<div class="strips">${shown.value.map(row => showStrip(row, chosen.row, openOne))}</div>`}
        ${(seat.value || openRow.value) && html`<section class="sheet" aria-label="Your choice">
          ${openRow.value && showRow(openRow.value, chosen.seat, choose)}
          ${alert(reserving.error)}${waiting(reserving, "No answer yet. Checking whether the seat is yours…")}
          <div class="row spread"><p aria-live="polite"><b>${seat.value ? seatName(seat.value) : "Choose a seat of this row."}</b>
            <span class="muted">${seat.value && ` · ${seat.value.category} · ${money(seat.value.price)} credits`}</span></p>
            <div class="row"><button class="plain" onClick=${close}>Close</button>
              ${seat.value && button("Reserve this seat", reserving, {onClick: reserve})}</div></div>
        </section>`}`}`;
  },
};

const Held = {
  props: ["seat"],
  setup: ({seat}) => () => secondsUntil(seat.order.expires_at) > 0 && html`
    <p class="notice row spread"><span>${seatName(seat)} is held for you: <b>${clockText(secondsUntil(seat.order.expires_at))}</b></span>
      <a class="button" href=${`#/orders/${seat.order.order_id}`}>Go to the checkout</a></p>`,
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
        <button key=${seat.seat_id} class=${STATUS[seat.status]} disabled=${!["AVAILABLE", "OWN"].includes(seat.status)} onClick=${() => choose(seat.seat_id)}
          tabindex=${seat.seat_id === entry ? 0 : -1} aria-pressed=${seat.seat_id === chosenId} data-seat=${seat.seat_id}
          aria-label=${`Row ${row.name}, seat ${seat.seat_number}, ${LEGEND[STATUS[seat.status]]}`}>${seat.seat_number}</button>`)}</div>
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
