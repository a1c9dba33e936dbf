// @ts-check
/**
 * The client of a shared document: one WebSocket that knows the page's
 * session, comes back by itself, and applies every operation once, in order.
 * No dependencies; types are in tandem.d.ts.
 *
 * @typedef {import("./tandem.d.ts").Options} Options
 * @typedef {import("./tandem.d.ts").Member} Member
 * @typedef {import("./tandem.d.ts").Status} Status
 */

import { Sequence } from "./sequence.js";

/** Close codes after which coming back makes sense. */
export const RETRY = new Set([1001, 1006, 1012, 4429, 4503]);

/** Refusals that a later repeat of the same operation can get past. */
const LATER = new Set(["RATE_LIMITED", "UNAVAILABLE", "NOT_JOINED", "AUTH_REQUIRED"]);

/** Requests that wait for the connection; more are refused. */
const REQUESTS = 32;

/** IDs of our own frames start with a tilde. */
const AUTH = "~auth";
const JOIN = "~join";
const SYNC = "~sync";

/** Presence states are sent this often at most, the newest one. */
const PRESENCE_MS = 50;

export class TandemError extends Error {
  /** @param {string} code @param {string} [message] */
  constructor(code, message) {
    super(message || code);
    this.name = "TandemError";
    this.code = code;
  }
}

/**
 * Milliseconds to wait before attempt n (from 0): doubling from half a second
 * to half a minute, half of it random so that a crowd comes back spread out.
 * @param {number} attempt @param {() => number} [random]
 */
export function backoff(attempt, random = Math.random) {
  const most = Math.min(30_000, 500 * 2 ** Math.min(attempt, 10));
  return Math.round(most * (0.5 + random() / 2));
}

/**
 * Opens a document and keeps it open until `close`. No callback comes before
 * this has returned.
 * @param {Options} options
 */
export function connect(options) {
  const connection = new Connection(options);
  queueMicrotask(() => connection.open());
  return connection;
}

export class Connection {
  /** @type {Map<string, Member>} everybody present, by connection ID */
  members = new Map();
  /** The server's name for this connection, new at every reconnect. */
  id = "";
  /** @type {{id: string, name: string} | null} */
  user = null;
  color = "";
  /** @type {Status} */
  status = { state: "connecting", redis: "up" };

