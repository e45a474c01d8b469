// One ticket with its QR code, which is renewed before it expires, and the sale to another customer.
import {computed, reactive, shallowRef} from "/lib/vue.js";
import encodeQR from "/lib/qr/index.js";
import {get, keyedPost, session} from "./api.js";
import {alert, button, Copy, field, form, heading, html, idField, loading, member, money, note, seatName, secondsUntil, useAction, usePolling, waiting,
  when} from "./ui.js";

const RENEW_MS = 45_000; // a code is valid for 60 s
const REFRESH_MS = 2000;
const BORDER = 3;
const OPEN = ["INITIATED", "PENDING_OTP"]; // statuses of a sale that has not ended

export default {
  props: ["given"],
  setup(props) {
    const seatId = props.given[0];
    const ticket = shallowRef(null), sale = shallowRef(null), code = shallowRef(null), ending = shallowRef("");
    const [state] = usePolling(async () => {
      const [{purchased}, transfers] = await Promise.all([get("/api/tickets"), get("/api/transfers?per_page=50")]);
      const found = purchased.find(each => each.seat_id === seatId);
      sale.value = transfers.find(each => each.seat_id === seatId && each.seller_user_id === session.user?.user_id && OPEN.includes(each.status));
      if (found?.status === "CHECKED_IN") ending.value = "This ticket was used at the gate.";
      else if (ticket.value && !found) ending.value = "This ticket is no longer yours.";
      ticket.value = found ?? ticket.value;
    }, REFRESH_MS);
    const [renewing] = usePolling(async () => {
      try {
        code.value = await get(`/api/tickets/${seatId}/qr`);
      } catch (error) {
        if (!["NOT_SEAT_OWNER", "SEAT_UNAVAILABLE"].includes(error.code)) throw error;
        ending.value = error.message; // the ticket is sold or used, so it has no code any more
      }
    }, RENEW_MS, () => !ending.value);
    const left = computed(() => (code.value && !ending.value ? secondsUntil(code.value.expires_at) : 0));
    return () => html`
      <div class="narrow">
        ${heading(ticket.value?.event.name ?? "Ticket")}
        ${loading(state)}
        ${ticket.value && html`<p class="muted">${when(ticket.value.event.event_date)} · ${ticket.value.event.hall_id}</p>`}
        <section class="card center">
          ${ticket.value && html`<p class="place">${seatName(ticket.value)}</p>`}
          ${left.value > 0 && html`<${QrCode} text=${code.value.qr_payload} label=${`QR code of ${seatName(ticket.value)}`} />
            <p class="muted small">Show this code at the gate. It renews itself in ${Math.max(1, left.value - 15)} s.</p>
            <details><summary>Show the code as text</summary><${Copy} label="Code" text=${code.value.qr_payload} /></details>`}
          ${alert(!state.error && renewing.error)}${note(ending.value, "warn")}
        </section>
        ${!ending.value && ticket.value && (sale.value
          ? html`<section class="card"><h2>Sale for ${money(sale.value.credits_amount)} credits</h2>
              <p>${sale.value.initiated_by === "BUYER" ? "A buyer requested this ticket" : "You offered this ticket"}: ${member(sale.value.buyer_user_id)}.</p>
              <p><a class="button" href="#/transfers">Open the transfer</a></p></section>`
          : html`<${Sale} ticket=${ticket.value} />`)}
      </div>`;
  },
};

/** A QR code as one SVG path, black on white in dark mode too, because scanners expect it. */
export const QrCode = {
  props: ["text", "label"],
  setup(props) {
    const grid = computed(() => encodeQR(props.text, "raw", {ecc: "medium", border: BORDER}));
    const path = computed(() => grid.value.map((line, y) => line.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : "")).join("")).join(""));
    return () => html`
      <svg class="qr" role="img" aria-label=${props.label} viewBox=${`0 0 ${grid.value.length} ${grid.value.length}`} shape-rendering="crispEdges">
        <path fill="#fff" d=${`M0 0h${grid.value.length}v${grid.value.length}H0z`} /><path fill="#000" d=${path.value} /></svg>`;
  },
};

const Sale = {
  props: ["ticket"],
  setup(props) {
    const me = session.user.user_id;
    const given = reactive({buyer: "", price: String(props.ticket.price)});
    const initiate = keyedPost("/api/transfer/initiate");
    const [state, sell] = useAction(async () => {
      const body = {seat_id: props.ticket.seat_id, seller_user_id: me, buyer_user_id: given.buyer.trim(), credits_amount: Number(given.price)};
      await initiate(body, state.wait);
      location.hash = "#/transfers";
    });
    const link = () => `${location.origin}/#/request/${props.ticket.seat_id}/${me}/${Number(given.price) || 0}`;
    return () => html`
      <details class="card"><summary><h2>Sell this ticket</h2></summary>
        ${form(sell,
          field("Price in credits", given, "price", {type: "number", min: 0.01, step: 0.01, required: true, inputmode: "decimal"}),
          html`<p class="muted small">Send the buyer a link. They can request the ticket for this price.</p>`,
          html`<${Copy} label="Link for the buyer" text=${link()} />`,
          html`<p class="muted small">Or enter the buyer’s member number, which is on their page <i>Transfers</i>.</p>`,
          idField("Member number of the buyer", given, "buyer"),
          note("You and the buyer each get a code by SMS. The ticket changes its owner when both codes are entered."),
          alert(state.error), waiting(state, "No answer yet. Checking whether the transfer has started…"),
          button("Offer the ticket", state))}
      </details>`;
  },
};
