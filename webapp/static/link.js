// @ts-check
import { TandemError } from "./errors.js";

/**
 * A WebSocket that comes back: when to open it, when to give it up, how long
 * to wait. What is said over it is the business of whoever owns the link.
 *
 * @typedef {object} Owner
 * @property {() => void} connecting a socket is being opened
 * @property {(ticket?: string) => void} open it may be written to
 * @property {(frame: any) => void} frame one was received
 * @property {(code: number, reason: string, wait: number) => void} lost it is opened again in `wait` ms
 * @property {(code: number, reason: string) => void} ended for good
 */

/** Close codes after which coming back makes sense. */
export const RETRY = new Set([1001, 1006, 1012, 4429, 4503]);

/** The server's first word must have come by then; a browser alone waits for minutes. */
const OPEN_MS = 20_000;

/** A page that wakes up wants to know sooner than a heartbeat tells whether its link lives. */
const PROBE_MS = 5_000;

const PING = { type: "ping" };

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
 * Where a document is served. What could never be is refused here: the
 * server's refusal of an upgrade cannot be read.
 * @param {{document: string, url?: string, color?: string}} options
 */
export function address({ document, url = "/ws/documents/", color }) {
  if (!/^[A-Za-z0-9._~:-]{1,128}$/.test(document)) throw new TandemError("BAD_MESSAGE", "document: 1 to 128 characters of A-Za-z0-9._~:-");
  if (color && !/^#[0-9a-f]{6}$/i.test(color)) throw new TandemError("BAD_MESSAGE", "color: #rrggbb");
  const at = new URL(url, globalThis.location?.href);
  at.protocol = at.protocol.replace("http", "ws");
  at.pathname = at.pathname.replace(/\/?$/, "/") + encodeURIComponent(document);
  if (color) at.searchParams.set("color", color);
  return at.href;
}

/** What tells that a page, or its network, was away: frozen, asleep, in the back/forward cache, without Wi-Fi. */
const wakers = () => [
  /** @type {const} */ ([globalThis, "online"]),
  /** @type {const} */ ([globalThis, "pageshow"]),
  /** @type {const} */ ([globalThis.document, "visibilitychange"]),
  /** @type {const} */ ([globalThis.document, "resume"]),
];

export class Link {
  /** @type {WebSocket | null} */
  #ws = null;
  #turn = 0; // counts attempts, so that what an older one waited for is not taken for this one's
  #attempt = 0;
  #lostBy = 0; // close code, while waiting to open again
  #notBefore = 0; // told by the server
  #beat = 0; // ms; 0 until the server has said it
  #heard = false;
  #ended = false;
  /** Opening gives up, or the heart beats, or the wait ends: one at a time. @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #leaving;

  /**
   * @param {{url: string, ticket?: () => Promise<string>, WebSocket?: typeof WebSocket, random?: () => number}} options
   * @param {Owner} owner
   */
  constructor(options, owner) {
    this.options = options;
    this.owner = owner;
    for (const [target, event] of wakers()) target?.addEventListener?.(event, this.#wake);
    queueMicrotask(() => this.#open());
  }

  /** @param {object | string} frame */
  send(frame) {
    if (this.#ws?.readyState === 1) this.#ws.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** Begins to watch: quiet for one beat, we ask; quiet for another, the link is dead, which a browser does not tell. */
  watch(/** @type {number} */ beat) {
    this.#beat = beat;
    this.#listen(beat, false);
  }

  /** Comes back in `ms`, as the server says, and stays until then. */
  moveIn(/** @type {number} */ ms) {
    this.#notBefore = Date.now() + ms;
    clearTimeout(this.#leaving);
    this.#leaving = setTimeout(() => this.#lost(1012, "reconnect"), ms);
  }

  /** Lets go now and comes back in `ms`. @param {number} ms @param {string} reason */
  again(ms, reason) {
    this.#notBefore = Date.now() + ms;
    this.#lost(1006, reason);
  }

  /** Opens now rather than when the wait is over. */
  retry() {
    if (this.#lostBy) this.#open();
  }

  /** @param {number} code @param {string} reason */
  end(code, reason) {
    if (this.#ended) return;
    this.#ended = true;
    this.#drop(1000);
    for (const [target, event] of wakers()) target?.removeEventListener?.(event, this.#wake);
    this.owner.ended(code, reason);
  }

  #open() {
    if (this.#ended) return;
    const turn = ++this.#turn;
    this.#lostBy = this.#notBefore = 0;
    this.#after(OPEN_MS, () => this.#lost(1006, "no answer"));
    this.owner.connecting();
    const { ticket } = this.options;
    if (!ticket) return this.#dial(turn);
    // First the ticket, then the socket: the server waits for nobody's ticket.
    new Promise((resolve) => resolve(ticket())).then(
      (/** @type {any} */ t) => this.#dial(turn, t),
      () => turn === this.#turn && this.#lost(1006, "no ticket"),
    );
  }

  /** @param {number} turn @param {string} [ticket] */
  #dial(turn, ticket) {
    if (turn !== this.#turn) return;
    const ws = new (this.options.WebSocket ?? globalThis.WebSocket)(this.options.url, "tandem.v1");
    this.#ws = ws;
    ws.binaryType = "arraybuffer";
    ws.onopen = () => this.owner.open(ticket);
    ws.onclose = (event) => this.#lost(event.code, event.reason);
    ws.onmessage = ({ data }) => {
      this.#heard = true;
      this.owner.frame(JSON.parse(typeof data === "string" ? data : new TextDecoder().decode(data)));
    };
  }

  /** @param {number} ms @param {boolean} asked */
  #listen(ms, asked) {
    this.#heard = false;
    const due = Date.now() + ms;
    this.#after(ms, () => {
      if (this.#heard) {
        this.#attempt = 0; // it has held for a while
        return this.#listen(this.#beat, false);
      }
      // A page that was frozen has not heard what came: it asks before it judges.
      const frozen = Date.now() - due > ms;
      if (asked && !frozen) return this.#lost(1006, "no answer");
      this.send(PING);
      this.#listen(this.#beat, true);
    });
  }

  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.#ws && this.#beat) {
      this.send(PING);
      this.#listen(Math.min(PROBE_MS, this.#beat), true);
    } else if (this.#lostBy === 1006 && !this.#notBefore) {
      this.#after(backoff(0, this.options.random), () => this.#open());
    }
  };

  /** @param {number} code @param {string} reason */
  #lost(code, reason) {
    this.#drop(code === 1012 ? 1000 : 4000);
    if (!RETRY.has(code)) return this.end(code, reason);
    this.#lostBy = code;
    const told = this.#notBefore - Date.now();
    const wait = this.#notBefore ? Math.max(0, told) : backoff(this.#attempt++, this.options.random);
    this.#after(wait, () => this.#open());
    this.owner.lost(code, reason, wait);
  }

  /** Lets go of the socket without waiting for its close. @param {number} code */
  #drop(code) {
    this.#turn++;
    clearTimeout(this.#timer);
    clearTimeout(this.#leaving);
    this.#beat = 0;
    const ws = this.#ws;
    this.#ws = null;
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.close(code);
  }

  /** @param {number} ms @param {() => void} fn */
  #after(ms, fn) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(fn, ms);
  }
}
