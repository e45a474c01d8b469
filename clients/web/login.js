// Log in, or register and log in.
import {reactive} from "/lib/vue.js";
import config from "/config.js";
import {logIn, register, session} from "./api.js";
import {alert, button, field, form, heading, html, note, useAction} from "./ui.js";

const DEMO_PASSWORD = "password123";
const DEMO_ACCOUNTS = [
  ["user1@example.com", "Customer", "1,000 credits"],
  ["user2@example.com", "Customer who needs codes", "500 credits, each purchase asks for a code by SMS"],
  ["staff@example.com", "Staff", "the terminal that started the shop shows the password"],
];

export default {
  setup() {
    const given = reactive({email: "", password: "", phone: "", isNew: false});
    const [state, go] = useAction(async () => {
      const {email, password, phone} = given;
      if (given.isNew) await register({email, password, phone: phone.replace(/[\s-]/g, "")});
      await logIn(email, password);
    });
    const use = email => {
      const isStaff = email.startsWith("staff"); // the password of staff is a secret of each stack
      Object.assign(given, {email, password: isStaff ? "" : DEMO_PASSWORD, isNew: false});
      return isStaff ? document.querySelector("input[type=password]").focus() : go();
    };
    return () => html`
      <div class="narrow">
        ${heading(given.isNew ? "Create an account" : "Log in")}
        ${note(session.notice, "warn")}
        ${form(go,
          field("E-mail", given, "email", {type: "email", autocomplete: "username", required: true}),
          given.isNew && field("Mobile number, for one-time codes", given, "phone",
            {type: "tel", autocomplete: "tel", placeholder: "+65 9123 4567", required: true}),
          field("Password", given, "password", {type: "password", required: true, minlength: given.isNew ? 8 : null,
            autocomplete: given.isNew ? "new-password" : "current-password"}),
          alert(state.error),
          button(given.isNew ? "Create account" : "Log in", state))}
        <p><button class="plain" onClick=${() => { given.isNew = !given.isNew; state.error = ""; }}>
          ${given.isNew ? "I have an account" : "Create an account"}</button></p>
        ${config.inbox && html`<section class="card" aria-labelledby="demo">
          <h2 id="demo">Demo accounts</h2>
          <ul class="plainlist">${DEMO_ACCOUNTS.map(([email, who, what]) => html`<li key=${email}>
            <button class="choice" disabled=${state.busy} onClick=${() => use(email)}><b>${who}</b><span>${email} · ${what}</span></button>
          </li>`)}</ul>
          <p class="muted small">Each browser tab has its own login, so two tabs are two people.</p>
        </section>`}
      </div>`;
  },
};
