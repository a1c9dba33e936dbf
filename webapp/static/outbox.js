// @ts-check
import { TandemError } from "./errors.js";

/**
 * What waits to be sent, or for its answer. Operations are kept over
 * reconnects until they are acknowledged: sent again under their ID they are
 * recognised. Requests are not: once sent, a lost link rejects them.
 *
 * @typedef {{resolve: (value: any) => void, reject: (error: TandemError) => void, promise: Promise<any>}} Answer
 * @typedef {Answer & {text: string, sent: boolean}} Pending
 * @typedef {Pending & {joined: boolean}} Request
 */

/** Requests that wait; more are refused. */
const REQUESTS = 32;

/** Of an operation's ID, in bytes. */
const ID_BYTES = 64;

const encoder = new TextEncoder();
const bytes = (/** @type {string} */ text) => encoder.encode(text).length;

/** @returns {Answer} */
function answer() {
  /** @type {any} */
  const a = {};
  a.promise = new Promise((resolve, reject) => Object.assign(a, { resolve, reject }));
  return a;
}

const refusal = (/** @type {string} */ code, /** @type {string} */ message) => Promise.reject(new TandemError(code, message));

export class Outbox {
  /** In bytes of one frame; what is larger would cost the connection. */
  maxBytes = Infinity;
  /** Operations wait for a refusal to pass. */
  paused = false;
  #counter = 0;
  /** @type {Map<string, Pending>} not yet acknowledged, in order */
  #operations = new Map();
  /** @type {Map<string, Request>} by an ID of ours; those start with a tilde */
  #requests = new Map();

  /** @param {{maxPending?: number, inFlight?: number}} options @param {(text: string) => void} send */
  constructor({ maxPending = 1000, inFlight = 32 }, send) {
    this.maxPending = maxPending;
    this.inFlight = inFlight;
    this.send = send;
  }

  get unacknowledged() {
    return this.#operations.size;
  }

  /** The payload is kept as it is now. @param {unknown} payload @param {string} id @returns {Promise<any>} */
  publish(payload, id) {
    const same = this.#operations.get(id);
    if (same) return same.promise;
    if (typeof id !== "string" || id === "" || id.startsWith("~") || bytes(id) > ID_BYTES) {
      return refusal("BAD_MESSAGE", `id: 1 to ${ID_BYTES} bytes that do not begin with ~`);
    }
    let json;
    try {
      json = JSON.stringify(payload);
    } catch (error) {
      return refusal("BAD_MESSAGE", `payload: ${error.message}`);
    }
    if (json === undefined) return refusal("BAD_MESSAGE", "payload: not a JSON value");
    if (this.#operations.size >= this.maxPending) return refusal("TOO_MANY", `${this.maxPending} operations wait already`);
    const op = { ...answer(), text: `{"type":"operation","id":${JSON.stringify(id)},"payload":${json}}`, sent: false };
    this.#operations.set(id, op);
    return op.promise;
  }

  /** @param {object} frame @param {boolean} joined whether it needs the document @returns {Promise<any>} */
  request(frame, joined) {
    if (this.#requests.size >= REQUESTS) return refusal("TOO_MANY", `${REQUESTS} requests wait already`);
    const id = `~${++this.#counter}`;
    const request = { ...answer(), text: JSON.stringify({ ...frame, id }), sent: false, joined };
    this.#requests.set(id, request);
    return request.promise;
  }

  /** Sends what may be sent in that state, in order, a bounded number of operations under way. @param {string} state */
  flush(state) {
    if (state !== "authenticated" && state !== "forbidden" && state !== "joined") return;
    for (const [id, request] of this.#requests) {
      if (request.joined && state !== "joined") continue;
      this.#send(this.#requests, id, request);
    }
    if (state !== "joined" || this.paused) return;
    let room = this.inFlight;
    for (const [id, op] of this.#operations) {
      if (room-- <= 0) return;
      this.#send(this.#operations, id, op);
    }
  }

  /** @param {Map<string, Pending>} from @param {string} id @param {Pending} what */
  #send(from, id, what) {
    if (what.sent) return;
    if (what.text.length * 3 > this.maxBytes && bytes(what.text) > this.maxBytes) {
      from.delete(id);
      what.reject(new TandemError("TOO_LARGE", `a frame may have at most ${this.maxBytes} bytes`));
      return;
    }
    what.sent = true;
    this.send(what.text);
  }

  /** An answer has come. @param {string} id @param {object} value */
  settle(id, value) {
    this.#take(id)?.resolve(value);
  }

  /** A refusal has come that will not pass. Reports whether anybody was told. @param {string} id @param {TandemError} error */
  reject(id, error) {
    const pending = this.#take(id);
    pending?.reject(error);
    return !!pending;
  }

  /** A refusal has come that will pass. Reports whether it was an operation's. @param {string} id */
  postpone(id) {
    const op = this.#operations.get(id);
    if (op) op.sent = false;
    return !!op;
  }

  /** The link is gone, and every answer with it. */
  lost() {
    this.paused = false;
    for (const op of this.#operations.values()) op.sent = false;
    for (const [id, request] of this.#requests) {
      if (request.sent) this.reject(id, new TandemError("DISCONNECTED", "whether it took effect is not known"));
    }
  }

  /** What needs the document is refused. @param {TandemError} error */
  forbid(error) {
    const requests = [...this.#requests].filter(([, request]) => request.joined);
    for (const id of [...this.#operations.keys(), ...requests.map(([id]) => id)]) this.reject(id, error);
  }

  /** @param {TandemError} error */
  end(error) {
    for (const id of [...this.#operations.keys(), ...this.#requests.keys()]) this.reject(id, error);
  }

  /** @param {string} id */
  #take(id) {
    const pending = this.#operations.get(id) ?? this.#requests.get(id);
    this.#operations.delete(id);
    this.#requests.delete(id);
    return pending;
  }
}
