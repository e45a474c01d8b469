// The balance, and the top-up by card with Stripe.js. The page works with Stripe and with the stand-in of fakes/stripe.
import {nextTick, reactive, ref} from "/lib/vue.js";
import config from "/config.js";
import {keyedPost, loadBalance, problem, session} from "./api.js";
import {alert, button, Copy, field, form, heading, html, loading, money, note, useAction, usePolling, waiting} from "./ui.js";

const REFRESH_MS = 3000, CREDITED_SECONDS = 20;
const SUGGESTED = [50, 100, 500];
let stripe; // a promise of the Stripe object

function loadStripe() {
  return stripe ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), {src: config.stripeJs});
    script.onload = () => resolve(window.Stripe(config.stripeKey));
    script.onerror = () => { stripe = null; script.remove(); reject(problem("The card form could not be loaded. Check your connection and try again.")); };
    document.head.append(script);
  });
}

export default {
  setup() {
    const given = reactive({amount: "100", step: "amount"}), frame = ref(null);
    const topUp = keyedPost("/api/credits/topup");
    let elements;
    const [state] = usePolling(loadBalance, REFRESH_MS);
    const [starting, start] = useAction(async () => {
      const intent = await topUp({amount: Number(given.amount)}, starting.wait);
      const made = await loadStripe();
      given.step = "card";
      await nextTick();
      const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "night" : "stripe";
      elements = made.elements({clientSecret: intent.client_secret, appearance: {theme}});
      elements.create("payment").mount(frame.value);
    });
    const [paying, pay] = useAction(async () => {
      const before = session.user.credit_balance;
      const {error, paymentIntent} = await (await stripe).confirmPayment({elements, redirect: "if_required", confirmParams: {return_url: location.href}});
      if (error) throw problem(error.message);
      given.step = paymentIntent.status === "succeeded" ? "paid" : "processing";
      for (let second = 0; second < CREDITED_SECONDS && session.user?.credit_balance === before; second++) {
        await new Promise(resolve => setTimeout(resolve, 1000));
        await loadBalance().catch(() => {}); // the next second tries again
      }
      if (session.user && session.user.credit_balance !== before) given.step = "credited";
    });
    const back = () => { given.step = "amount"; paying.error = ""; };

    const steps = {
      amount: () => form(start, html`<h2>Top up</h2>`,
        html`<div class="chips" role="group" aria-label="Amount">${SUGGESTED.map(amount => html`
          <button type="button" key=${amount} class="chip" aria-pressed=${Number(given.amount) === amount} onClick=${() => { given.amount = String(amount); }}>${amount}</button>`)}</div>`,
        field("Amount in SGD (1 credit = 1 SGD)", given, "amount", {type: "number", min: 0.5, max: 10000, step: 0.01, required: true, inputmode: "decimal"}),
        alert(starting.error), waiting(starting, "No answer yet. Checking the payment…"), button("Continue to the card", starting)),
      card: () => form(pay, html`<h2>Pay ${money(given.amount)} SGD by card</h2>`, html`<div class="stripe" ref=${frame}></div>`, alert(paying.error),
        html`<div class="row">${button(`Pay ${money(given.amount)} SGD`, paying)}<button type="button" class="plain" disabled=${paying.busy} onClick=${back}>Change the amount</button></div>`),
      paid: () => note("Paid. The credits arrive as soon as Stripe reports the payment…"),
      processing: () => note("Your bank is still processing the payment. The credits arrive when it is done."),
      credited: () => [note(`You have ${money(session.user.credit_balance)} credits now.`, "good"), html`<button class="plain" onClick=${back}>Top up again</button>`],
    };
    return () => html`
      <div class="narrow">
        ${heading("Credits")}
        ${loading(state)}
        <section class="card center"><p class="figure">${money(session.user?.credit_balance)}</p><p class="muted">credits to spend</p>
          ${session.user?.frozen_credits > 0 && html`<p>${money(session.user.frozen_credits)} more are frozen by a transfer or a dispute.</p>`}</section>
        <section class="card">${steps[given.step]()}</section>
        <section class="card"><${Copy} label="Your member number" text=${session.user?.user_id} /></section>
      </div>`;
  },
};
