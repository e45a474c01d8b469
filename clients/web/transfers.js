// The transfers in which the customer sells or buys. Each card shows the next step and updates by itself.
import {reactive, shallowRef, watch} from "/lib/vue.js";
import {findPlace, get, loadBalance, post, session, untilKnown} from "./api.js";
import {alert, badge, button, clockText, codeField, Confirm, Copy, field, form, heading, html, loading, member, money, note, seatName, secondsUntil, shortId,
  useAction, usePolling, waiting} from "./ui.js";

const REFRESH_MS = 2000;
export const TRANSFER_STATUS = {
  INITIATED: ["Being prepared", ""], PENDING_OTP: ["Waits for codes", "warn"], COMPLETED: ["Completed", "good"],
  DISPUTED: ["In dispute", "warn"], REVERSED: ["Reversed", "info"], FAILED: ["Ended", ""],
};

export default {
  setup() {
    const transfers = shallowRef([]);
    const [state, refresh] = usePolling(async () => {
      const [found, {purchased}] = await Promise.all([get("/api/transfers?per_page=50"), get("/api/tickets")]);
      const unused = new Set(purchased.filter(each => each.status === "SOLD").map(each => each.seat_id));
      transfers.value = await Promise.all(found.map(async each => ({...each, place: await findPlace(each.seat_id), isUnused: unused.has(each.seat_id)})));
    }, REFRESH_MS);
    watch(() => transfers.value.map(each => each.status).join(), () => loadBalance().catch(() => {})); // the top bar reads it again soon
    return () => html`
      ${heading("Transfers")}
      ${loading(state)}
      ${state.loaded && !transfers.value.length && html`<p>You have no transfers. To sell a ticket, open it under <a href="#/tickets">Tickets</a>.
        To buy one, open the link of its seller, or tell the seller your member number.</p>`}
      <ul class="plainlist">${transfers.value.map(each => html`
        <li key=${each.transfer_id}><${Transfer} transfer=${each} refresh=${refresh} /></li>`)}</ul>
      <section class="card"><${Copy} label="Your member number, for sellers" text=${session.user.user_id} /></section>`;
  },
};

const Transfer = {
  props: ["transfer", "refresh"],
  setup(props) {
    const isSeller = props.transfer.seller_user_id === session.user.user_id;
    const [own, other] = isSeller ? ["seller", "buyer"] : ["buyer", "seller"];
    const given = reactive({code: "", reason: "", dialog: ""});
    const transfer_id = props.transfer.transfer_id;
    const find = async () => (await get("/api/transfers?per_page=50")).find(each => each.transfer_id === transfer_id);
    /** Send a step that is safe to repeat, and look for its effect if the reply is lost. */
    const step = (path, body, isDone) => {
      const [state, go] = useAction(async () => {
        const lookUp = async () => isDone(await find()) || undefined;
        await untilKnown(() => post(path, {transfer_id, ...body()}), {lookUp, onWait: state.wait}).finally(props.refresh);
        await loadBalance();
        return true;
      });
      return [state, go];
    };
    const [confirming, confirm] = step("/api/transfer/confirm", () => ({[`${own}_otp`]: given.code.trim()}), found => found[`${own}_otp_verified`]);
    const [cancelling, cancel] = step("/api/transfer/cancel", () => ({}), found => found.status === "FAILED");
    const [disputing, dispute] = step("/api/transfer/dispute", () => ({reason: given.reason}), found => found.status === "DISPUTED");
    const [sending, resend] = useAction(async () => { confirming.error = ""; await post("/api/otp/resend", {transfer_id}); sending.done = true; });
    const ask = name => () => { given.dialog = name; };

    const steps = {
      INITIATED: () => note("The codes are on their way."),
      PENDING_OTP: () => [
        html`<p class="muted">Both codes must be entered within <b>${clockText(secondsUntil(props.transfer.expires_at))}</b>.</p>`,
        props.transfer[`${own}_otp_verified`]
          ? note(`Your code is verified. Waiting for the code of the ${other}…`)
          : form(confirm, codeField("Code from your SMS", given, "code"), alert(confirming.error || sending.error),
            waiting(confirming, "No answer yet. Checking the code…"), sending.done && note("A new code is on its way."),
            html`<div class="row">${button(isSeller ? "Confirm the sale" : "Confirm the purchase", confirming)}
              <button type="button" class="plain" disabled=${sending.busy} onClick=${resend}>Send a new code</button></div>`),
        html`<div><button class="plain" onClick=${ask("cancel")}>Cancel the transfer</button></div>`],
      COMPLETED: () => html`<p class="row spread"><span>${isSeller ? "You got the credits." : html`<a href=${`#/tickets/${props.transfer.seat_id}`}>Show the ticket</a>`}</span>
        ${!isSeller && props.transfer.isUnused && !props.transfer.dispute_reason && html`<button class="plain" onClick=${ask("dispute")}>Dispute</button>`}</p>`,
      DISPUTED: () => note(`Staff decide about this dispute. ${money(props.transfer.credits_frozen)} credits of the seller are frozen. Reason: ${props.transfer.dispute_reason}`, "warn"),
      REVERSED: () => note("Staff reversed this transfer. The seller has the ticket and the buyer has the credits again."),
      FAILED: () => html`<p class="muted">This transfer ended. Ticket and credits stayed where they were.</p>`,
    };
    return () => html`
      <article class="card" aria-label=${`Transfer ${shortId(transfer_id)}`}>
        <div class="row spread"><h2>${isSeller ? "You sell" : "You buy"}: ${seatName(props.transfer.place)}</h2>${badge(...TRANSFER_STATUS[props.transfer.status])}</div>
        <p class="muted">${props.transfer.place?.event.name} · ${money(props.transfer.credits_amount)} credits ·${" "}
          ${isSeller ? "to" : "from"} ${member(props.transfer[`${other}_user_id`])}</p>
        ${steps[props.transfer.status]()}
        <details class="small"><summary>Transfer number, for support</summary><${Copy} label="Transfer number" text=${transfer_id} /></details>
        <${Confirm} open=${given.dialog === "cancel"} close=${ask("")} title="Cancel this transfer?" action="Cancel the transfer" go=${cancel} state=${cancelling}
          body=${() => html`<p>The ticket stays with the seller, and no credits move. The codes become useless.</p>`} />
        <${Confirm} open=${given.dialog === "dispute"} close=${ask("")} title="Dispute this transfer?" action="Start the dispute" go=${dispute} state=${disputing}
          body=${() => html`<p>The price is frozen in the seller’s account until staff decide. The ticket cannot be sold on meanwhile.</p>
            ${field("Reason", given, "reason", {required: true, maxlength: 1000})}`} />
      </article>`;
  },
};
