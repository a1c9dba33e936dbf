// @ts-check
/**
 * The client of a shared document: one WebSocket that knows the page's
 * session, comes back by itself, and applies every operation once, in order.
 * No dependencies; types are in tandem.d.ts, the guide is docs/CLIENT.md.
 *
 * Who does what: link.js has the socket and its reconnects, outbox.js what
 * waits for an answer, sequence.js the order of operations; here is the
 * protocol, docs/PROTOCOL.md, and what the page is told.
 *
 * @typedef {import("./tandem.d.ts").Options} Options
 * @typedef {import("./tandem.d.ts").Member} Member
 * @typedef {import("./tandem.d.ts").Status} Status
 */

import { TandemError } from "./errors.js";
import { Link, address, backoff } from "./link.js";
import { Outbox } from "./outbox.js";
import { Sequence } from "./sequence.js";

export { TandemError, backoff };

/** Refusals that a later repeat can get past. */
const LATER = new Set(["RATE_LIMITED", "UNAVAILABLE", "NOT_JOINED", "AUTH_REQUIRED"]);

/** When the server does not say how much later. */
const LATER_MS = 1000;

/**
 * Who is refused for ten seconds on end is cut off, and one that sends again
 * as soon as it may is refused again at once: a pause of more than a second
 * is forgiven, and lets the allowance grow.
 */
const BREATH_MS = 1100;

/** IDs of frames whose answers are not anybody's promise. */
const AUTH = "~auth";
const JOIN = "~join";
const SYNC = "~sync";

/** Presence states are sent this often at most, the newest one. */
const PRESENCE_MS = 50;

/**
 * Opens a document and keeps it open until `close`. No callback comes before
 * this has returned.
 * @param {Options} options
 */
