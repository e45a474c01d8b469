// A buyer requests the ticket of a seller, who sent them this link.
import {reactive, shallowRef} from "/lib/vue.js";
import {findPlace, keyedPost, session} from "./api.js";
import {alert, button, field, form, heading, html, loading, member, money, note, seatName, useAction, usePolling, waiting, when} from "./ui.js";

export default {
  props: ["given"],
  setup(props) {
    const [seatId, sellerId, price] = props.given;
    const place = shallowRef(null), given = reactive({price});
    const initiate = keyedPost("/api/transfer/initiate");
    const [state] = usePolling(async () => { place.value = await findPlace(seatId); }, 0, () => false);
    const [requesting, request] = useAction(async () => {
      const body = {seat_id: seatId, seller_user_id: sellerId, buyer_user_id: session.user.user_id, credits_amount: Number(given.price)};
      await initiate(body, requesting.wait);
      location.hash = "#/transfers";
    });
    return () => html`
      <div class="narrow">
        ${heading("Request a ticket")}
        ${loading(state)}
        ${state.loaded && !place.value && alert("This link names no ticket of an event. Ask the seller for the whole link.")}
        ${place.value && html`<section class="card">
          <h2>${place.value.event.name}</h2>
          <p class="muted">${when(place.value.event.event_date)} · ${place.value.event.hall_id}</p>
          <dl><dt>Seat</dt><dd>${seatName(place.value)}</dd><dt>Box-office price</dt><dd>${money(place.value.price)} credits</dd>
            <dt>Seller</dt><dd>${member(sellerId)}</dd><dt>Your credits</dt><dd>${money(session.user.credit_balance)}</dd></dl>
          ${form(request,
            field("Price in credits", given, "price", {type: "number", min: 0.01, step: 0.01, required: true, inputmode: "decimal"}),
            note("You and the seller each get a code by SMS. The credits move when both codes are entered."),
            alert(requesting.error), waiting(requesting, "No answer yet. Checking whether the transfer has started…"),
            button("Request the ticket", requesting))}
        </section>`}
      </div>`;
  },
};
