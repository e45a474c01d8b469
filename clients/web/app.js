// The frame of the page: the navigation, and one page for each address after `#`.
import {createApp, nextTick, shallowReactive, watch} from "/lib/vue.js";
import {loadBalance, logOut, session} from "./api.js";
import Login from "./login.js";
import {alert, heading, html, icon, money, spoken, useAction, usePolling} from "./ui.js";

const REFRESH_MS = 5000;

const PAGES = [ // [pattern of the address, module, title, roles]
  [/^events$/, "./events.js", "Events"],
  [/^events\/([\da-f-]{36})$/, "./hall.js", "Choose a seat", ["customer"]],
  [/^tickets$/, "./tickets.js", "My tickets", ["customer"]],
  [/^tickets\/([\da-f-]{36})$/, "./ticket.js", "Ticket", ["customer"]],
  [/^orders$/, "./orders.js", "My orders", ["customer"]],
  [/^orders\/([\da-f-]{36})$/, "./checkout.js", "Checkout", ["customer"]],
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

const view = shallowReactive({path: "", title: "", component: null, given: []});
const failures = {}; // module → its failed imports. A new query lets the browser request the module again.

const Unloaded = {
  setup: () => () => html`
    ${heading(view.title)}
    ${alert("This page could not be loaded. Check your connection.")}<p><button class="primary" onClick=${open}>Try again</button></p>`,
};

async function load(file) {
  try {
    return (await import(failures[file] ? `${file}?${failures[file]}` : file)).default;
  } catch (error) {
    console.error(error);
    failures[file] = (failures[file] ?? 0) + 1;
    return Unloaded;
  }
}

async function open() {
  const path = location.hash.replace(/^#\/?/, "");
  const role = session.user?.role;
  const found = PAGES.find(([pattern, , , roles = ["customer", "staff"]]) => pattern.test(path) && roles.includes(role));
  if (role && !found) return location.replace(`#/${TABS[role][0][0]}`);
  const [pattern, file, title] = found ?? [/^/, "", "Log in"];
  const component = role ? await load(file) : Login;
  if (location.hash.replace(/^#\/?/, "") !== path) return;
  Object.assign(view, {path, title, component, given: pattern.exec(path).slice(1)});
  document.title = `${view.title} · TicketRemaster`;
  await nextTick();
  scrollTo(0, 0);
  document.querySelector("h1")?.focus({preventScroll: true});
}

const Balance = {
  setup() {
    usePolling(loadBalance, REFRESH_MS);
    return () => html`<a href="#/credits" class="balance">${spoken("Your credits: ")}${money(session.user?.credit_balance)}</a>`;
  },
};

const App = {
  setup() {
    const [leaving, leave] = useAction(() => logOut().finally(() => { location.hash = "#/"; })); // the next user starts at the first page
    const repeat = path => () => view.component === Unloaded && view.path === path && open();
    return () => html`
      <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
      <header class="top">
        <a class="brand" href="#/"><span>TicketRemaster</span></a>
        ${session.user && html`
          <nav aria-label="Main">${TABS[session.user.role].map(([path, text]) => html`
            <a key=${path} href=${`#/${path}`} onClick=${repeat(path)} aria-current=${view.path.split("/")[0] === path ? "page" : null}>
              ${icon(path)}<span>${text}</span></a>`)}</nav>
          <div class="who">
            ${session.user.role === "customer" && html`<${Balance} />`}
            <span class="email">${session.user.email}</span>
            <button class="plain" disabled=${leaving.busy} onClick=${leave}>Log out</button>
          </div>`}
      </header>
      <main id="main">
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
requestAnimationFrame(() => setTimeout(() => PAGES.forEach(([, file]) => load(file)))); // after the first paint, for a lost connection
