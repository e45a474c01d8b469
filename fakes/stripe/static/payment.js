// The card form. It confirms the PaymentIntent with the card, and shows the step of 3-D Secure if the bank requires it.
const $ = id => document.getElementById(id);
const form = $("card");
const cards = await (await fetch("/elements/cards")).json();

document.documentElement.className = location.hash.slice(1);
for (const {number, outcome} of cards) {
  const button = document.createElement("button"), text = document.createElement("span");
  button.type = "button";
  text.textContent = outcome;
  button.append(space(number), text);
  button.onclick = () => {
    form.number.value = space(number);
    form.expiry.value = `12 / ${String(new Date().getFullYear() + 1).slice(2)}`;
    form.cvc.value = "123";
  };
  $("cards").append(button);
}
form.number.oninput = () => { form.number.value = space(form.number.value.replace(/\D/g, "")); };
form.expiry.oninput = () => {
  const digits = form.expiry.value.replace(/\D/g, "").slice(0, 4);
  form.expiry.value = digits.length > 2 ? `${digits.slice(0, 2)} / ${digits.slice(2)}` : digits;
};

function space(number) { return number.replace(/(.{4})(?=.)/g, "$1 "); }

/** The reason why the form is not complete, as Stripe words it, or "". */
function findMistake(number) {
  const [month, year] = form.expiry.value.split(/\D+/).map(Number);
  const end = new Date(2000 + year, month, 1);
  if (number.length < 12) return "Your card number is incomplete.";
  if (!isLuhn(number)) return "Your card number is invalid.";
  if (!(month >= 1 && month <= 12) || Number.isNaN(end.getTime())) return "Your card's expiration date is incomplete.";
  if (end <= new Date()) return "Your card's expiration year is in the past.";
  return /^\d{3,4}$/.test(form.cvc.value) ? "" : "Your card's security code is incomplete.";
}

function isLuhn(number) {
  const sum = [...number].reverse().map(Number).reduce((total, digit, at) => total + (at % 2 ? (digit * 2) % 10 + (digit > 4) : digit), 0);
  return sum % 10 === 0;
}

async function post(path, key, fields) {
  const answer = await fetch(path, {method: "POST", headers: {Authorization: `Bearer ${key}`}, body: new URLSearchParams(fields)});
  const body = await answer.json();
  return answer.ok ? {paymentIntent: body} : {error: body.error};
}

async function confirm(key, clientSecret) {
  const number = form.number.value.replace(/\D/g, ""), mistake = findMistake(number);
  if (mistake) return {error: {type: "validation_error", message: mistake}};
  const method = cards.find(card => card.number === number)?.method;
  if (!method) return {error: {type: "card_error", code: "card_declined", message: "This stand-in for Stripe accepts only its test cards."}};
  const intent = clientSecret.split("_secret_")[0];
  const done = await post(`/v1/payment_intents/${intent}/confirm`, key, {payment_method: method, client_secret: clientSecret});
  if (done.paymentIntent?.status !== "requires_action") return done;
  const passed = await askBank(done.paymentIntent);
  const answer = await post("/elements/authenticate", key, {payment_intent: intent, client_secret: clientSecret, passed});
  const failure = answer.paymentIntent?.last_payment_error;
  return failure ? {error: failure} : answer;
}

async function askBank({amount, currency}) {
  $("amount").textContent = `${(amount / 100).toFixed(2)} ${currency.toUpperCase()}`;
  form.hidden = !($("bank").hidden = false);
  $("approve").focus();
  const passed = await new Promise(resolve => {
    $("approve").onclick = () => resolve(true);
    $("refuse").onclick = () => resolve(false);
  });
  form.hidden = !($("bank").hidden = true);
  return passed;
}

addEventListener("message", async ({data, ports, source}) => {
  if (source !== parent || !data.confirm) return;
  const failed = error => ({error: {type: "api_connection_error", message: `Stripe did not answer: ${error.message}`}});
  ports[0].postMessage(await confirm(data.key, data.confirm).catch(failed));
});
new ResizeObserver(() => parent.postMessage({height: Math.ceil(document.body.getBoundingClientRect().height)}, "*")).observe(document.body);
parent.postMessage({ready: true}, "*");
