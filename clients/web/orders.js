// The orders of the customer, newest first. An unpaid order leads back to the checkout.
import {shallowRef} from "/lib/vue.js";
import {findPlace, get} from "./api.js";
import {badge, heading, html, loading, money, seatName, secondsUntil, usePolling, when} from "./ui.js";

const REFRESH_MS = 5000;
export const ORDER_STATUS = {
  PENDING: ["Waits for payment", "warn"], CONFIRMED: ["Paid", "good"], FAILED: ["Not bought", ""], REFUNDED: ["Refunded", "info"],
};

export default {
  setup() {
    const orders = shallowRef([]);
    const [state] = usePolling(async () => {
      const found = await get("/api/orders?per_page=50");
      orders.value = await Promise.all(found.map(async order => ({...order, place: await findPlace(order.seat_id, order.event_id)})));
    }, REFRESH_MS);
    return () => html`
      ${heading("My orders")}
      ${loading(state)}
      ${state.loaded && !orders.value.length && html`<p>You have no orders yet. <a href="#/events">Choose an event.</a></p>`}
      <ul class="plainlist">${orders.value.map(order => html`
        <li key=${order.order_id} class="card line">
          <div><b>${order.place?.event.name}</b><br />
            <span class="muted">${seatName(order.place)} · ${money(order.credits_charged)} credits · ${when(order.created_at)}</span></div>
          <div class="row">${badge(...ORDER_STATUS[order.status])}
            ${order.status === "PENDING" && secondsUntil(order.expires_at) > 0 && html`<a class="button" href=${`#/orders/${order.order_id}`}>Pay</a>`}
            ${order.status === "CONFIRMED" && html`<a href=${`#/orders/${order.order_id}`}>Details</a>`}</div>
        </li>`)}</ul>`;
  },
};
