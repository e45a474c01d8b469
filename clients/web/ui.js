// Elements, formats and behaviours that the pages share.
import {h, onUnmounted, reactive, ref, watch} from "/lib/vue.js";
import htm from "/lib/htm.js";
import config from "/config.js";
import {serverNow} from "./api.js";

const RETRY_MS = 3000;
const OFFLINE = "The server did not answer. Check your connection. The page tries again by itself.";
const ID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
const ZONE = {timeZone: "Asia/Singapore", timeZoneName: "short"};

/** JSX as a tagged template, without a build step and without `eval`. */
export const html = htm.bind(function build(...parts) {
  this[0] = 3; // htm must not cache elements, because Vue owns them
  return h(...parts);
});

// ── formats

const credits = new Intl.NumberFormat("en-SG", {minimumFractionDigits: 2, maximumFractionDigits: 2});
const date = new Intl.DateTimeFormat("en-SG", {day: "numeric", month: "short", year: "numeric", hour: "numeric", minute: "2-digit", ...ZONE});
const clock = new Intl.DateTimeFormat("en-SG", {hour: "numeric", minute: "2-digit", second: "2-digit", ...ZONE});

export const money = amount => credits.format(amount ?? 0);
export const when = time => date.format(new Date(time));
export const timeOfDay = time => clock.format(new Date(time));
export const seatName = seat => (seat ? `Row ${seat.row_number}, seat ${seat.seat_number}` : "Seat …");
export const shortId = id => id.slice(0, 8);
export const member = id => `member …${id.slice(-8)}`;
export const clockText = seconds => `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;

// ── behaviours

const now = ref(serverNow());
setInterval(() => { now.value = serverNow(); }, 250);

/** Seconds until a time by the server's clock, at least 0. Renders again while it counts down. */
export const secondsUntil = time => Math.max(0, Math.ceil((Date.parse(time) - now.value) / 1000));

/** Wrap `run`: `state.busy` while it runs, `state.error` with the message of its failure, no second run in parallel. */
export function useAction(run) {
  const state = reactive({busy: false, error: "", waiting: false});
  const go = async (...given) => {
    if (state.busy) return;
    Object.assign(state, {busy: true, error: "", waiting: false});
    try {
      return await run(...given);
    } catch (error) {
      if (!error.code) console.error(error);
      state.error = error.code ? error.message : "This did not work. Check your connection and try again.";
    } finally {
      Object.assign(state, {busy: false, waiting: false});
    }
  };
  state.wait = () => { state.waiting = true; };
  return [state, go];
}

/** Call `load` now, and every `ms` while the page is visible and `isNeeded()`. Returns its state and a function to call it now. */
export function usePolling(load, ms, isNeeded = () => true) {
  const state = reactive({error: "", loaded: false});
  let timer, isOver = false;
  const run = async () => {
    clearTimeout(timer);
    if (isOver) return;
    if (!document.hidden || !state.loaded) {
      try {
        await load();
        Object.assign(state, {error: "", loaded: true});
      } catch (error) {
        if (!error.code) console.error(error);
        state.error = error.code === "NO_ANSWER" ? OFFLINE : error.message;
      }
    }
    clearTimeout(timer);
    if (!isOver && (isNeeded() || state.error)) timer = setTimeout(run, state.error ? RETRY_MS : ms);
  };
  document.addEventListener("visibilitychange", run);
  addEventListener("online", run);
  onUnmounted(() => {
    isOver = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", run);
    removeEventListener("online", run);
  });
  run();
  return [state, run];
}

// ── elements

const ICONS = {
  events: "M4 7a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v12H4zM4 10h16M8 3v4M16 3v4",
  tickets: "M4 8a1 1 0 0 1 1-1h14a1 1 0 0 1 1 1v2.5a1.6 1.6 0 0 0 0 3V16a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1v-2.5a1.6 1.6 0 0 0 0-3zM14 7v10",
  orders: "M7 4h10v16l-2.5-1.6L12 20l-2.5-1.6L7 20zM10 9h4M10 13h4",
  transfers: "M5 9h13l-3-3M19 15H6l3 3",
  credits: "M4 7h15a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1zM4 7l11-3v3M16 12.5h1",
  gate: "M4 8V5h3M17 5h3v3M20 16v3h-3M7 19H4v-3M8 8h3v3H8zM13 13h3v3h-3zM13 8h3v3h-3zM8 13h3v3H8z",
  support: "M4 12a8 8 0 1 1 16 0v4h-3v-5h3M4 11h3v5H4zM20 16c0 3-3 4-6 4",
};
export const icon = name => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;

export const spoken = text => html`<span class="spoken">${text}</span>`;
export const heading = (text, extra) => html`<div class="heading"><h1 tabindex="-1">${text}</h1>${extra}</div>`;
export const alert = text => text && html`<p class="notice bad" role="alert">${text}</p>`;
export const note = (text, kind = "info") => text && html`<p class=${`notice ${kind}`} role="status">${text}</p>`;
export const badge = (text, kind = "") => html`<span class=${`badge ${kind}`}>${text}</span>`;
export const waiting = (state, text) => state.waiting && note(text);
export const loading = state => alert(state.error) || (!state.loaded && html`<p class="muted" role="status">Loading…</p>`);

export const button = (text, state, props = {}) => html`
  <button ...${props} class=${props.class ?? "primary"} disabled=${props.disabled || state.busy} aria-busy=${state.busy}>${text}</button>`;

/** A labelled input that writes to `state[name]`. The browser shows `hint` instead of its own message for a wrong form. */
export const field = (label, state, name, {hint = "", ...props} = {}) => html`
  <label class="field"><span>${label}</span>
    <input name=${name} value=${state[name]} onInvalid=${event => event.target.setCustomValidity(hint)}
      onInput=${event => { event.target.setCustomValidity(""); state[name] = event.target.value; }} ...${props} />
  </label>`;

export const idField = (label, state, name) => field(label, state, name, {required: true, spellcheck: false, autocomplete: "off",
  pattern: ` *${ID} *`, hint: "This number is not complete. Copy all of its 36 letters and digits."});

/** A form whose submit calls `go` and never leaves the page. */
export const form = (go, ...content) => html`
  <form onSubmit=${event => { event.preventDefault(); go(); }}>${content}</form>`;

/** The field for a one-time code, and where a demo shows the codes. */
export const codeField = (label, state, name) => html`
  ${field(label, state, name, {inputmode: "numeric", autocomplete: "one-time-code", pattern: "[0-9]{4,10}", required: true,
    class: "code", maxlength: 10, hint: "Enter all digits of the code from the SMS."})}
  ${config.inbox && html`<p class="muted small">Demo: all SMS are in <a href=${config.inbox} target="inbox">the inbox</a>.</p>`}`;

/** A text with a button that copies it. */
export const Copy = {
  props: ["label", "text"],
  setup(props) {
    const done = ref(false);
    watch(() => props.text, () => { done.value = false; });
    const copy = async () => { await navigator.clipboard.writeText(props.text); done.value = true; };
    return () => html`
      <div class="copy">
        <label class="field"><span>${props.label}</span>
          <input readonly value=${props.text} onFocus=${event => event.target.select()} /></label>
        <button type="button" onClick=${copy}>${done.value ? "Copied" : "Copy"}</button>
      </div>`;
  },
};

/** A question with its consequences, in a modal dialog. `go` runs after the second click; true closes the dialog. */
export const Confirm = {
  props: ["open", "close", "title", "body", "action", "go", "state"],
  setup(props) {
    const dialog = ref(null);
    watch(() => [props.open, dialog.value], () => {
      if (dialog.value && props.open !== dialog.value.open) props.open ? dialog.value.showModal() : dialog.value.close();
    }, {flush: "post"});
    return () => html`
      <dialog ref=${dialog} onClose=${props.close} aria-labelledby="question">
        ${form(async () => (await props.go()) && props.close(),
          html`<h2 id="question">${props.title}</h2>`, props.body?.(), alert(props.state.error),
          waiting(props.state, "No answer yet. Checking the result…"),
          html`<div class="row end"><button type="button" onClick=${props.close}>Cancel</button>
            ${button(props.action, props.state, {class: "danger"})}</div>`)}
      </dialog>`;
  },
};
