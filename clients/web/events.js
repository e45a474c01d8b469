// The upcoming events, earliest first.
import {ref} from "/lib/vue.js";
import {listEvents, session} from "./api.js";
import {heading, html, loading, money, usePolling, when} from "./ui.js";

const REFRESH_MS = 10_000;

export default {
  setup() {
    const events = ref([]);
    const [state] = usePolling(async () => { events.value = await listEvents(); }, REFRESH_MS);
    return () => html`
      ${heading("Events")}
      ${loading(state)}
      ${state.loaded && !events.value.length && html`<p>There are no upcoming events.</p>`}
      <ul class="cards">${events.value.map(event => html`
        <li key=${event.event_id} class="card event">
          <p class="muted small">${when(event.event_date)} · ${event.hall_id}</p>
          <h2>${event.name}</h2>
          <p class="muted">${event.venue.name}</p>
          <p class="prices">${Object.entries(event.pricing_tiers).map(([name, price]) => html`
            <span key=${name} class=${`tier ${name}`}>${name} <b>${money(price)}</b></span>`)}</p>
          <p class="row spread"><span><b>${event.available_seats}</b> of ${event.total_seats} seats are free</span>
            ${session.user?.role === "customer" && html`
              <a class="button" href=${`#/events/${event.event_id}`} aria-label=${`Choose a seat for ${event.name}`}>Choose a seat</a>`}</p>
        </li>`)}</ul>`;
  },
};
