// What tests of the client share: a socket that a test plays the server of.
import { connect } from "../static/tandem.js";

// Node's global object hears no events; a page's does.
if (!globalThis.addEventListener) {
  const target = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener", "dispatchEvent"]) globalThis[name] = target[name].bind(target);
}

export const op = (seq, epoch = "e") => ({ type: "operation", epoch, seq, id: `o${seq}`, payload: seq });
export const ops = (...seqs) => seqs.map((seq) => op(seq));

export class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }
  readyState = 1;
  sent = [];
  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    FakeSocket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    this.readyState = 3;
    this.closedWith = code;
  }
  types() {
    return this.sent.map((f) => f.type);
  }
  reply(frame) {
    this.onmessage({ data: JSON.stringify(frame) });
  }
  broadcast(frame) {
    this.onmessage({ data: new TextEncoder().encode(JSON.stringify(frame)).buffer });
  }
  lose(code, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }
}

/** Lets promises that are settled run their course. */
export async function settle() {
  for (let i = 0; i < 20; i++) await null;
}

/** Lets the newest socket in. */
export async function join(joined = {}) {
  await settle();
  const ws = FakeSocket.last;
  ws.onopen();
  await settle();
  ws.reply({ type: "hello", connection_id: `c${FakeSocket.all.length}`, heartbeat_ms: 10_000 });
  ws.reply({ type: "auth_result", ok: true, user: { id: "1", name: "ada" }, color: "#112233" });
  ws.reply({ type: "joined_document", epoch: "e", seq: 0, recovered: true, snapshot: null, operations: [], more: false, presence: [], ...joined });
  return ws;
}

const opened = [];

/** Closes what a test has opened: it would hear the next test's events. */
export function closeAll() {
  for (const c of opened.splice(0)) c.close();
}

/** A client, and the states it has told. */
export function open(options = {}) {
  const seen = [];
  opened.push(connect({
    document: "a:b",
    url: "https://example.test/ws/documents/",
    WebSocket: FakeSocket,
    random: () => 1,
    onStatus: (s) => seen.push(s.state),
    ...options,
  }));
  return { c: opened.at(-1), seen };
}

