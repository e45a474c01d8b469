// One order: the countdown of the hold, the code of a flagged purchase, the payment and its result.
import {reactive, shallowRef} from "/lib/vue.js";
import {findPlace, get, loadBalance, post, session, untilKnown} from "./api.js";
import {alert, button, clockText, codeField, Copy, form, heading, html, loading, money, note, seatName, secondsUntil, useAction, usePolling,
  waiting, when} from "./ui.js";

const REFRESH_MS = 2000;
const TITLES = {CONFIRMED: "Your purchase", FAILED: "Not bought", REFUNDED: "Refunded"};
const SPOKEN_SECONDS = [120, 60, 30, 10, 0]; // a screen reader hears only these

export default {
  props: ["given"],
  setup(props) {
    const path = `/api/orders/${props.given[0]}`;
    const order = shallowRef(null), place = shallowRef(null), given = reactive({code: ""});
    const read = async () => { order.value = await get(path); return order.value; };
    const [state, refresh] = usePolling(async () => {
      await read();
      place.value ??= await findPlace(order.value.seat_id, order.value.event_id);
    }, REFRESH_MS, () => order.value?.status === "PENDING");

    const [verifying, verify] = useAction(async () => {
      const body = {order_id: props.given[0], otp_code: given.code.trim()};
      const isVerified = async () => (await read()).otp_verified || undefined;
      await untilKnown(() => post("/api/verify-otp", body), {lookUp: isVerified, onWait: verifying.wait}).finally(refresh);
    });
    const [sending, resend] = useAction(async () => { verifying.error = ""; await post("/api/otp/resend", {order_id: props.given[0]}); sending.done = true; });
    const [paying, pay] = useAction(async () => {
      const isPaid = async () => (await read()).status === "CONFIRMED" || undefined;
      await untilKnown(() => post("/api/pay", {order_id: props.given[0]}), {lookUp: isPaid, onWait: paying.wait}).finally(refresh);
      await Promise.all([read(), loadBalance()]);
    });

    const steps = () => {
      const left = secondsUntil(order.value.expires_at), price = order.value.credits_charged;
      if (!left) return [note("The hold has expired. Nothing was charged. Reserve the seat again if it is still free.", "warn"), again()];
      const missing = price - session.user.credit_balance;
      return [
        html`<p class=${left <= 30 ? "timer urgent" : "timer"} role="timer"><span>This seat is held for you</span><b>${clockText(left)}</b></p>`,
        html`<p class="spoken" aria-live="assertive">${SPOKEN_SECONDS.includes(left) ? `${left} seconds left` : ""}</p>`,
        order.value.otp_required && !order.value.otp_verified
          ? form(verify, html`<p>We sent a code to your phone. Enter it before you pay.</p>`, codeField("Code from the SMS", given, "code"),
            alert(verifying.error), waiting(verifying, "No answer yet. Checking the code…"), alert(sending.error),
            sending.done && note("A new code is on its way."),
            html`<div class="row">${button("Verify the code", verifying)}
              <button type="button" class="plain" disabled=${sending.busy} onClick=${resend}>Send a new code</button></div>`)
          : [missing > 0 && html`<p id="short">You have ${money(session.user.credit_balance)} credits, which is not enough.${" "}
              <a href="#/credits">Top up ${money(missing)} credits</a> and come back to this order.</p>`,
            alert(paying.error), waiting(paying, "No answer yet. Checking whether the payment was made…"),
            button(`Pay ${money(price)} credits`, paying, {onClick: pay, class: "primary wide", disabled: missing > 0, "aria-describedby": "short"})],
      ];
    };
    const again = () => html`<p><a class="button" href=${`#/events/${order.value.event_id}`}>Choose a seat</a></p>`;
    const results = {
      CONFIRMED: () => [note("Paid. The ticket is yours.", "good"),
        html`<p><a class="button wide" href=${`#/tickets/${order.value.seat_id}`}>Show the ticket</a></p>`,
        html`<${Copy} label="Order number, for support" text=${order.value.order_id} />`],
      FAILED: () => [note("This order has ended without a purchase. Nothing was charged.", "warn"), again()],
      REFUNDED: () => [note("This order was refunded.")],
      PENDING: steps,
    };
    return () => html`
      <div class="narrow">
        ${heading(TITLES[order.value?.status] ?? (order.value && !secondsUntil(order.value.expires_at) ? "Hold expired" : "Checkout"))}
        ${loading(state)}
        ${order.value && html`<section class="card">
          <h2>${place.value?.event.name}</h2>
          <p class="muted">${place.value && `${when(place.value.event.event_date)} · ${place.value.event.hall_id}`}</p>
          <dl><dt>Seat</dt><dd>${seatName(place.value)}</dd><dt>Category</dt><dd>${place.value?.category}</dd>
            <dt>Price</dt><dd>${money(order.value.credits_charged)} credits</dd></dl>
          ${results[order.value.status]()}
        </section>`}
      </div>`;
  },
};
