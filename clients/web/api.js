// Calls of the public API: tokens in memory, the server's clock, ETags, and requests that repeat until their result is known.
import {reactive} from "/lib/vue.js";
import config from "/config.js";

const TIMEOUT_MS = 20_000;
const TRIES = 6;
const NO_ANSWER = "The server did not answer. Check your connection and try again.";
const UNKNOWN_STATUSES = [0, 502, 503, 504];

/** The user who is logged in, and the reason why the last session ended. A reload ends the session. */
export const session = reactive({user: null, notice: ""});
let tokens = {access: "", refresh: ""};
let refreshing = null;

/** A refusal, with the message of the API. `isUnknown` means that the request may have had its effect. */
export class ApiError extends Error {
  constructor(status, body = {}, retryAfter = null) {
    super(body.message ?? NO_ANSWER);
    Object.assign(this, {status, code: body.error_code ?? "NO_ANSWER", details: body.details ?? {}, retryAfter});
    this.correlationId = body.correlation_id;
  }
  get isUnknown() { return UNKNOWN_STATUSES.includes(this.status) || this.code === "REQUEST_IN_PROGRESS"; }
}

/** An error of this page with a text for the user. */
export const problem = text => Object.assign(new Error(text), {code: "PROBLEM"});

// ── the server's clock

let clock = {min: -Infinity, max: Infinity}; // bounds of the offset to this device's clock, in milliseconds

/** The server's time in milliseconds. A wrong clock of this device changes no countdown. */
export const serverNow = () => Date.now() + (Number.isFinite(clock.min) ? (clock.min + clock.max) / 2 : 0);

/** Narrow the bounds by a Date header, which has whole seconds and was written between `sent` and now. */
function noteDate(header, sent) {
  const date = Date.parse(header);
  if (Number.isNaN(date)) return;
  const found = {min: date - Date.now(), max: date + 1000 - sent};
  const both = {min: Math.max(clock.min, found.min), max: Math.min(clock.max, found.max)};
  clock = both.min <= both.max ? both : found; // no overlap: one of the clocks was set
}

// ── calls

async function request(method, path, {body, key, etag, token} = {}) {
  const headers = {...(token && {Authorization: `Bearer ${token}`}), ...(body && {"Content-Type": "application/json"}),
    ...(key && {"Idempotency-Key": key}), ...(etag && {"If-None-Match": etag})};
  const sent = Date.now();
  let response, answer = {};
  try {
    response = await fetch(config.api + path, {method, headers, body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS)});
    noteDate(response.headers.get("Date"), sent);
    if (response.status !== 304) answer = await response.json();
  } catch {
    throw new ApiError(response && response.status >= 400 ? response.status : 0);
  }
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  if (response.status >= 400) throw new ApiError(response.status, answer, retryAfter);
  return {status: response.status, etag: response.headers.get("ETag"), ...answer};
}

/** Send a request with the access token, and renew the token once if it has expired. Throws ApiError. */
async function send(method, path, options = {}) {
  const used = tokens.access;
  try {
    return await request(method, path, {...options, token: used});
  } catch (error) {
    if (error.status !== 401 || error.code === "OTP_INVALID" || !used) throw error;
    if (error.code === "UNAUTHORIZED") endSession(error.message);
    if (!tokens.refresh) throw error;
    if (used === tokens.access) await (refreshing ??= refresh().finally(() => { refreshing = null; }));
    return request(method, path, {...options, token: tokens.access});
  }
}

async function refresh() {
  try {
    const {data} = await request("POST", "/api/auth/refresh", {token: tokens.refresh});
    tokens = {access: data.access_token, refresh: data.refresh_token};
  } catch (error) {
    if (error.status === 401) endSession(error.message);
    throw error;
  }
}

export const get = async path => (await send("GET", path)).data;
export const post = async (path, body = {}, key) => (await send("POST", path, {body, key})).data;

/** Create a key that makes the repeated requests of one action a single action. */
export const newKey = () => crypto.randomUUID();

/**
 * Run `action` until its result is known. After a lost reply it waits, calls `lookUp` for the result and repeats `action`
 * only if there is none, so `action` must be safe to repeat. Throws the last ApiError when `TRIES` are used up.
 */
export async function untilKnown(action, {lookUp = async () => undefined, onWait = () => {}} = {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      if (!error.isUnknown || attempt === TRIES) throw error;
      onWait();
      await new Promise(resolve => setTimeout(resolve, 1000 * Math.min(error.retryAfter ?? attempt / 2, 5)));
      const found = await lookUp().catch(failure => { if (!failure.isUnknown) throw failure; });
      if (found !== undefined) return found;
    }
  }
}

/** Return `send(body, onWait)`, which posts until the result is known. A call after an unknown result repeats its key. */
export function keyedPost(path) {
  let key = newKey();
  return (body, onWait) => untilKnown(() => post(path, body, key), {onWait})
    .then(answer => { key = newKey(); return answer; }, error => { if (!error.isUnknown) key = newKey(); throw error; });
}

// ── sessions

export const register = async account => void await request("POST", "/api/auth/register", {body: account});

export async function logIn(email, password) {
  const {data} = await request("POST", "/api/auth/login", {body: {email, password}});
  tokens = {access: data.access_token, refresh: data.refresh_token};
  forgetUser();
  Object.assign(session, {user: data.user, notice: ""});
}

export async function logOut() {
  try {
    await untilKnown(() => post("/api/auth/logout"));
  } finally {
    endSession("");
  }
}

function endSession(notice) {
  tokens = {access: "", refresh: ""};
  forgetUser();
  Object.assign(session, {user: null, notice});
}

// ── data that several pages need

const events = new Map(); // event id → {etag, data}
const places = new Map(); // seat id → {row_number, seat_number, category, price, event}

function forgetUser() {
  events.clear();
  places.clear();
}

export async function loadBalance() {
  const {credit_balance, frozen_credits} = await get("/api/credits/balance");
  Object.assign(session.user ?? {}, {credit_balance, frozen_credits});
}

export const listEvents = () => get("/api/events?per_page=100");

/** Read an event with its seats. Returns the same object as before if nothing has changed (ETag). */
export async function loadEvent(id) {
  const known = events.get(id);
  const {status, etag, data} = await send("GET", `/api/events/${id}`, {etag: known?.etag});
  if (status === 304) return known.data;
  events.set(id, {etag, data});
  for (const {seat_id, row_number, seat_number, category, price} of places.has(data.seats[0]?.seat_id) ? [] : data.seats) {
    places.set(seat_id, {row_number, seat_number, category, price, event: data});
  }
  return data;
}

/** Find row, number and event of a seat, in `eventId` or in any event. Returns null for an unknown seat. */
export async function findPlace(seatId, eventId) {
  for (const id of places.has(seatId) ? [] : eventId ? [eventId] : (await listEvents()).map(event => event.event_id)) {
    await loadEvent(id);
    if (places.has(seatId)) break;
  }
  return places.get(seatId) ?? null;
}
