// The tickets that the customer owns, and those that they sold.
import {shallowRef} from "/lib/vue.js";
import {get} from "./api.js";
import {badge, heading, html, loading, money, seatName, usePolling, when} from "./ui.js";

const REFRESH_MS = 5000;

export default {
  setup() {
    const found = shallowRef({purchased: [], sold: []});
    const [state] = usePolling(async () => { found.value = await get("/api/tickets"); }, REFRESH_MS);
    const line = ticket => html`<div><b>${ticket.event.name}</b><br />
      <span class="muted">${seatName(ticket)} · ${ticket.event.hall_id} · ${when(ticket.event.event_date)}</span></div>`;
    return () => html`
      ${heading("My tickets")}
      ${loading(state)}
      ${state.loaded && !found.value.purchased.length && html`<p>You have no tickets yet. <a href="#/events">Choose an event.</a></p>`}
      <ul class="plainlist">${found.value.purchased.map(ticket => html`
        <li key=${ticket.seat_id} class="card line stub">${line(ticket)}
          <div class="row">${ticket.status === "SOLD"
            ? html`<a class="button" href=${`#/tickets/${ticket.seat_id}`} aria-label=${`Show the ticket of ${seatName(ticket)}`}>Show</a>`
            : badge("Used", "info")}</div></li>`)}</ul>
      ${found.value.sold.length > 0 && html`<h2>Sold</h2>
        <ul class="plainlist">${found.value.sold.map(ticket => html`
          <li key=${ticket.transfer_id} class="card line">${line(ticket)}
            <span>${badge(ticket.status === "DISPUTED" ? "In dispute" : "Sold", ticket.status === "DISPUTED" ? "warn" : "")} ${money(ticket.price)} credits</span></li>`)}</ul>`}`;
  },
};
