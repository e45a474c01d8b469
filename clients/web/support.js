// Support: find an order or a transfer, see the consequences of a decision, then take it.
import {reactive, shallowRef} from "/lib/vue.js";
import {findPlace, get, post, untilKnown} from "./api.js";
import {ORDER_STATUS} from "./orders.js";
import {TRANSFER_STATUS} from "./transfers.js";
import {alert, badge, button, Confirm, form, heading, html, idField, loading, member, money, note, seatName, shortId, useAction, usePolling, when} from "./ui.js";

const REFRESH_MS = 5000;

export default {
  setup() {
    const disputes = shallowRef([]), records = shallowRef([]), found = shallowRef(null), given = reactive({id: ""});
    const withPlace = async record => ({...record, place: await findPlace(record.seat_id, record.event_id).catch(() => null)});
    const [state, refresh] = usePolling(async () => {
      disputes.value = await Promise.all((await get("/api/transfers?per_page=50")).map(withPlace));
      records.value = await get("/api/audit?per_page=10");
    }, REFRESH_MS);
    const [finding, find] = useAction(async () => {
      const id = encodeURIComponent(given.id.trim());
      found.value = null;
      const order = await get(`/api/orders/${id}`).catch(error => { if (error.code !== "ORDER_NOT_FOUND") throw error; });
      found.value = await withPlace(order ?? await get(`/api/transfers/${id}`));
    });
    const again = () => { refresh(); if (found.value) find(); };
    const show = record => html`<${Decision} key=${record.order_id ?? record.transfer_id} record=${record} refresh=${again} />`;
    return () => html`
      <div class="narrow">
        ${heading("Support")}
        <section class="card">${form(find,
          idField("Number of an order or a transfer", given, "id"),
          alert(finding.error), button("Find", finding))}</section>
        ${found.value && show(found.value)}
        <h2>Open disputes</h2>
        ${loading(state)}
        ${state.loaded && !disputes.value.length && html`<p class="muted">There are no open disputes.</p>`}
        ${disputes.value.filter(each => each.transfer_id !== found.value?.transfer_id).map(show)}
        <h2>Last commands</h2>
        ${state.loaded && !records.value.length && html`<p class="muted">There are no commands yet.</p>`}
        ${records.value.length > 0 && html`<ul class="card">${records.value.map(each => html`<li key=${each.audit_id}>${when(each.at)}: ${each.action}
          of ${shortId(each.subject)} by ${each.operator ?? member(each.staff_id)}, ${each.outcome}</li>`)}</ul>`}
      </div>`;
  },
};

const Decision = {
  props: ["record", "refresh"],
  setup(props) {
    const given = reactive({dialog: ""});
    const {order_id, transfer_id} = props.record, isOrder = Boolean(order_id);
    const step = (path, body, status) => {
      const [state, go] = useAction(async () => {
        const read = () => get(isOrder ? `/api/orders/${order_id}` : `/api/transfers/${transfer_id}`);
        const isDone = async () => ((await read()).status === status) || undefined;
        await untilKnown(() => post(path, body), {lookUp: isDone, onWait: state.wait}).finally(props.refresh);
        return true;
      });
      return [state, go];
    };
    const steps = {
      refund: step(`/api/orders/${order_id}/refund`, {}, "REFUNDED"),
      reverse: step("/api/transfer/reverse", {transfer_id}, "REVERSED"),
      dismiss: step("/api/transfer/dismiss", {transfer_id}, "COMPLETED"),
    };
    const price = () => money(isOrder ? props.record.credits_charged : props.record.credits_amount);
    const texts = {
      refund: ["Refund this order?", `Refund`, () => [`The buyer gets ${price()} credits back.`, "The seat becomes free, and anybody can buy it.",
        "The ticket’s QR code stops working.", "This cannot be undone. It is refused if the ticket was sold on or used."]],
      reverse: ["Reverse this transfer?", "Reverse", () => [`The buyer gets ${price()} credits back from the seller, of which ${money(props.record.credits_frozen)} are frozen.`,
        "The seller owns the ticket again.", "It is refused if the seller does not have all of the credits. Then nothing changes."]],
      dismiss: ["Dismiss this dispute?", "Dismiss", () => [`The seller can spend the ${money(props.record.credits_frozen)} frozen credits again.`, "The buyer keeps the ticket.",
        "The transfer is completed as before."]],
    };
    const possible = () => (isOrder ? (props.record.status === "CONFIRMED" ? ["refund"] : []) : props.record.status === "DISPUTED" ? ["reverse", "dismiss"] : []);
    return () => html`
      <article class="card" aria-label=${isOrder ? "Order" : "Transfer"}>
        <div class="row spread"><h2>${isOrder ? "Order" : "Transfer"} ${shortId(order_id ?? transfer_id)}</h2>
          ${badge(...(isOrder ? ORDER_STATUS : TRANSFER_STATUS)[props.record.status])}</div>
        <dl><dt>Seat</dt><dd>${seatName(props.record.place)}, ${props.record.place?.event.name}</dd><dt>Price</dt><dd>${price()} credits</dd>
          ${!isOrder && html`<dt>Seller</dt><dd>${member(props.record.seller_user_id)}</dd><dt>Buyer</dt><dd>${member(props.record.buyer_user_id)}</dd>`}
          <dt>Date</dt><dd>${when(props.record.created_at)}</dd></dl>
        ${props.record.dispute_reason && note(`Reason of the dispute: ${props.record.dispute_reason}`, "warn")}
        ${!possible().length && html`<p class="muted">There is nothing to decide in this status.</p>`}
        <div class="row">${possible().map(name => html`<button key=${name} onClick=${() => { given.dialog = name; }}>${texts[name][1]}…</button>`)}</div>
        ${possible().map(name => html`
          <${Confirm} key=${name} open=${given.dialog === name} close=${() => { given.dialog = ""; }} title=${texts[name][0]} action=${texts[name][1]}
            state=${steps[name][0]} go=${steps[name][1]} body=${() => html`<ul>${texts[name][2]().map(line => html`<li>${line}</li>`)}</ul>`} />`)}
      </article>`;
  },
};