  /** @type {WebSocket | null} */
  #ws = null;
  #attempt = 0;
  #comeBackAt = 0; // told by `reconnect`
  #counter = 0;
  #joined = false;
  #syncing = false;
  #syncAgain = false;
  #paused = false; // operations wait for a refusal to pass
  /** @type {Promise<unknown> | null} */
  #renewing = null;
  #heard = false;
  #pinged = false;
  /** @type {unknown} */
  #presence = undefined;
  /** @type {Record<string, ReturnType<typeof setTimeout> | undefined>} */
  #timers = {};
  /** @type {Map<string, {payload: unknown, sent: boolean, resolve: Function, reject: Function}>} */
  #operations = new Map(); // not yet acknowledged, in order
  /** @type {Map<string, {frame: object, sent: boolean, resolve: Function, reject: Function}>} */
  #requests = new Map();
  #online = () => this.retry();

  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    this.sequence = new Sequence({
      apply: (op) => options.onOperation?.(op, this),
      reset: (snapshot) => options.onReset?.(snapshot, this),
      repair: () => this.#sync(),
    });
  }

  /** Sends an operation; resolves once it is stored. It survives reconnects. */
  publish(/** @type {unknown} */ payload, id = randomID()) {
    if (this.status.state === "closed") return Promise.reject(new TandemError("CLOSED"));
    if (this.#operations.size >= (this.options.maxPending ?? 1000)) return Promise.reject(new TandemError("TOO_MANY"));
    return new Promise((resolve, reject) => {
      this.#operations.set(id, { payload, sent: false, resolve, reject });
      this.#flush();
    });
  }

  /** Tells the others our state: at most every 50 ms, the newest one. */
  setPresence(/** @type {unknown} */ state) {
    this.#presence = state;
    this.#later("presence", PRESENCE_MS, () => this.#sendPresence());
  }

  /** Keeps `payload` as what the document is at our position. */
  snapshot(/** @type {unknown} */ payload) {
    return this.#request({ type: "snapshot", seq: this.sequence.seq, payload });
  }

  /** Reads the page's session: all that is readable, or `keys`. */
  async sessionGet(/** @type {string[] | undefined} */ keys) {
    return (await this.#request({ type: "session_get", keys })).values;
  }

  /** Writes the page's session. */
  async sessionSet(/** @type {Record<string, unknown>} */ set = {}, /** @type {string[]} */ remove = []) {
    return (await this.#request({ type: "session_set", set, delete: remove })).values;
  }

  /** Operations that are not acknowledged yet. */
  get unacknowledged() {
    return this.#operations.size;
  }

  /** Tries again now rather than when the wait is over. */
  retry() {
    if (this.status.state === "waiting") this.open();
  }

  /** Leaves for good. What is not acknowledged is rejected. */
  close() {
    this.#drop(1000);
    this.#end("closed by the page", 1000);
  }

  open() {
    if (this.#ws || this.status.state === "closed") return;
    globalThis.addEventListener?.("online", this.#online);
    this.#clear();
    this.#set({ state: "connecting" });
    const ws = new (this.options.WebSocket ?? globalThis.WebSocket)(this.#url(), "tandem.v1");
    this.#ws = ws;
    ws.binaryType = "arraybuffer";
    ws.onopen = () => this.#authenticate(ws);
    ws.onmessage = (event) => this.#receive(event.data);
    ws.onclose = (event) => this.#closed(event.code, event.reason);
  }

  #url() {
    const base = globalThis.location?.href;
    const url = new URL(this.options.url ?? "/ws/documents/", base);
    url.protocol = url.protocol.replace("http", "ws");
    url.pathname = url.pathname.replace(/\/?$/, "/") + encodeURIComponent(this.options.document);
    if (this.options.color) url.searchParams.set("color", this.options.color);
    return url.href;
  }

  /** @param {WebSocket} ws */
  async #authenticate(ws) {
    try {
      const ticket = await this.options.ticket?.();
      if (this.#ws === ws) this.#send({ type: "authenticate", id: AUTH, ticket });
    } catch {
      if (this.#ws !== ws) return;
      this.#drop(1000);
      this.#closed(1006, "no ticket");
    }
  }

  /** @param {object} frame */
  #send(frame) {
    if (this.#ws?.readyState === 1) this.#ws.send(JSON.stringify(frame));
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    this.#heard = true;
    this.#pinged = false;
    const frame = JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data));
    // @ts-ignore: the type was just looked up; what a newer server may send is ignored
    if (Object.hasOwn(this.#on, frame.type)) this.#on[frame.type](frame);
  }

  #on = {
    hello: (/** @type {any} */ f) => {
      this.id = f.connection_id;
      this.#beat(f.heartbeat_ms || 10_000);
    },
    auth_result: (/** @type {any} */ f) => {
      if (!f.ok) return; // close 4401 follows
      this.user = f.user;
      this.color = f.color;
      this.#set({ state: "authenticated" });
      this.#join();
      this.#flush();
    },
    joined_document: (/** @type {any} */ f) => {
      this.#joined = true;
      this.sequence.history(f);
      this.#present(f.presence);
      this.#set({ state: "joined" });
      this.#sendPresence();
      this.#flush();
    },
    left_document: () => {
      this.#joined = this.#syncing = this.#syncAgain = false;
      this.#join();
    },
    operation: (/** @type {any} */ f) => this.sequence.live(f),
    sync_response: (/** @type {any} */ f) => {
      const again = this.#syncAgain;
      this.#syncing = this.#syncAgain = false;
      this.sequence.history(f);
      if (f.presence) this.#present(f.presence);
      if (again && !this.#syncing) this.#sync();
    },
    presence: (/** @type {any} */ f) => {
      for (const m of [...(f.joined ?? []), ...(f.updated ?? [])]) {
        this.members.set(m.connection_id, { ...this.members.get(m.connection_id), ...m });
      }
      for (const m of f.left ?? []) this.members.delete(m.connection_id);
      this.options.onPresence?.(this.members, this);
    },
    lagged: () => this.#sync(), // the answer holds everybody again, if it was presence
    ack: (/** @type {any} */ f) => {
      this.#operations.get(f.re)?.resolve({ epoch: f.epoch, seq: f.seq, duplicate: !!f.duplicate });
      this.#operations.delete(f.re);
      this.#settle(f);
      this.#flush();
    },
    session: (/** @type {any} */ f) => this.#settle(f),
    session_changed: (/** @type {any} */ f) => this.options.onSessionChanged?.({ set: f.set ?? {}, delete: f.delete ?? [] }, this),
    session_expiring: (/** @type {any} */ f) => this.options.onSessionExpiring?.(f.in_ms, this),
    renew: () => {
      this.#renewing ??= Promise.resolve((this.options.renew ?? renew)())
        .catch(() => {}) // the server asks again
        .finally(() => (this.#renewing = null));
    },
    status: (/** @type {any} */ f) => {
      this.#set({ state: this.status.state, redis: f.redis });
      if (f.redis === "up") this.#resume();
    },
    reconnect: (/** @type {any} */ f) => {
      this.#comeBackAt = Date.now() + f.after_ms;
      this.#later("reconnect", f.after_ms, () => {
        this.#drop(1000);
        this.#closed(1012, "reconnect");
      });
    },
    error: (/** @type {any} */ f) => this.#refused(f),
  };

  /** @param {Member[]} everybody */
  #present(everybody) {
    this.members = new Map(everybody.map((m) => [m.connection_id, m]));
    this.options.onPresence?.(this.members, this);
  }

  #join() {
    this.#send({ type: "join_document", id: JOIN, since: this.sequence.position() });
  }

  /** Reads from the log what is missing: one request at a time, and one more when a gap was seen meanwhile. */
  #sync() {
    if (!this.#joined) return;
    this.#syncAgain = this.#syncing;
    if (this.#syncing) return;
    this.#syncing = true;
    this.#send({ type: "sync_request", id: SYNC, since: this.sequence.position() });
  }

  #sendPresence() {
    if (this.#joined && this.#presence !== undefined) this.#send({ type: "presence", state: this.#presence });
  }

  /** Sends what waits, in order, a bounded number under way. */
  #flush() {
    if (this.status.state === "authenticated" || this.status.state === "joined") {
      for (const [id, request] of this.#requests) {
        if (!request.sent) this.#send({ ...request.frame, id });
        request.sent = true;
      }
    }
    if (!this.#joined || this.#paused) return;
    let room = this.options.inFlight ?? 32;
    for (const [id, op] of this.#operations) {
      if (room-- <= 0) return;
      if (!op.sent) this.#send({ type: "operation", id, payload: op.payload });
      op.sent = true;
    }
  }

  /** @param {object} frame @returns {Promise<any>} */
  #request(frame) {
    if (this.status.state === "closed") return Promise.reject(new TandemError("CLOSED"));
    if (this.#requests.size >= REQUESTS) return Promise.reject(new TandemError("TOO_MANY"));
    return new Promise((resolve, reject) => {
      this.#requests.set(`~${++this.#counter}`, { frame, sent: false, resolve, reject });
      this.#flush();
    });
  }

  /** @param {{re?: string}} f */
  #settle(f) {
    this.#requests.get(f.re ?? "")?.resolve(f);
    this.#requests.delete(f.re ?? "");
  }

  /** @param {{re?: string, code: string, message: string, retry_after_ms?: number}} f */
  #refused(f) {
    const op = this.#operations.get(f.re ?? "");
    const later = LATER.has(f.code);
    const wait = f.retry_after_ms ?? 1000;
    if (f.re === SYNC) this.#syncing = false;
    const ws = this.#ws;
    if (later && ws && f.re === AUTH) return this.#later(AUTH, wait, () => this.#authenticate(ws));
    if (later && f.re === SYNC) return this.#later(SYNC, wait, () => this.#sync());
    if (later && f.re === JOIN) return this.#later(JOIN, wait, () => this.#join());
    if (later && (op || !f.re)) {
      // Sent again it is recognised by its ID, so repeating is always safe.
      for (const o of op ? [op] : this.#operations.values()) o.sent = false;
      this.#paused = true;
      return this.#later("resume", wait, () => this.#resume());
    }
    const error = new TandemError(f.code, f.message);
    (op ?? this.#requests.get(f.re ?? ""))?.reject(error);
    this.#operations.delete(f.re ?? "");
    this.#requests.delete(f.re ?? "");
    this.options.onError?.(error, this);
  }

  #resume() {
    this.#paused = false;
    this.#flush();
  }

  /** Finds a dead link, which a browser does not tell: quiet for one beat, we ask; quiet for another, it is gone. */
  #beat(/** @type {number} */ ms) {
    this.#later("beat", ms, () => {
      if (!this.#heard && this.#pinged) {
        this.#drop(4000);
        this.#closed(1006, "no answer");
        return;
      }
      if (!this.#heard) {
        this.#send({ type: "ping" });
        this.#pinged = true;
      }
      this.#heard = false;
      this.#attempt = 0; // it has held for a while
      this.#beat(ms);
    });
  }

  /** Lets go of the socket without waiting for its close. @param {number} code */
  #drop(code) {
    const ws = this.#ws;
    this.#ws = null;
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.close(code);
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    this.#ws = null;
    this.#clear();
    this.#joined = this.#syncing = this.#syncAgain = this.#paused = this.#pinged = false;
    for (const op of this.#operations.values()) op.sent = false;
    for (const [id, request] of this.#requests) {
      if (!request.sent) continue; // whether it took effect is not known
      this.#requests.delete(id);
      request.reject(new TandemError("DISCONNECTED"));
    }
    if (this.members.size > 0) {
      this.members = new Map();
      this.options.onPresence?.(this.members, this);
    }
    if (!RETRY.has(code)) {
      this.#end(reason, code);
      return;
    }
    const told = this.#comeBackAt - Date.now();
    const wait = this.#comeBackAt > 0 ? Math.max(0, told) : backoff(this.#attempt++, this.options.random);
    this.#comeBackAt = 0;
    this.#later("open", wait, () => this.open());
    this.#set({ state: "waiting", code, reason, retryInMs: wait });
  }

  /** @param {string} reason @param {number} code */
  #end(reason, code) {
    if (this.status.state === "closed") return;
    this.#clear();
    globalThis.removeEventListener?.("online", this.#online);
    this.#set({ state: "closed", code, reason });
    for (const waiting of [this.#operations, this.#requests]) {
      for (const { reject } of waiting.values()) reject(new TandemError("CLOSED", reason));
      waiting.clear();
    }
  }

  /** @param {Partial<Status> & {state: Status["state"]}} status */
  #set(status) {
    this.status = { redis: this.status.redis, ...status };
    this.options.onStatus?.(this.status, this);
  }

  /** One timer a name; a presence that waits already is not put off. @param {string} name @param {number} ms @param {() => void} fn */
  #later(name, ms, fn) {
    if (name === "presence" && this.#timers[name] !== undefined) return;
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(() => {
      this.#timers[name] = undefined;
      fn();
    }, ms);
  }

  #clear() {
    for (const name of Object.keys(this.#timers)) clearTimeout(this.#timers[name]);
    this.#timers = {};
  }
}

async function renew() {
  const answer = await fetch("/api/session/renew", { method: "POST", credentials: "same-origin" });
  if (!answer.ok) throw new TandemError("RENEW_FAILED", String(answer.status));
}

/** 128 random bits; randomUUID is missing on plain http. */
function randomID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