export function connect(options) {
  return new Connection(options);
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

  #options;
  #link;
  #outbox;
  #sequence;
  #joined = false; // before the page is told so, after what the answer held
  #syncing = false;
  #syncAgain = false;
  /** The error that says why the server is about to take us out of the document. @type {any} */
  #ousted = null;
  /** @type {Promise<unknown> | null} */
  #renewing = null;
  /** @type {unknown} */
  #presence = undefined;
  /** One a name. @type {Record<string, ReturnType<typeof setTimeout> | undefined>} */
  #timers = {};

  /** @param {Options} options */
  constructor(options) {
    const { ticket, WebSocket, random, signal } = options;
    this.#options = options;
    this.#outbox = new Outbox(options, (text) => this.#link.send(text));
    this.#sequence = new Sequence({
      apply: (op) => this.#tell("onOperation", op),
      reset: (snapshot) => this.#tell("onReset", snapshot),
      repair: () => this.#sync(),
    });
    signal?.addEventListener("abort", this.#abort);
    if (signal?.aborted) queueMicrotask(this.#abort); // before the link opens
    this.#link = new Link(
      { url: address(options), ticket, WebSocket, random },
      {
        connecting: () => this.#set({ state: "connecting" }),
        open: (t) => this.#link.send({ type: "authenticate", id: AUTH, ticket: t }),
        // @ts-ignore: the type was just looked up; what a newer server may send is ignored
        frame: (f) => Object.hasOwn(this.#on, f.type) && this.#on[f.type](f),
        lost: (code, reason, wait) => this.#lost(code, reason, wait),
        ended: (code, reason) => this.#ended(code, reason),
      },
    );
  }

  /** Sends an operation; resolves once it is stored. It survives reconnects. */
  publish(/** @type {unknown} */ payload, id = randomID()) {
    return this.#sending(true, () => this.#outbox.publish(payload, id));
  }

  /** Tells the others our state: at most every 50 ms, the newest one. */
  setPresence(/** @type {unknown} */ state) {
    if (this.status.state === "closed") return;
    this.#presence = state;
    this.#timers.presence ??= this.#timer("presence", PRESENCE_MS, () => this.#sendPresence());
  }

  /** Keeps `payload` as what the document is at our position. */
  snapshot(/** @type {unknown} */ payload) {
    return this.#request({ type: "snapshot", ...this.#sequence.position(), payload }, true);
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
    return this.#outbox.unacknowledged;
  }

  /** Up to where operations were applied; undefined before the first join. */
  get position() {
    return this.#sequence.position();
  }

  /** Tries again now rather than when the wait is over, or to join where that was forbidden. */
  retry() {
    if (this.status.state === "forbidden") this.#join();
    else this.#link.retry();
  }

  /** Leaves for good. What is not acknowledged is rejected. */
  close() {
    this.#link.end(1000, "closed by the page");
  }

  #abort = () => this.#link.end(1000, "aborted");

  #on = {
    hello: (/** @type {any} */ f) => {
      this.id = f.connection_id;
      this.#outbox.maxBytes = f.max_message_bytes || Infinity;
      this.#link.watch(f.heartbeat_ms || 10_000);
    },
    auth_result: (/** @type {any} */ f) => {
      if (!f.ok) return; // the close that follows says more
      this.user = f.user;
      this.color = f.color;
      this.#set({ state: "authenticated", redis: "up" }); // if not, we are told
      this.#join();
      this.#flush();
    },
    joined_document: (/** @type {any} */ f) => {
      this.#joined = true;
      this.#sequence.history(f);
      this.#present(f.presence);
      this.#set({ state: "joined" });
      this.#sendPresence();
      this.#flush();
    },
    left_document: () => this.#left(this.#ousted ?? { code: "UNAVAILABLE" }),
    operation: (/** @type {any} */ f) => this.#sequence.live(f),
    sync_response: (/** @type {any} */ f) => {
      const again = this.#syncAgain;
      this.#syncing = this.#syncAgain = false;
      this.#sequence.history(f);
      if (f.presence) this.#present(f.presence);
      if (again && !this.#syncing) this.#sync();
    },
    presence: (/** @type {any} */ f) => {
      for (const m of [...(f.joined ?? []), ...(f.updated ?? [])]) {
        this.members.set(m.connection_id, { ...this.members.get(m.connection_id), ...m });
      }
      for (const m of f.left ?? []) this.members.delete(m.connection_id);
      this.#tell("onPresence", this.members);
    },
    lagged: () => this.#sync(), // the answer holds everybody again, if it was presence
    ack: (/** @type {any} */ f) => {
      this.#outbox.settle(f.re, { epoch: f.epoch, seq: f.seq, duplicate: !!f.duplicate });
      this.#flush();
    },
    session: (/** @type {any} */ f) => this.#outbox.settle(f.re, f),
    session_changed: (/** @type {any} */ f) => {
      this.#tell("onSessionChanged", { set: f.set ?? {}, delete: f.delete ?? [] });
      if (this.status.state === "forbidden") this.#join();
    },
    session_expiring: (/** @type {any} */ f) => this.#tell("onSessionExpiring", f.in_ms),
    renew: () => {
      this.#renewing ??= Promise.resolve((this.#options.renew ?? renew)())
        .catch(() => {}) // the next login, or the next renew, sets it
        .finally(() => (this.#renewing = null));
    },
    status: (/** @type {any} */ f) => {
      this.#set({ ...this.status, redis: f.redis });
      if (f.redis === "up") this.#resume();
    },
    reconnect: (/** @type {any} */ f) => this.#link.moveIn(f.after_ms || 0),
    error: (/** @type {any} */ f) => this.#refused(f),
  };

  /** @param {Member[]} everybody */
  #present(everybody) {
    this.members = new Map(everybody.map((m) => [m.connection_id, m]));
    this.#tell("onPresence", this.members);
  }

  #join() {
    this.#link.send({ type: "join_document", id: JOIN, since: this.#sequence.position() });
  }

  /** Reads from the log what is missing: one request at a time, and one more when a gap was seen meanwhile. */
  #sync() {
    if (!this.#joined) return;
    this.#syncAgain = this.#syncing;
    if (this.#syncing) return;
    this.#syncing = true;
    this.#link.send({ type: "sync_request", id: SYNC, since: this.#sequence.position() });
  }

  #sendPresence() {
    if (this.status.state === "joined" && this.#presence !== undefined) this.#link.send({ type: "presence", state: this.#presence });
  }

  #flush() {
    this.#outbox.flush(this.status.state);
  }

  /** @param {object} frame @param {boolean} [joined] whether it needs the document @returns {Promise<any>} */
  #request(frame, joined = false) {
    return this.#sending(joined, () => this.#outbox.request(frame, joined));
  }

  /** @param {boolean} joined @param {() => Promise<any>} put hands it to the outbox @returns {Promise<any>} */
  #sending(joined, put) {
    const { state, reason } = this.status;
    if (state === "closed") return Promise.reject(new TandemError("CLOSED", reason));
    if (state === "forbidden" && joined) return Promise.reject(new TandemError("FORBIDDEN", reason));
    const answered = put();
    this.#flush();
    return answered;
  }

  /** @param {{re?: string, code: string, message?: string, retry_after_ms?: number}} f */
  #refused(f) {
    const re = f.re ?? "";
    const wait = f.retry_after_ms ?? LATER_MS;
    if (re === JOIN) return f.code === "ALREADY_JOINED" ? undefined : this.#left(f);
    if (re === SYNC) this.#syncing = false;
    if (LATER.has(f.code)) {
      if (re === AUTH) return this.#authenticateIn(this.#spread(wait));
      if (re === SYNC) return this.#later(SYNC, wait, () => this.#sync());
      // Sent again it is recognised by its ID, so repeating is always safe.
      if (this.#outbox.postpone(re)) return this.#pause(f.code === "RATE_LIMITED" ? wait + BREATH_MS : wait);
      // What has no ID is presence, or UNAVAILABLE that tells why we shall not stay.
      if (!re && f.code !== "UNAVAILABLE") return this.#later("presence", wait, () => this.#sendPresence());
    }
    const error = new TandemError(f.code, f.message, f.retry_after_ms);
    if (this.#outbox.reject(re, error)) return this.#flush();
    if (!re && (f.code === "FORBIDDEN" || f.code === "UNAVAILABLE")) this.#ousted = f; // left_document follows
    else this.#tell("onError", error);
  }

  /** We are not in the document, for a reason that passes or one that does not. @param {any} f an error frame */
  #left(f) {
    this.#ousted = null;
    this.#joined = this.#syncing = this.#syncAgain = false;
    this.#empty();
    if (LATER.has(f.code)) {
      this.#set({ state: "authenticated" });
      return this.#later(JOIN, this.#spread(f.retry_after_ms ?? LATER_MS), () => this.#join());
    }
    const error = new TandemError(f.code, f.message);
    this.#set({ state: "forbidden", reason: f.message });
    this.#outbox.forbid(error);
    this.#tell("onError", error);
  }

  /** A ticket serves once, so another one comes with another socket. @param {number} ms */
  #authenticateIn(ms) {
    if (this.#options.ticket) return this.#link.again(ms, "not authenticated");
    this.#later(AUTH, ms, () => this.#link.send({ type: "authenticate", id: AUTH }));
  }

  #pause(/** @type {number} */ ms) {
    this.#outbox.paused = true;
    this.#later("resume", ms, () => {
      if (this.status.redis === "up") this.#resume(); // else we are told when it is
    });
  }

  #resume() {
    this.#outbox.paused = false;
    this.#flush();
  }

  /** No sooner than told, and not all at once. @param {number} ms */
  #spread(ms) {
    return ms + Math.round(((this.#options.random ?? Math.random)() * ms) / 2);
  }

  /** @param {number} code @param {string} reason @param {number} wait */
  #lost(code, reason, wait) {
    this.#clear();
    this.#ousted = null;
    this.#joined = this.#syncing = this.#syncAgain = false;
    this.#outbox.lost();
    this.#set({ state: "waiting", code, reason, retryInMs: wait });
    this.#empty();
  }

  /** @param {number} code @param {string} reason */
  #ended(code, reason) {
    this.#clear();
    this.#options.signal?.removeEventListener("abort", this.#abort);
    this.#empty();
    this.#set({ state: "closed", code, reason });
    this.#outbox.end(new TandemError("CLOSED", reason));
  }

  /** Whoever is here, we do not see them. */
  #empty() {
    if (this.members.size > 0) this.#present([]);
  }

  /** @param {Partial<Status> & {state: Status["state"]}} status */
  #set(status) {
    if (this.status.state === "closed") return;
    this.status = { redis: this.status.redis, ...status };
    this.#tell("onStatus", this.status);
  }

  /**
   * Calls back. What the page throws is the page's: here it must not keep the
   * rest of a frame from being applied.
   * @param {string} name @param {unknown} about
   */
  #tell(name, about) {
    if (this.status.state === "closed" && name !== "onStatus") return;
    try {
      /** @type {any} */ (this.#options)[name]?.(about, this);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  /** Once more from now. @param {string} name @param {number} ms @param {() => void} fn */
  #later(name, ms, fn) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = this.#timer(name, ms, fn);
  }

  /** @param {string} name @param {number} ms @param {() => void} fn */
  #timer(name, ms, fn) {
    return setTimeout(() => {
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
