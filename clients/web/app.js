// The frame of the page: the navigation, and one page for each address after `#`.
import {createApp, nextTick, shallowReactive, watch} from "/lib/vue.js";
import {logOut, session} from "./api.js";
import Login from "./login.js";
import {alert, html, icon, money, spoken, useAction} from "./ui.js";

const PAGES = [ // [pattern of the address, module, title, roles]
  [/^events$/, "./events.js", "Events"],
  [/^events\/([\w-]+)$/, "./hall.js", "Choose a seat", ["customer"]],
  [/^tickets$/, "./tickets.js", "My tickets", ["customer"]],
  [/^tickets\/([\w-]+)$/, "./ticket.js", "Ticket", ["customer"]],
  [/^orders$/, "./orders.js", "My orders", ["customer"]],
  [/^orders\/([\w-]+)$/, "./checkout.js", "Checkout", ["customer"]],
  [/^transfers$/, "./transfers.js", "Transfers", ["customer"]],
  [/^request\/([\w-]+)\/([\w-]+)\/([\d.]+)$/, "./request.js", "Request a ticket", ["customer"]],
  [/^credits$/, "./credits.js", "Credits", ["customer"]],
  [/^gate$/, "./gate.js", "Gate", ["staff"]],
  [/^support$/, "./support.js", "Support", ["staff"]],
];
const TABS = {
  customer: [["events", "Events"], ["tickets", "Tickets"], ["orders", "Orders"], ["transfers", "Transfers"], ["credits", "Credits"]],
  staff: [["gate", "Gate"], ["support", "Support"]],
};

const view = shallowReactive({path: "", title: "", component: null, given: [], error: ""});

async function open() {
  const path = location.hash.replace(/^#\/?/, "");
  const role = session.user?.role;
  const found = PAGES.find(([pattern, , , roles = ["customer", "staff"]]) => pattern.test(path) && roles.includes(role));
  if (role && !found) return location.replace(`#/${TABS[role][0][0]}`);
  const [pattern, file, title] = found ?? [/^/, "", "Log in"];
  try {
    const component = role ? (await import(file)).default : Login;
    if (location.hash.replace(/^#\/?/, "") !== path) return;
    Object.assign(view, {path, title, component, given: pattern.exec(path).slice(1), error: ""});
  } catch (error) {
    console.error(error);
    view.error = "This page could not be loaded. Check your connection and reload.";
  }
  document.title = `${view.title} · TicketRemaster`;
  await nextTick();
  scrollTo(0, 0);
  document.querySelector("h1")?.focus({preventScroll: true});
}

const App = {
  setup() {
    const [leaving, leave] = useAction(logOut);
    return () => html`
      <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="top">
        <a class="brand" href="#/"><span>TicketRemaster</span></a>
        ${session.user && html`
          <nav aria-label="Main">${TABS[session.user.role].map(([path, text]) => html`
            <a key=${path} href=${`#/${path}`} aria-current=${view.path.split("/")[0] === path ? "page" : null}>
              ${icon(path)}<span>${text}</span></a>`)}</nav>
          <div class="who">
            ${session.user.role === "customer" && html`<a href="#/credits" class="balance">
              ${spoken("Your credits: ")}${money(session.user.credit_balance)}</a>`}
            <span class="email">${session.user.email}</span>
            <button class="plain" disabled=${leaving.busy} onClick=${leave}>Log out</button>
          </div>`}
      </header>
      <main id="main">
        ${alert(view.error)}
        ${view.component && html`<${view.component} key=${view.path} given=${view.given} />`}
      </main>`;
  },
};

function skip(event) {
  event.preventDefault();
  document.querySelector("h1")?.focus();
}

addEventListener("hashchange", open);
watch(() => session.user?.user_id, open);
createApp(App).mount("#app");
open();
