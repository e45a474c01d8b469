// The gate: a camera or a hand scanner reads tickets, and the whole screen shows the verdict of the API.
import {nextTick, onUnmounted, reactive, ref, shallowRef} from "/lib/vue.js";
import {listEvents, newKey, post, problem, serverNow, untilKnown} from "./api.js";
import {alert, button, form, heading, html, loading, timeOfDay, useAction, usePolling, when} from "./ui.js";

const CHOSEN = "gate"; // in localStorage, so that a reload keeps the event and its hall
const DOUBLE_MS = 3000; // the same code within this time is the same scan, so it shares the key
const READ_MS = 150, ADMITTED_MS = 2500;
const LAST = 10;
const WORDS = {
  SUCCESS: "Admitted", DUPLICATE: "Already used", WRONG_HALL: "Wrong hall", UNPAID: "Not paid", NOT_FOUND: "Unknown seat", EXPIRED: "Old code",
  NOT_OWNER: "Sold on", QR_INVALID: "Not a ticket", EVENT_OVER: "Event is over", TOO_EARLY: "Too early", WRONG_EVENT: "Wrong event",
};
const last = shallowRef([]); // the newest scans first, also after a visit to another page

/** Write a message of the API with the clock of this page. */
const localize = message => message.replace("Checked In", "checked in").replace(/(?:(\d{4}-\d\d-\d\d) )?(\d\d:\d\d(?::\d\d)?) UTC/g,
  (_, day, time) => (day ? when(`${day}T${time}Z`) : timeOfDay(`2026-01-01T${time}Z`))); // Singapore has no summer time

export default {
  setup() {
    const gate = shallowRef(JSON.parse(localStorage.getItem(CHOSEN) ?? "null"));
    const choose = event => {
      gate.value = event && {event_id: event.event_id, name: event.name, hall_id: event.hall_id, event_date: event.event_date};
      localStorage.setItem(CHOSEN, JSON.stringify(gate.value));
    };
    return () => (gate.value
      ? html`<${Scanner} gate=${gate.value} change=${() => choose(null)} />`
      : html`<${EventChoice} choose=${choose} />`);
  },
};

const EventChoice = {
  props: ["choose"],
  setup(props) {
    const events = ref([]);
    const [state] = usePolling(async () => { events.value = await listEvents(); }, 0, () => false);
    return () => html`
      ${heading("Which event is at this gate?")}
      ${loading(state)}
      <ul class="plainlist narrow">${events.value.map(event => html`
        <li key=${event.event_id}><button class="choice" onClick=${() => props.choose(event)}>
          <b>${event.hall_id} · ${event.name}</b><span>${when(event.event_date)} · ${event.venue.name}</span></button></li>`)}</ul>`;
  },
};

const Scanner = {
  props: ["gate", "change"],
  setup(props) {
    const given = reactive({code: ""}), verdict = shallowRef(null), next = ref(null);
    let seen = {code: "", key: "", at: 0}, timer;
    const close = () => { clearTimeout(timer); verdict.value = null; document.querySelector("[name=code]")?.focus(); };
    const show = async result => {
      verdict.value = result;
      last.value = [result, ...last.value.filter(each => each.key !== result.key)].slice(0, LAST);
      signal(result.isAdmitted);
      clearTimeout(timer);
      if (result.isAdmitted) timer = setTimeout(close, ADMITTED_MS);
      await nextTick();
      next.value?.focus();
    };
    const [scanning, scan] = useAction(async code => {
      const isDouble = code === seen.code && Date.now() - seen.at < DOUBLE_MS;
      seen = {code, key: isDouble ? seen.key : newKey(), at: Date.now()};
      const {key} = seen, at = timeOfDay(serverNow());
      try {
        const body = {qr_payload: code, hall_id: props.gate.hall_id, event_id: props.gate.event_id};
        const answer = await untilKnown(() => post("/api/verify", body, key), {onWait: scanning.wait});
        await show({key, at, isAdmitted: answer.result === "SUCCESS", result: answer.result, message: localize(answer.message)});
      } catch (error) {
        await show({key, at, isAdmitted: false, result: error.code, message: error.message});
      }
    });
    const typed = () => { const code = given.code.trim(); given.code = ""; return code && scan(code); };
    const read = code => {
      const isInView = code === seen.code && Date.now() - seen.at < DOUBLE_MS;
      if (isInView) seen.at = Date.now(); // the guest still holds the phone in front of the camera
      else if (!verdict.value) scan(code);
    };
    const focusField = event => { // a hand scanner types at any moment
      if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && event.target.tagName !== "INPUT") {
        close();
        document.querySelector("[name=code]")?.focus();
      }
    };
    addEventListener("keydown", focusField);
    onUnmounted(() => { removeEventListener("keydown", focusField); clearTimeout(timer); });

    return () => html`
      ${heading("Gate", html`<button class="plain" onClick=${props.change}>Change the event</button>`)}
      <p><b>${props.gate.hall_id}</b> · ${props.gate.name} <span class="muted">· ${when(props.gate.event_date)}</span></p>
      <div class="columns">
        <section class="card"><h2>Camera</h2><${Camera} read=${read} /></section>
        <section class="card"><h2>Hand scanner</h2>
          ${form(typed, html`<label class="field"><span>Scan or type the code of a ticket</span>
            <input name="code" autocomplete="off" spellcheck="false" autofocus value=${given.code} onInput=${event => { given.code = event.target.value; }} /></label>`,
            button("Check the ticket", scanning))}
          ${scanning.waiting && html`<p class="notice warn" role="status">No answer yet. Do not admit the guest. Checking the scan…</p>`}
          <h2>Last ${LAST} scans</h2>
          ${!last.value.length && html`<p class="muted">No scans yet.</p>`}
          <ol class="scans">${last.value.map(each => html`
            <li key=${each.key} class=${each.isAdmitted ? "good" : "bad"}><time>${each.at}</time> <b>${WORDS[each.result] ?? "Not checked"}</b> ${each.message}</li>`)}</ol>
        </section>
      </div>
      ${verdict.value && html`
        <div class=${`verdict ${verdict.value.isAdmitted ? "good" : "bad"}`} role="alert" onClick=${close}>
          <p class="mark" aria-hidden="true">${verdict.value.isAdmitted ? "✓" : "✕"}</p>
          <p class="what">${verdict.value.isAdmitted ? "Admit" : "Do not admit"}</p>
          <p>${verdict.value.message}</p>
          <p class="small">${props.gate.hall_id} · ${props.gate.name}</p>
          <button ref=${next} onClick=${close}>Next guest</button>
        </div>`}`;
  },
};

let audio;

/** A high tone and a short vibration for a guest who may enter, a low tone and a long one for a refusal. */
function signal(isAdmitted) {
  navigator.vibrate?.(isAdmitted ? 80 : [200, 100, 200]);
  audio ??= new AudioContext();
  const tone = audio.createOscillator(), volume = audio.createGain();
  tone.frequency.value = isAdmitted ? 880 : 220;
  volume.gain.value = 0.1;
  tone.connect(volume).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + (isAdmitted ? 0.12 : 0.45));
}

const Camera = {
  props: ["read"],
  setup(props) {
    const video = ref(null), isOn = ref(false);
    let stream, timer;
    const stop = () => { clearTimeout(timer); stream?.getTracks().forEach(track => track.stop()); isOn.value = false; };
    const [state, start] = useAction(async () => {
      if (!navigator.mediaDevices) throw problem("This browser gives no camera to this page. Use a hand scanner or type the code.");
      const [camera, detector] = await Promise.all([
        navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}}).catch(refused => {
          throw problem(`The camera cannot be used (${refused.message}). Allow it in the browser, or type the code.`);
        }), makeDetector()]);
      stream = camera;
      isOn.value = true;
      await nextTick();
      video.value.srcObject = stream;
      await video.value.play();
      const look = async () => {
        if (!isOn.value) return;
        const [found] = await detector.detect(video.value).catch(() => []); // a frame without a code
        if (found?.rawValue) props.read(found.rawValue.trim());
        timer = setTimeout(look, READ_MS);
      };
      look();
    });
    onUnmounted(stop);
    return () => html`
      ${alert(state.error)}
      ${isOn.value
        ? html`<video ref=${video} playsinline muted aria-label="Picture of the camera"></video><button class="plain" onClick=${stop}>Stop the camera</button>`
        : html`<p class="muted">Hold the QR code of the ticket in front of the camera.</p>${button("Start the camera", state, {onClick: start})}`}`;
  },
};

/** The browser's own detector, or the decoder of the library `qr`. */
async function makeDetector() {
  const isBuiltIn = await window.BarcodeDetector?.getSupportedFormats().then(formats => formats.includes("qr_code"), () => false);
  const Detector = isBuiltIn ? window.BarcodeDetector : (await import("/lib/qr/decode.js")).BarcodeDetector;
  return new Detector({formats: ["qr_code"]});
}
